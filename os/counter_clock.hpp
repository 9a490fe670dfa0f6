// A clock that extrapolates from a CPU counter and is kept to a reference clock.
//
// Between resynchronisations time is a straight line over the counter, published under a sequence number. Nobody
// extrapolates further than `limit`: who finds the line used up takes two readings close together (counter, reference)
// and publishes the next line, which never begins below the highest value the old one can have given.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

namespace vm_platform {

class CounterClock {
 public:
  /// Where readings come from; a test gives its own.
  struct Source {
    std::uint64_t (*counter)();    ///< Ordered behind everything before it.
    std::uint64_t (*reference)();  ///< Nanoseconds.
  };
  static constexpr std::uint64_t kFirstInterval = 1'000'000, kLongestInterval = 128'000'000;  // ns

  /// `reason` not null: the counter cannot be used, all readings come from the reference.
  explicit CounterClock(Source source, const char* reason = nullptr);

  /// The time at counter value `ticks`, or nothing where the line is used up or being replaced: then call `slow`.
  [[nodiscard]] std::optional<std::uint64_t> at(std::uint64_t ticks) const noexcept {
    const std::uint32_t sequence = sequence_.load(std::memory_order_acquire);
    const std::uint64_t delta = ticks - base_ticks_.load(std::memory_order_relaxed);
    const std::uint64_t limit = limit_.load(std::memory_order_relaxed);
    const std::uint64_t ns =
        base_ns_.load(std::memory_order_relaxed) + ((delta * rate_.load(std::memory_order_relaxed)) >> kShift);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (delta >= limit || (sequence & 1) != 0 || sequence_.load(std::memory_order_relaxed) != sequence) [[unlikely]]
      return std::nullopt;
    return ns;
  }
  [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_.load(std::memory_order_acquire); }

  /// A reading by the long way: resynchronises where the line is used up.
  [[gnu::noinline]] std::uint64_t slow() noexcept;

  /// In a forked child: the thread that may have been drawing a line exists no more.
  void forget_other_threads() noexcept;

  [[nodiscard]] const char* reason() const noexcept { return reason_.load(); }
  [[nodiscard]] std::uint64_t frequency_hz() const noexcept;

 private:
  static constexpr unsigned kShift = 32;
  enum State : std::uint32_t { kFree, kSampling, kPublishing };
  struct Sample {
    std::uint64_t ticks, ns;
  };
  [[nodiscard]] Sample sample() const noexcept;
  void calibrate() noexcept;
  void resynchronise() noexcept;
  void publish(std::uint64_t ticks, std::uint64_t ns, std::uint64_t rate, std::uint64_t interval_ns) noexcept;
  void give_up(const char* reason) noexcept;
  std::uint64_t raise_floor(std::uint64_t ns) noexcept;

  // What readers need, in one cache line.
  alignas(64) std::atomic<std::uint32_t> sequence_ = 0;
  std::atomic<std::uint64_t> base_ticks_ = 0, base_ns_ = 0, rate_ = 0, limit_ = 0;

  alignas(64) std::atomic<std::uint32_t> state_ = kFree;
  std::atomic<std::uint64_t> floor_ = 0;          // the highest reading given around the lines before this one
  std::atomic<std::uint64_t> rate_believed_ = 0;  // the counter's; the line's differs while it catches up
  std::atomic<const char*> reason_ = nullptr;
  Source source_;
  std::uint64_t interval_ns_ = kFirstInterval;
  std::uint64_t rate_measured_ = 0;  // the last time, believed or not
  Sample last_{};
};

}  // namespace vm_platform
