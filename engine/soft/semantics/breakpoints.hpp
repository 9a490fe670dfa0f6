// The debug registers' breakpoints (Intel SDM vol. 3, 18.2). While one is enabled the engine runs instruction by
// instruction, with every access by way of C++, and asks these.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/soft/cpu.hpp"

namespace vm_platform::soft {

/// Whether DR7 enables any breakpoint. Cheap.
inline bool has_breakpoints(const Cpu& cpu) { return (cpu.dr7 & 0xff) != 0; }

// Each returns the bits B0 to B3 of DR6 for what the access hits.
std::uint64_t instruction_breakpoints(const Cpu& cpu, std::uint64_t linear);
std::uint64_t data_breakpoints(const Cpu& cpu, std::uint64_t linear, std::size_t size, bool write);
/// Only with CR4.DE set.
std::uint64_t port_breakpoints(const Cpu& cpu, std::uint16_t port, unsigned size);

/// Remembers what a data access hits for the trap after the instruction.
inline void note_access(Cpu& cpu, std::uint64_t linear, std::size_t size, bool write) {
  if (has_breakpoints(cpu)) cpu.debug_hits |= data_breakpoints(cpu, linear, size, write);
}

}  // namespace vm_platform::soft
