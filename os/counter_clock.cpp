#include "os/counter_clock.hpp"

#include <algorithm>
#include <thread>

namespace vm_platform {
namespace {

inline void relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

std::uint64_t ratio(std::uint64_t ns, std::uint64_t ticks) {
  return static_cast<std::uint64_t>(static_cast<long double>(ns) * 4294967296.0L / static_cast<long double>(ticks));
}

/// Within a hundredth: more than rates measured over a tenth of a millisecond are off.
bool agree(std::uint64_t a, std::uint64_t b) { return std::max(a, b) - std::min(a, b) < std::min(a, b) / 100; }

}  // namespace

CounterClock::CounterClock(Source source, const char* reason) : reason_(reason), source_(source) {
  if (reason == nullptr) {
    calibrate();
  } else {
    give_up(reason);
  }
}

/// The reference between two readings of the counter, taken again until they are close together.
CounterClock::Sample CounterClock::sample() const noexcept {
  Sample best{};
  std::uint64_t best_window = UINT64_MAX;
  for (int attempt = 0, good = 0; attempt < 20 && good < 4; ++attempt) {
    const std::uint64_t before = source_.counter();
    const std::uint64_t ns = source_.reference();
    const std::uint64_t after = source_.counter();
    const std::uint64_t window = after - before;
    if (window < best_window) {
      best = {before + window / 2, ns};
      good = window > best_window - best_window / 8 ? good + 1 : 0;
      best_window = window;
    } else {
      ++good;
    }
  }
  return best;
}

void CounterClock::calibrate() noexcept {
  // A tenth of a millisecond gives some 200 ppm: enough for the first interval of one millisecond, after which the
  // baselines grow. Two measurements in a row must agree, in case the machine stood still during one; each is longer
  // than the last, in case readings are bad here.
  std::uint64_t before = 0;
  for (std::uint64_t length = 100'000; length <= 10'000'000; length += length / 2) {
    const Sample first = sample();
    Sample second = first;
    for (int i = 0; i < 100'000 && second.ns - first.ns < length; ++i) second = sample();
    if (second.ticks <= first.ticks || second.ns - first.ns < length / 2) break;
    const std::uint64_t rate = ratio(second.ns - first.ns, second.ticks - first.ticks);
    if (agree(rate, before)) {
      last_ = first;
      rate_measured_ = rate;
      rate_believed_.store(rate, std::memory_order_relaxed);
      return publish(second.ticks, second.ns, rate, interval_ns_);
    }
    before = rate;
  }
  give_up("the counter does not run evenly");
}

void CounterClock::publish(std::uint64_t ticks, std::uint64_t ns, std::uint64_t rate,
                           std::uint64_t interval_ns) noexcept {
  const std::uint32_t sequence = sequence_.load(std::memory_order_relaxed);
  sequence_.store(sequence + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  base_ticks_.store(ticks, std::memory_order_relaxed);
  base_ns_.store(ns, std::memory_order_relaxed);
  rate_.store(rate, std::memory_order_relaxed);
  limit_.store(rate == 0 ? 0
                         : static_cast<std::uint64_t>(static_cast<long double>(interval_ns) * 4294967296.0L /
                                                      static_cast<long double>(rate)),
               std::memory_order_relaxed);
  sequence_.store(sequence + 2, std::memory_order_release);
}

void CounterClock::give_up(const char* reason) noexcept {
  reason_ = reason;
  rate_believed_.store(0, std::memory_order_relaxed);
  publish(0, 0, 0, 0);
}

std::uint64_t CounterClock::frequency_hz() const noexcept {
  const std::uint64_t rate = rate_believed_.load(std::memory_order_relaxed);
  if (rate == 0) return 0;
  return static_cast<std::uint64_t>(1e9L * 4294967296.0L / static_cast<long double>(rate));
}

void CounterClock::resynchronise() noexcept {
  const Sample now = sample();
  const std::uint64_t base = base_ticks_.load(std::memory_order_relaxed);
  const std::uint64_t limit = limit_.load(std::memory_order_relaxed);
  const std::uint64_t highest =
      base_ns_.load(std::memory_order_relaxed) + ((limit * rate_.load(std::memory_order_relaxed)) >> kShift);
  if (now.ticks - base > (1ULL << 62) || now.ns < last_.ns || now.ticks <= last_.ticks) {
    // Only a suspended or migrated machine does this.
    raise_floor(highest);
    return give_up("the counter went backwards");
  }
  if (now.ticks - base < limit) return;  // somebody else has been here
  // The counter runs on through a suspend, the reference may not: what was measured across one is no rate. The old one
  // goes on, and is soon measured again. A rate that did change (chrony slews by up to 8 %) is measured twice alike.
  const std::uint64_t measured = ratio(now.ns - last_.ns, now.ticks - last_.ticks);
  std::uint64_t rate = rate_believed_.load(std::memory_order_relaxed);
  if (agree(measured, rate) || agree(measured, rate_measured_)) {
    rate = measured;
    rate_believed_.store(rate, std::memory_order_relaxed);
    interval_ns_ = std::min(interval_ns_ * 2, kLongestInterval);
  } else {
    interval_ns_ = kFirstInterval;
  }
  rate_measured_ = measured;
  state_.store(kPublishing, std::memory_order_seq_cst);
  const std::uint64_t start = raise_floor(std::max(now.ns, highest));
  // Ahead of the reference: go slower (at most a tenth) until it has caught up. Behind: step forward, nobody can tell.
  const std::uint64_t ahead = start - now.ns;
  const std::uint64_t slower = std::min(ahead, interval_ns_ / 10);
  const auto correction = static_cast<std::uint64_t>(static_cast<long double>(rate) * static_cast<long double>(slower) /
                                                     static_cast<long double>(interval_ns_));
  publish(now.ticks, start, rate - correction, interval_ns_);
  last_ = now;
}

/// The floor, at least `ns` from here on.
std::uint64_t CounterClock::raise_floor(std::uint64_t ns) noexcept {
  std::uint64_t floor = floor_.load(std::memory_order_seq_cst);
  while (floor < ns && !floor_.compare_exchange_weak(floor, ns, std::memory_order_seq_cst)) {
  }
  return std::max(ns, floor);
}

void CounterClock::forget_other_threads() noexcept {
  const std::uint32_t sequence = sequence_.load(std::memory_order_relaxed);
  if (sequence % 2 != 0) {
    // Half a line. One without length in its place, which the next reading replaces; no value was above the floor.
    sequence_.store(sequence + 1, std::memory_order_relaxed);
    publish(last_.ticks, floor_.load(std::memory_order_relaxed), rate_believed_.load(std::memory_order_relaxed), 0);
  }
  state_.store(kFree, std::memory_order_release);
}

std::uint64_t CounterClock::slow() noexcept {
  for (int round = 0;; ++round) {
    if (reason_.load(std::memory_order_relaxed) != nullptr)
      return std::max(source_.reference(), floor_.load(std::memory_order_relaxed));
    if (const auto now = at(source_.counter())) return *now;
    std::uint32_t expected = kFree;
    if (state_.compare_exchange_strong(expected, kSampling, std::memory_order_acquire)) {
      resynchronise();
      state_.store(kFree, std::memory_order_release);
      continue;
    }
    // Another thread is at it: usually a microsecond. It may have lost its CPU, or be this very thread under a signal
    // handler, so nobody waits for ever.
    for (int i = 0; i < 1000 && state_.load(std::memory_order_acquire) != kFree; ++i) relax();
    if (round < 2) continue;
    const std::uint64_t ns = raise_floor(source_.reference());
    // While the other one samples it has yet to read the floor, so its line will begin above what we return.
    if (state_.load(std::memory_order_seq_cst) == kSampling) return ns;
    if (round > 50) return ns;
    std::this_thread::yield();
  }
}

}  // namespace vm_platform
