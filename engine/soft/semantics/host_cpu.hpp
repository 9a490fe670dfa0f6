// What of the host's CPU the engine makes use of, where hosts differ.
#pragma once

#include <cstdint>

#include "engine/engine.hpp"

namespace vm_platform::soft {

/// CPUID of the host, as far as its features can be passed on (Intel SDM vol. 2, CPUID; AMD APM vol. 3, appendix E).
struct HostCpu {
  std::uint32_t leaf1_ecx = 0, leaf7_ebx = 0, leaf7_edx = 0, extended_ecx = 0;
  bool xsave = false;  ///< The CPU has it and the host's system lets programs use it.
  bool avx = false;    ///< The host's system saves YMM registers.
  bool bmi2 = false;
  bool lahf = false;  ///< LAHF and SAHF in 64-bit mode.

  /// This host as the engine is to see it.
  static const HostCpu& as_used(HostCpuUse use);
  /// XSAVE components that host and guest share: x87, SSE, AVX. 0: there is no XSAVE.
  [[nodiscard]] std::uint64_t components() const { return !xsave ? 0 : avx ? 7 : 3; }

 private:
  explicit HostCpu(HostCpuUse use);
};

}  // namespace vm_platform::soft
