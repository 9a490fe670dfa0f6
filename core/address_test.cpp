#include <gtest/gtest.h>

#include <type_traits>
#include <vm_platform/core.hpp>

namespace vm_platform {
namespace {

static_assert(!std::is_convertible_v<Gpa, Iova>, "address spaces do not mix");
static_assert(!std::is_convertible_v<std::uint64_t, Gpa>, "a number is not an address until somebody says so");

TEST(AddressTest, Arithmetic) {
  EXPECT_EQ(Gpa(0x1000) + 0x10, Gpa(0x1010));
  EXPECT_EQ(Gpa(0x1010) - Gpa(0x1000), 0x10u);
  EXPECT_LT(Gpa(1), Gpa(2));
}

TEST(RoundTest, PowersOfTwo) {
  EXPECT_EQ(round_up(1, kPageSize), kPageSize);
  EXPECT_EQ(round_up(kPageSize, kPageSize), kPageSize);
  EXPECT_EQ(round_down(kPageSize + 1, kPageSize), kPageSize);
  EXPECT_EQ(round_up(UINT64_MAX, kPageSize), 0u);
}

}  // namespace
}  // namespace vm_platform
