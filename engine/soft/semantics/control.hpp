// What the CPU offers, as far as its registers depend on it, and writes to CR0 from elsewhere.
#pragma once

#include <cstdint>

#include "engine/soft/cpu.hpp"

namespace vm_platform::soft {

/// MAXPHYADDR (CPUID 80000008h).
inline constexpr unsigned kPhysicalAddressBits = 46;

/// XSAVE and its state components: x87, SSE, and AVX where the host has it.
bool offers_xsave(const Cpu& cpu);
std::uint64_t offered_xcr0();
bool offers_invpcid();
bool offers_rdrand();
bool offers_rdseed();

/// With all checks and consequences of MOV to CR0.
void set_cr0(Cpu& cpu, std::uint64_t value);

}  // namespace vm_platform::soft
