// The feature bits that CPUID gives, as a table (docs/cpu.md is generated from it).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace vm_platform::soft {

struct CpuidFeature {
  enum class Register : std::uint8_t { Eax, Ebx, Ecx, Edx };
  enum class Given : std::uint8_t {
    Always,
    HostHas,     ///< Where the host's CPU has it.
    HostHasYmm,  ///< The same, and the host's system saves YMM registers.
    Several,     ///< To machines with more than one CPU.
    Osxsave,     ///< While CR4.OSXSAVE is set.
    FiveLevels,  ///< Where 5-level paging was asked for.
  };
  std::uint32_t leaf;
  Register where;
  unsigned number;
  Given given;
  std::string_view name;
};

std::span<const CpuidFeature> cpuid_features();

}  // namespace vm_platform::soft
