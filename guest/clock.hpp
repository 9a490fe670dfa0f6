// The guest's time stamp counter, shared by the CPUs that read it and the timers that compare with it.
#pragma once

#include <cstdint>

namespace vm_platform {

/// Guest TSC = host TSC + offset, at the host's own frequency, so that reading it costs one instruction.
struct TscClock {
  std::uint64_t frequency_hz = 0;
  std::uint64_t offset = 0;  ///< Added to the host's counter, modulo 2^64.

  /// The counter's value now. Thread-safe.
  [[nodiscard]] std::uint64_t now() const noexcept { return __builtin_ia32_rdtsc() + offset; }
};

/// Measures the host's TSC against CLOCK_MONOTONIC once; later calls return the same value.
[[nodiscard]] std::uint64_t host_tsc_frequency();

}  // namespace vm_platform
