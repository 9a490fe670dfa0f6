#include "guest/memory_guard.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

namespace vm_platform {
namespace {

/// A page that the host cannot give: of a file that ends before it.
void take_away(const GuestMemory& memory, std::uint64_t address) {
  const int empty = ::memfd_create("empty", 0);
  ASSERT_GE(empty, 0);
  ASSERT_NE(::mmap(memory.host(Gpa(address), 4096), 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty, 0),
            MAP_FAILED);
  ::close(empty);
}

TEST(GuestMemoryGuardTest, LostPagesAreReplacedAndToldOf) {
  const auto memory = GuestMemory::create(2 * kMiB).value();
  int told = 0;
  const auto guard = GuestMemoryGuard::create(memory, [](void* count) noexcept { ++*static_cast<int*>(count); }, &told);
  ASSERT_TRUE(guard.has_value()) << guard.error().message();
  EXPECT_FALSE((*guard)->lost().has_value());
  take_away(memory, 0x5000), take_away(memory, 0x9000);
  const auto at = [&](std::uint64_t address) -> volatile std::uint8_t& {
    return *reinterpret_cast<volatile std::uint8_t*>(memory.host(Gpa(address), 1));
  };
  at(0x5123) = 7;
  EXPECT_EQ(at(0x5123) + 0, 7) << "goes on in a page of its own";
  EXPECT_EQ(told, 1);
  EXPECT_EQ((*guard)->lost(), Gpa(0x5000));
  EXPECT_EQ(at(0x9000) + 0, 0);
  EXPECT_EQ(told, 2);
  EXPECT_EQ((*guard)->lost(), Gpa(0x5000)) << "the first";
  EXPECT_NE((*guard)->error().message().find("0x5000"), std::string::npos);
}

TEST(GuestMemoryGuardDeathTest, OtherMemoryIsNotItsBusiness) {
  const auto memory = GuestMemory::create(2 * kMiB).value();
  const auto guard = GuestMemoryGuard::create(memory, [](void*) noexcept {}, nullptr).value();
  const auto other = GuestMemory::create(2 * kMiB).value();
  take_away(other, 0);
  EXPECT_DEATH({ *static_cast<volatile std::byte*>(other.host(Gpa(0), 1)) = std::byte{1}; }, "");
}

}  // namespace
}  // namespace vm_platform
