#include "os/range_allocator.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace vm_platform {
namespace {

TEST(RangeAllocatorTest, NeverGivesTheSameTwiceAndJoinsAll) {
  constexpr std::uint64_t kSize = 1 << 16;
  RangeAllocator ranges(kSize);
  std::vector<int> owner(kSize, 0);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> held;
  std::minstd_rand random(7);
  for (int round = 1; round < 20000; ++round) {
    if (held.empty() || random() % 2 == 0) {
      const std::uint64_t size = 1 + random() % 700, alignment = 1ULL << (random() % 9);
      const auto offset = ranges.allocate(size, alignment);
      if (!offset) continue;
      ASSERT_EQ(*offset % alignment, 0u);
      ASSERT_LE(*offset + size, kSize);
      for (std::uint64_t i = *offset; i < *offset + size; ++i) {
        ASSERT_EQ(owner[i], 0);
        owner[i] = round;
      }
      held.emplace_back(*offset, size);
    } else {
      std::swap(held[random() % held.size()], held.back());
      const auto [offset, size] = held.back();
      held.pop_back();
      ASSERT_EQ(ranges.free(offset), size);
      ASSERT_FALSE(ranges.free(offset).has_value());
      for (std::uint64_t i = offset; i < offset + size; ++i) owner[i] = 0;
    }
  }
  for (const auto& [offset, size] : held) ASSERT_TRUE(ranges.free(offset).has_value());
  EXPECT_EQ(ranges.allocated(), 0u);
  EXPECT_EQ(ranges.largest_free(), kSize);
}

TEST(RangeAllocatorTest, TakesTheSmallestPieceThatFits) {
  RangeAllocator ranges(1000);
  ASSERT_EQ(ranges.allocate(100, 1), 0u);
  ASSERT_EQ(ranges.allocate(50, 1), 100u);
  ASSERT_EQ(ranges.allocate(100, 1), 150u);
  ASSERT_TRUE(ranges.free(100));
  EXPECT_EQ(ranges.allocate(40, 1), 100u);
  EXPECT_FALSE(ranges.allocate(751, 1).has_value());
}

}  // namespace
}  // namespace vm_platform
