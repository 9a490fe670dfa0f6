#include "os/timer_host.hpp"

#include <pthread.h>

#include <atomic>
#include <ctime>
#include <fstream>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#include <dlfcn.h>
#endif

namespace vm_platform::timer_host {
namespace {

using ClockGettime = int (*)(clockid_t, timespec*);

/// The kernel's own function in its vDSO (vdso(7)), so that there is one call between a reader and the clock, not two.
std::atomic<ClockGettime> g_clock_gettime = ::clock_gettime;

#if defined(__x86_64__)
void find_vdso() {
  void* vdso = ::dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);
  if (vdso == nullptr) return;
  if (void* function = ::dlvsym(vdso, "__vdso_clock_gettime", "LINUX_2.6"))
    g_clock_gettime.store(reinterpret_cast<ClockGettime>(function), std::memory_order_relaxed);
  ::dlclose(vdso);
}
#endif

}  // namespace

std::uint64_t monotonic_ns() {
  timespec now{};
  g_clock_gettime.load(std::memory_order_relaxed)(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

const char* counter_unusable() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  find_vdso();
  // CPUID Fn8000_0007 EDX bit 8: the TSC runs at one rate in all P-, C- and T-states.
  if (__get_cpuid(0x80000007, &a, &b, &c, &d) == 0 || (d & 256) == 0) return "the TSC is not invariant";
  // The kernel watches whether the TSCs of all cores agree, and stops using them where they do not.
  std::ifstream file("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  std::string source;
  if (!(file >> source)) return "the kernel does not say which clock it trusts";
  if (source != "tsc") return "the kernel's clock source is not the TSC";
#endif
  return nullptr;  // CNTVCT_EL0 is one system-wide counter by architecture
}

bool after_fork(void (*function)()) { return ::pthread_atfork(nullptr, nullptr, function) == 0; }

}  // namespace vm_platform::timer_host
