#include "guest/clock.hpp"

#include <ctime>

namespace vm_platform {
namespace {

struct Sample {
  std::uint64_t tsc, ns;
};

/// A pair of readings as close together as ten tries bring them.
Sample sample() {
  Sample best{0, 0};
  std::uint64_t narrowest = UINT64_MAX;
  for (int i = 0; i < 10; ++i) {
    timespec time{};
    const std::uint64_t before = __builtin_ia32_rdtsc();
    ::clock_gettime(CLOCK_MONOTONIC, &time);
    const std::uint64_t after = __builtin_ia32_rdtsc();
    if (after - before < narrowest) {
      narrowest = after - before;
      best = {before + (after - before) / 2,
              static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec)};
    }
  }
  return best;
}

std::uint64_t measure() {
  // 10 ms bound the error of the two readings (about 50 ns each) to 10 ppm; NTP slew is larger than that.
  const Sample start = sample();
  Sample end = start;
  while (end.ns - start.ns < 10'000'000) {
    const timespec wait{0, 1'000'000};
    ::nanosleep(&wait, nullptr);
    end = sample();
  }
  const auto ticks = static_cast<__uint128_t>(end.tsc - start.tsc) * 1'000'000'000;
  return static_cast<std::uint64_t>(ticks / (end.ns - start.ns));
}

}  // namespace

std::uint64_t host_tsc_frequency() {
  static const std::uint64_t frequency = measure();
  return frequency;
}

}  // namespace vm_platform
