// What code is translated for: everything outside of its bytes that decides what it means.
#pragma once

#include <cstdint>

#include "engine/soft/cpu.hpp"
#include "engine/soft/instruction.hpp"

namespace vm_platform::soft {

/// Part of a block's key. A change of any of these selects other translations of the same code.
struct Mode {
  CodeSize code = CodeSize::Bits16;
  TlbIndex tlb = TlbIndex::SupervisorOpen;
  std::uint8_t stack_bytes = 2;                ///< 2, 4 or 8: how much of RSP the stack uses.
  bool flat = false;                           ///< Every segment but FS and GS starts at 0 and has no limit.
  bool checked = false;                        ///< One instruction, every access by way of C++.
  bool x87 = false, sse = false, avx = false;  ///< Usable without an exception.
  bool vex = false;                            ///< VEX prefixes exist: neither real nor virtual-8086 mode.
  bool kernel = false;                         ///< CPL 0.
  bool rdtsc = false;                          ///< Not trapped by CR4.TSD.

  [[nodiscard]] std::uint32_t key() const {
    return static_cast<std::uint32_t>(code) | static_cast<std::uint32_t>(tlb) << 2 |
           static_cast<std::uint32_t>(stack_bytes) << 4 | (flat ? 1u << 8 : 0) | (checked ? 1u << 9 : 0) |
           (x87 ? 1u << 10 : 0) | (sse ? 1u << 11 : 0) | (avx ? 1u << 12 : 0) | (kernel ? 1u << 13 : 0) |
           (rdtsc ? 1u << 14 : 0) | (vex ? 1u << 15 : 0);
  }
  bool operator==(const Mode&) const = default;
};

/// The mode a CPU is in now.
Mode current_mode(const Cpu& cpu);

}  // namespace vm_platform::soft
