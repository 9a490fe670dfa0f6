// timestamp_ns: which counter, and the two ways to read it.
#include <vm_platform/timer.hpp>

#include "os/counter_clock.hpp"
#include "os/timer_host.hpp"

namespace vm_platform {
namespace {

#if defined(__x86_64__)

/// LFENCE waits for everything before it (Intel SDM 4.3, RDTSC; AMD64 3, RDTSC): a value that was read from another
/// thread has been read before the counter is.
inline std::uint64_t read_ordered() noexcept {
  std::uint32_t low = 0, high = 0;
  __asm__ __volatile__("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
  return std::uint64_t{high} << 32 | low;
}
inline std::uint64_t read_unordered() noexcept {
  std::uint32_t low = 0, high = 0;
  __asm__ __volatile__("rdtsc" : "=a"(low), "=d"(high));
  return std::uint64_t{high} << 32 | low;
}

#elif defined(__aarch64__)

/// ISB keeps the counter from being read early (Arm ARM D11.2.1).
inline std::uint64_t read_ordered() noexcept {
  std::uint64_t value = 0;
  __asm__ __volatile__("isb; mrs %0, cntvct_el0" : "=r"(value)::"memory");
  return value;
}
inline std::uint64_t read_unordered() noexcept {
  std::uint64_t value = 0;
  __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(value));
  return value;
}

#else
#error "this processor's counter is not described yet"
#endif

std::uint64_t counter() { return read_ordered(); }

CounterClock& clock() noexcept {
  static CounterClock instance({.counter = counter, .reference = timer_host::monotonic_ns},
                               timer_host::counter_unusable());
  static const bool told = timer_host::after_fork([] { instance.forget_other_threads(); });
  (void)told;
  return instance;
}

std::uint64_t first_reading() noexcept;

/// Set once the clock stands, so that the fast path needs no guard variable. Where the counter was of no use from the
/// start, it stays null and the system's clock is read.
std::atomic<CounterClock*> g_clock = nullptr;
std::atomic<std::uint64_t (*)()> g_without_counter = first_reading;

[[gnu::noinline]] std::uint64_t first_reading() noexcept {
  CounterClock& made = clock();
  if (made.reason() != nullptr) {
    g_without_counter.store(timer_host::monotonic_ns, std::memory_order_relaxed);
    return timer_host::monotonic_ns();
  }
  g_clock.store(&made, std::memory_order_release);
  return made.slow();
}

}  // namespace

std::uint64_t timestamp_ns() noexcept {
  CounterClock* ready = g_clock.load(std::memory_order_acquire);
  if (ready == nullptr) [[unlikely]]
    return g_without_counter.load(std::memory_order_relaxed)();
  const auto now = ready->at(read_ordered());
  return now ? *now : ready->slow();
}

std::uint64_t timestamp_ns_unordered() noexcept {
  CounterClock* ready = g_clock.load(std::memory_order_acquire);
  if (ready == nullptr) [[unlikely]]
    return g_without_counter.load(std::memory_order_relaxed)();
  const auto now = ready->at(read_unordered());
  return now ? *now : ready->slow();
}

TimerInfo timer_info() {
  (void)timestamp_ns();
  const CounterClock& now = clock();
  const char* reason = now.reason();
  if (reason != nullptr) return {.source = TimerSource::SystemClock, .frequency_hz = 0, .reason = reason};
  return {.source = TimerSource::CpuCounter, .frequency_hz = now.frequency_hz(), .reason = {}};
}

}  // namespace vm_platform
