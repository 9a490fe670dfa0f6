// The local APIC's timer: one-shot, periodic, TSC deadline (Intel SDM vol. 3, 11.5.4).
#include <algorithm>

#include "machine/interrupt/apic_registers.hpp"
#include "machine/interrupt/local_apic.hpp"

namespace vm_platform {
using namespace apic;
namespace {

// A guest that asks for a tick each nanosecond gets its ticks merged, so that it cannot keep the timer thread busy.
constexpr std::uint64_t kShortestPeriodNs = 100'000;
// No deadline is further away than this as far as the host's timer goes; it is looked at again then.
constexpr std::uint64_t kFurthestNs = 3600ull * 1'000'000'000;

/// Divide configuration, bits 0, 1 and 3, as a shift.
unsigned divide_shift(std::uint32_t divide) {
  const std::uint32_t code = (divide & 3) | (divide >> 1 & 4);
  return (code + 1) & 7;
}

}  // namespace

std::uint64_t LocalApic::period_ns() const noexcept { return std::uint64_t{initial_count_} << divide_shift(divide_); }

std::uint32_t LocalApic::current_count(std::int64_t now) const noexcept {
  const std::uint32_t mode = lvt_[kTimer].load() >> 17 & 3;
  if (initial_count_ == 0 || mode == kTimerDeadline) return 0;
  const std::uint64_t period = period_ns();
  auto passed = static_cast<std::uint64_t>(std::max<std::int64_t>(now - count_start_, 0));
  if (mode == kTimerPeriodic) {
    passed %= period;
  } else if (passed >= period) {
    return 0;
  }
  return initial_count_ - static_cast<std::uint32_t>(passed >> divide_shift(divide_));
}

void LocalApic::start_count(std::uint32_t initial) {
  const std::scoped_lock lock(timer_mutex_);
  if ((lvt_[kTimer].load() >> 17 & 3) == kTimerDeadline) return;  // ignored in that mode
  initial_count_ = initial;
  count_start_ = monotonic_ns();
  rearm_count(count_start_);
}

/// Sets the host's timer for the next time the count reaches zero, if that is to interrupt.
void LocalApic::rearm_count(std::int64_t now) {
  const std::uint32_t entry = lvt_[kTimer].load();
  const std::uint32_t mode = entry >> 17 & 3;
  next_fire_ = Timer::kNever;
  if (initial_count_ != 0 && (entry & kLvtMasked) == 0 && mode != kTimerDeadline) {
    const std::uint64_t period = period_ns();
    if (mode == kTimerPeriodic) {
      const auto passed = static_cast<std::uint64_t>(std::max<std::int64_t>(now - count_start_, 0));
      std::uint64_t periods = passed / period + 1;
      if (period < kShortestPeriodNs) periods += kShortestPeriodNs / period;
      next_fire_ = count_start_ + static_cast<std::int64_t>(periods * period);
    } else if (count_start_ + static_cast<std::int64_t>(period) > now) {
      next_fire_ = count_start_ + static_cast<std::int64_t>(period);
    }
  }
  if (next_fire_ == Timer::kNever) {
    timer_.cancel();
  } else {
    timer_.arm(next_fire_);
  }
}

void LocalApic::write_deadline(std::uint64_t value) {
  const std::scoped_lock lock(timer_mutex_);
  if ((lvt_[kTimer].load() >> 17 & 3) != kTimerDeadline) return;
  deadline_ = value;
  if (value == 0) {
    timer_.cancel();
    return;
  }
  const std::uint64_t now = tsc_.now();
  if (value <= now) {
    deadline_ = 0;
    timer_.cancel();
    deliver_local(kTimer);
    return;
  }
  const auto ahead = static_cast<__uint128_t>(value - now) * 1'000'000'000 / tsc_.frequency_hz;
  timer_.arm(monotonic_ns() +
             static_cast<std::int64_t>(ahead < kFurthestNs ? static_cast<std::uint64_t>(ahead) + 1 : kFurthestNs));
}

void LocalApic::timer_fired() {
  const std::scoped_lock lock(timer_mutex_);
  const std::uint32_t mode = lvt_[kTimer].load() >> 17 & 3;
  if (mode == kTimerDeadline) {
    if (deadline_ == 0) return;
    const std::uint64_t now = tsc_.now();
    if (now < deadline_) {
      // The two clocks drift: early by the TSC's count is too early.
      const auto ahead = static_cast<__uint128_t>(deadline_ - now) * 1'000'000'000 / tsc_.frequency_hz;
      timer_.arm(monotonic_ns() +
                 static_cast<std::int64_t>(ahead < kFurthestNs ? static_cast<std::uint64_t>(ahead) + 1 : kFurthestNs));
      return;
    }
    deadline_ = 0;
    deliver_local(kTimer);
    return;
  }
  const std::int64_t now = monotonic_ns();
  if (now < next_fire_) return;
  deliver_local(kTimer);
  rearm_count(now);
}

}  // namespace vm_platform
