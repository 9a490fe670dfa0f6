#include "machine/clock/timer_service.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>

namespace vm_platform {
namespace {

template <typename Condition>
bool wait_until(Condition condition, int ms = 3000) {
  for (int i = 0; i < ms * 5 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::microseconds(200));
  return condition();
}

struct TimerTest : testing::Test {
  std::unique_ptr<TimerService> service = *TimerService::create();
};

TEST_F(TimerTest, FiresOnceAndNeverEarly) {
  std::atomic<std::int64_t> fired = 0;
  std::atomic<int> count = 0;
  Timer timer(*service, [&] { fired = monotonic_ns(), ++count; });
  const std::int64_t deadline = monotonic_ns() + 5'000'000;
  timer.arm(deadline);
  ASSERT_TRUE(wait_until([&] { return count == 1; }));
  EXPECT_GE(fired, deadline);
  EXPECT_FALSE(wait_until([&] { return count > 1; }, 20));
}

TEST_F(TimerTest, LaterEarlierPassedAndCancelled) {
  std::atomic<std::int64_t> fired = 0;
  Timer timer(*service, [&] { fired = monotonic_ns(); });
  const std::int64_t start = monotonic_ns();
  timer.arm(start + 5'000'000);
  timer.arm(start + 30'000'000);
  ASSERT_TRUE(wait_until([&] { return fired != 0; }));
  EXPECT_GE(fired, start + 30'000'000) << "moved later";
  fired = 0;
  timer.arm(monotonic_ns() + 60'000'000'000);
  timer.arm(monotonic_ns() + 5'000'000);
  ASSERT_TRUE(wait_until([&] { return fired != 0; })) << "moved earlier";
  fired = 0;
  timer.arm(-5);
  ASSERT_TRUE(wait_until([&] { return fired != 0; })) << "long ago is now";
  fired = 0;
  timer.arm(monotonic_ns() + 10'000'000);
  timer.cancel();
  EXPECT_FALSE(wait_until([&] { return fired != 0; }, 40));
  timer.arm(monotonic_ns() + 1'000'000);
  EXPECT_TRUE(wait_until([&] { return fired != 0; })) << "after a cancel";
}

TEST_F(TimerTest, ACallbackMayArmItsOwnAndOthers) {
  std::atomic<int> ticks = 0, others = 0;
  Timer other(*service, [&] { ++others; });
  Timer* self = nullptr;
  Timer timer(*service, [&] {
    if (++ticks < 10) self->arm(monotonic_ns() + 500'000);
    other.arm(monotonic_ns());
  });
  self = &timer;
  timer.arm(monotonic_ns());
  EXPECT_TRUE(wait_until([&] { return ticks == 10 && others > 0; }));
}

TEST_F(TimerTest, DestroyingWaitsForTheCallback) {
  std::atomic<bool> entered = false, left = false;
  {
    Timer timer(*service, [&] {
      entered = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      left = true;
    });
    timer.arm(monotonic_ns());
    ASSERT_TRUE(wait_until([&] { return entered.load(); }));
  }
  EXPECT_TRUE(left);
}

TEST_F(TimerTest, ThreadsRearmWithoutLosingADeadline) {
  constexpr int kRounds = 300;
  std::array<std::thread, 3> threads;
  for (auto& thread : threads) {
    thread = std::thread([this] {
      std::atomic<int> fired = 0;
      Timer timer(*service, [&] { ++fired; });
      for (int i = 0; i < kRounds; ++i) {
        const int before = fired;
        timer.arm(monotonic_ns() + 1'000'000'000);
        timer.arm(monotonic_ns() + 50'000);
        ASSERT_TRUE(wait_until([&] { return fired > before; })) << i;
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(TimerTest, MovingLaterWakesNobody) {
  std::atomic<int> fired = 0;
  Timer timer(*service, [&] { ++fired; });
  const auto switches = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_nvcsw;
  };
  timer.arm(monotonic_ns() + 3'600'000'000'000);
  const long before = switches();
  for (std::int64_t i = 0; i < 100'000; ++i) timer.arm(monotonic_ns() + 3'600'000'000'000 + i);
  EXPECT_LT(switches() - before, 100) << "a wake-up each would be 100,000";
  EXPECT_EQ(fired, 0);
}

}  // namespace
}  // namespace vm_platform
