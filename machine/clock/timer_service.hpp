// Deadlines for devices: one thread, absolute times of CLOCK_MONOTONIC.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// CLOCK_MONOTONIC in nanoseconds; what every device clock of the machine counts by.
[[nodiscard]] std::int64_t monotonic_ns() noexcept;

class TimerService;

/// One deadline. `arm` and `cancel` are thread-safe and may be called under the lock that the callback takes; moving
/// the deadline later, or off, costs one atomic store and wakes nobody.
class Timer {
 public:
  static constexpr std::int64_t kNever = INT64_MAX;

  /// `callback` runs on the service's thread, with none of its locks held. It may come late by the host's scheduling
  /// and it may come after a `cancel` that raced with it: the callback looks at its device's own state.
  Timer(TimerService& service, std::function<void()> callback);
  /// Waits for a callback that runs. Not from the callback itself.
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  /// At this time of `monotonic_ns`; a time that has passed means now. Replaces an earlier deadline.
  void arm(std::int64_t deadline_ns);
  void cancel() noexcept;

 private:
  friend class TimerService;
  TimerService& service_;
  std::function<void()> callback_;
  std::atomic<std::int64_t> deadline_{kNever};  // what was asked for
  std::atomic<std::int64_t> queued_{kNever};    // when the service looks at this timer; changed under its mutex
};

/// Fires timers. Sleeps in one read of a timerfd, so an idle machine costs nothing; a deadline that becomes the
/// earliest costs its setter one system call and no context switch.
class TimerService {
 public:
  static Result<std::unique_ptr<TimerService>> create();
  /// All timers are gone by then.
  ~TimerService();
  TimerService(const TimerService&) = delete;
  TimerService& operator=(const TimerService&) = delete;

 private:
  friend class Timer;
  explicit TimerService(int descriptor) : descriptor_(descriptor) {}
  void run();
  void add(Timer& timer);
  void remove(Timer& timer);
  void queue(Timer& timer);
  void program(std::int64_t deadline_ns) noexcept;
  bool fire_one(std::unique_lock<std::mutex>& lock, std::int64_t now);

  const int descriptor_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::vector<Timer*> timers_;           // a dozen per machine: a scan is as quick as a heap
  Timer* running_ = nullptr;             // whose callback runs now
  std::int64_t programmed_ = INT64_MAX;  // what the descriptor is set to
  bool firing_ = false, stopping_ = false;
  std::thread thread_;
};

}  // namespace vm_platform
