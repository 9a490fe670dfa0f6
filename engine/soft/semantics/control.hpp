// What the CPU offers, as far as its registers depend on it.
#pragma once

#include <cstdint>

#include "engine/soft/cpu.hpp"

namespace vm_platform::soft {

/// MAXPHYADDR (CPUID 80000008h).
inline constexpr unsigned kPhysicalAddressBits = 46;

/// XSAVE and its state components: x87, SSE, and AVX where the host has it.
bool offers_xsave(const Cpu& cpu);
std::uint64_t offered_xcr0(const Cpu& cpu);
/// x87 always, nothing that is not offered, AVX with SSE only (Intel SDM vol. 1, 13.3).
bool is_possible_xcr0(const Cpu& cpu, std::uint64_t value);
/// The bits that CR4 may have.
std::uint64_t offered_cr4(const Cpu& cpu);
bool offers_rdrand(const Cpu& cpu);
bool offers_rdseed(const Cpu& cpu);

/// What entering PAE paging, or loading CR3 while it is on, does before anything changes (Intel SDM vol. 3, 4.4.1):
/// reads the four page-directory pointers that are used from then on. Nothing in other modes. Raises #GP for reserved
/// bits.
void load_pdptes(Cpu& cpu, std::uint64_t new_cr0, std::uint64_t new_cr3, std::uint64_t new_cr4);

}  // namespace vm_platform::soft
