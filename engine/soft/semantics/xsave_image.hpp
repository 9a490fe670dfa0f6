// The standard form of the XSAVE area (Intel SDM vol. 1, 13.4), in which `Cpu::xsave` keeps x87, SSE and AVX state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/soft/context.hpp"

namespace vm_platform::soft::xsave {

inline constexpr std::size_t kControl = 0, kStatus = 2, kTags = 4, kMxcsr = 24, kSt = 32, kXmm = 160, kHeader = 512,
                             kYmm = 576;
inline constexpr std::uint8_t kX87 = 1, kSse = 2, kAvx = 4;  ///< Components.

inline constexpr std::uint32_t kMxcsrBits = 0xffff;  ///< Others are reserved.

template <typename T>
T image(const Cpu& cpu, std::size_t offset) {
  T value;
  std::memcpy(&value, cpu.xsave + offset, sizeof value);
  return value;
}
template <typename T>
void set_image(Cpu& cpu, std::size_t offset, T value) {
  std::memcpy(cpu.xsave + offset, &value, sizeof value);
}

/// FSW.ES: the next waiting instruction raises #MF.
inline bool has_pending_x87_error(const Cpu& cpu) { return (image<std::uint16_t>(cpu, kStatus) & 0x80) != 0; }

}  // namespace vm_platform::soft::xsave
