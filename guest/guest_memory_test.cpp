#include "guest/guest_memory.hpp"

#include <gtest/gtest.h>

#include <array>

namespace vm_platform {
namespace {

TEST(GuestMemoryTest, SmallMemoryIsOneRegionFromZero) {
  const auto memory = GuestMemory::create(16 * kMiB);
  ASSERT_TRUE(memory.has_value());
  EXPECT_NE(memory->host(Gpa(0), 16 * kMiB), nullptr);
  EXPECT_EQ(memory->host(Gpa(0), 16 * kMiB + 1), nullptr);
  EXPECT_EQ(memory->host(Gpa(16 * kMiB), 1), nullptr);
  EXPECT_EQ(memory->host(Gpa(1), UINT64_MAX), nullptr) << "a size that overflows is not RAM";
}

TEST(GuestMemoryTest, LargeMemoryLeavesTheDeviceHole) {
  const auto memory = GuestMemory::create(4 * kGiB);
  ASSERT_TRUE(memory.has_value());
  ASSERT_EQ(memory->regions().size(), 2u);
  EXPECT_EQ(memory->host(Gpa(GuestMemory::kLowRamEnd), 1), nullptr);
  EXPECT_EQ(memory->host(Gpa(GuestMemory::kLowRamEnd - 1), 2), nullptr);
  EXPECT_NE(memory->host(Gpa(GuestMemory::kHighRamStart), kGiB), nullptr);
}

TEST(GuestMemoryTest, WritesAreSeenAndObserved) {
  struct Observer : GuestWriteObserver {
    void guest_memory_written(Gpa address, std::uint64_t size) override { seen_at = address, seen_size = size; }
    Gpa seen_at;
    std::uint64_t seen_size = 0;
  } observer;
  auto memory = GuestMemory::create(kMiB);
  ASSERT_TRUE(memory.has_value());
  memory->set_write_observer(&observer);
  const std::array<std::byte, 3> data{std::byte{1}, std::byte{2}, std::byte{3}};
  EXPECT_TRUE(memory->write(Gpa(0x500), data));
  EXPECT_EQ(observer.seen_at, Gpa(0x500));
  EXPECT_EQ(observer.seen_size, 3u);
  std::array<std::byte, 3> back{};
  EXPECT_TRUE(memory->read(Gpa(0x500), back));
  EXPECT_EQ(back, data);
  EXPECT_FALSE(memory->write(Gpa(kMiB - 1), data));
}

TEST(GuestMemoryTest, AbsurdSizesAreRefused) {
  EXPECT_FALSE(GuestMemory::create(0).has_value());
  EXPECT_FALSE(GuestMemory::create(UINT64_MAX).has_value());
}

}  // namespace
}  // namespace vm_platform
