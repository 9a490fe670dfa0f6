// Time: monotonic nanoseconds read from the CPU's own counter where that is safe.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>

namespace vm_platform {

/// Nanoseconds of the host's monotonic clock (Linux: CLOCK_MONOTONIC; Windows: the performance counter). Never goes
/// backwards, also when the value is handed from one thread to another on a different core: the reading is not done
/// before anything ahead of it in program order has been. Reads the CPU's counter, kept to that clock (resynchronised
/// at most 128 ms apart), else the clock itself. The counter is an invariant TSC (on Linux only where the kernel's own
/// clock source is the TSC) or CNTVCT. A suspend that the host's clock does not count is not counted; for a second and
/// a half after one a reading may be ahead of that clock by up to 128 ms, since time never goes back. Any thread, also
/// of a forked child, and once it has been called, also signal handlers. The first call takes 0.2 ms to calibrate, more
/// where readings of the two clocks lie far apart.
[[nodiscard]] std::uint64_t timestamp_ns() noexcept;

/// The same clock, cheaper: the CPU may read the counter early, before loads and stores ahead of it are done, so that
/// two readings in different threads are not ordered by what passes between the threads (differences of some ten ns).
/// For statistics and profiles, not for deciding what came first.
[[nodiscard]] std::uint64_t timestamp_ns_unordered() noexcept;

enum class TimerSource : std::uint8_t { CpuCounter, SystemClock };

/// Where `timestamp_ns` comes from on this host.
struct TimerInfo {
  TimerSource source = TimerSource::SystemClock;
  std::uint64_t frequency_hz = 0;  ///< Of the CPU's counter, measured; 0 for the system clock.
  std::string reason;              ///< Why not the CPU's counter; empty where it is used.
};
[[nodiscard]] TimerInfo timer_info();

/// A result and how long it took.
template <typename T>
struct Measured {
  T result;
  std::uint64_t elapsed_ns = 0;
};
template <>
struct Measured<void> {
  std::uint64_t elapsed_ns = 0;
};

/// Calls `function` with `arguments`; returns what it returned and the nanoseconds it took.
/// `auto [image, ns] = measure(load, path);`
template <typename Function, typename... Arguments>
auto measure(Function&& function, Arguments&&... arguments) -> Measured<std::invoke_result_t<Function, Arguments...>> {
  using T = std::invoke_result_t<Function, Arguments...>;
  const std::uint64_t begin = timestamp_ns();
  if constexpr (std::is_void_v<T>) {
    std::invoke(std::forward<Function>(function), std::forward<Arguments>(arguments)...);
    return {timestamp_ns() - begin};
  } else {
    T result = std::invoke(std::forward<Function>(function), std::forward<Arguments>(arguments)...);
    return {std::forward<T>(result), timestamp_ns() - begin};
  }
}

}  // namespace vm_platform
