// Model-specific registers, by index.
#pragma once

#include <cstdint>
#include <span>

#include "engine/soft/cpu.hpp"

namespace vm_platform::soft {

/// RDMSR and WRMSR without the privilege check. Unknown registers and reserved values raise #GP(0).
std::uint64_t read_msr(Cpu& cpu, std::uint32_t index);
void write_msr(Cpu& cpu, std::uint32_t index, std::uint64_t value);

/// The registers that make up CpuState::msrs: those read_msr knows and CpuState does not name otherwise.
std::span<const std::uint32_t> state_msrs();

/// The counter RDTSC reads.
inline std::uint64_t guest_tsc(const Cpu& cpu) { return __builtin_ia32_rdtsc() + cpu.tsc_offset; }

}  // namespace vm_platform::soft
