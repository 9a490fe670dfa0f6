#include "os/timer_host.hpp"

#include <cpuid.h>
#include <windows.h>

namespace vm_platform::timer_host {

std::uint64_t monotonic_ns() {
  static const std::uint64_t frequency = [] {
    LARGE_INTEGER value{};
    ::QueryPerformanceFrequency(&value);
    return static_cast<std::uint64_t>(value.QuadPart);
  }();
  LARGE_INTEGER now{};
  ::QueryPerformanceCounter(&now);
  const auto ticks = static_cast<std::uint64_t>(now.QuadPart);
  return ticks / frequency * 1'000'000'000U + ticks % frequency * 1'000'000'000U / frequency;
}

const char* counter_unusable() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  // CPUID Fn8000_0007 EDX bit 8: the TSC runs at one rate in all P-, C- and T-states.
  if (__get_cpuid(0x80000007, &a, &b, &c, &d) == 0 || (d & 256) == 0) return "the TSC is not invariant";
  return nullptr;
}

bool after_fork(void (* /*function*/)()) { return true; }

}  // namespace vm_platform::timer_host
