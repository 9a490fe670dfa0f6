// Litmus tests: what each barrier forbids never shows, over many runs of two threads against each other.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vm_platform/memory.hpp>

namespace vm_platform {
namespace {

constexpr int kRounds = 30'000;
/// On a busy machine the two wait for a turn of the CPU in every round; then fewer rounds have to do.
constexpr auto kLongest = std::chrono::seconds(3);

/// Two threads go through up to `kRounds` rounds in step; each round begins as close together as a spin can make it.
template <typename First, typename Second, typename Check>
void race(First first, Second second, Check check) {
  std::atomic<int> round_a = 0, round_b = 0;
  const auto meet = [](std::atomic<int>& own, std::atomic<int>& other, int round) {
    own.store(round, std::memory_order_release);
    for (int spins = 0; other.load(std::memory_order_acquire) < round; ++spins)
      if (spins > 2000) std::this_thread::yield();
  };
  std::atomic<bool> enough = false;
  const auto end = std::chrono::steady_clock::now() + kLongest;
  std::jthread other([&] {
    for (int round = 1; !enough; ++round) {
      meet(round_b, round_a, 2 * round);
      second(round);
      meet(round_b, round_a, 2 * round + 1);
    }
  });
  for (int round = 1; !enough; ++round) {
    meet(round_a, round_b, 2 * round);
    first(round);
    // Checked before the other may start the next round.
    while (round_b.load(std::memory_order_acquire) < 2 * round + 1) std::this_thread::yield();
    check(round);
    enough = round >= kRounds || (round > 100 && std::chrono::steady_clock::now() > end);
    round_a.store(2 * round + 1, std::memory_order_release);
  }
}

struct alignas(128) Cell {
  std::atomic<int> value = 0;
};

TEST(BarrierTest, StoreBuffering) {
  // Each stores, then loads what the other stores: with full barriers one of them must see the other's store.
  Cell x, y;
  int seen_y = 0, seen_x = 0, forbidden = 0;
  race(
      [&](int round) {
        x.value.store(round, std::memory_order_relaxed);
        barrier_full();
        seen_y = y.value.load(std::memory_order_relaxed);
      },
      [&](int round) {
        y.value.store(round, std::memory_order_relaxed);
        barrier_full();
        seen_x = x.value.load(std::memory_order_relaxed);
      },
      [&](int round) { forbidden += seen_x != round && seen_y != round ? 1 : 0; });
  EXPECT_EQ(forbidden, 0);
}

TEST(BarrierTest, MessagePassing) {
  // Who sees the flag sees the data.
  Cell data, flag;
  int seen_flag = 0, seen_data = 0, forbidden = 0;
  race(
      [&](int round) {
        data.value.store(round, std::memory_order_relaxed);
        barrier_release();
        flag.value.store(round, std::memory_order_relaxed);
      },
      [&](int) {
        seen_flag = flag.value.load(std::memory_order_relaxed);
        barrier_acquire();
        seen_data = data.value.load(std::memory_order_relaxed);
      },
      [&](int round) { forbidden += seen_flag == round && seen_data != round ? 1 : 0; });
  EXPECT_EQ(forbidden, 0);
}

}  // namespace
}  // namespace vm_platform
