// Loading RFLAGS from memory with the privilege rules of POPF and IRET.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/soft/cpu.hpp"

namespace vm_platform::soft {

/// What 16-bit forms can change regardless of privilege, and what the wider ones add.
inline constexpr std::uint64_t kUserFlags16 =
    rflags::kArithmetic | rflags::kTrap | rflags::kDirection | rflags::kNestedTask;
inline constexpr std::uint64_t kUserFlags32 =
    kUserFlags16 | rflags::kResume | rflags::kAlignmentCheck | rflags::kIdentification;
inline constexpr std::uint64_t kLoadableFlags32 = kUserFlags32 | rflags::kInterrupt | rflags::kIoplMask |
                                                  rflags::kVirtual8086 | rflags::kVirtualInterrupt |
                                                  rflags::kVirtualInterruptPending;

/// RFLAGS from `value` of `size` bytes; `privileged` are the further bits the current privilege may change.
/// RF lives until the next instruction; without breakpoints nothing can see it but pushed images, so it is dropped.
inline void load_flags(Cpu& cpu, std::uint64_t value, std::size_t size, std::uint64_t privileged) {
  std::uint64_t mask = (size == 2 ? kUserFlags16 : kUserFlags32) | privileged;
  if (size == 2) mask &= 0xffff;
  if ((cpu.dr7 & 0xff) == 0) value &= ~rflags::kResume;
  cpu.set_flags((cpu.flags() & ~mask) | (value & mask));
}

}  // namespace vm_platform::soft
