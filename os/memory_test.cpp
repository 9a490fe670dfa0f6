#include <gtest/gtest.h>

#include <cstring>
#include <utility>
#include <vm_platform/memory.hpp>

namespace vm_platform {
namespace {

TEST(MappedMemoryTest, SharedMemoryStartsZeroedAndHoldsWhatIsWritten) {
  auto memory = MappedMemory::create_shared(kMiB + 1, "test");
  ASSERT_TRUE(memory.has_value()) << memory.error().message();
  EXPECT_EQ(memory->size(), kMiB + kPageSize);
  EXPECT_EQ(memory->data()[kMiB], std::byte{0});
  memory->data()[kMiB] = std::byte{42};
  const MappedMemory moved = std::move(*memory);
  EXPECT_EQ(moved.data()[kMiB], std::byte{42});
  EXPECT_GE(moved.descriptor(), 0);
}

TEST(MappedMemoryTest, RefusesNothingAndTooMuch) {
  EXPECT_FALSE(MappedMemory::create_private(0).has_value());
  EXPECT_FALSE(MappedMemory::create_private(UINT64_MAX).has_value());
}

TEST(JitMemoryTest, CodeWrittenThroughOneViewRunsThroughTheOther) {
  auto memory = JitMemory::create(kPageSize);
  ASSERT_TRUE(memory.has_value()) << memory.error().message();
  constexpr unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};  // mov eax, 42; ret
  std::memcpy(memory->writable(), code, sizeof code);
  using Function = int (*)();
  Function function = nullptr;
  const std::byte* entry = memory->executable();
  std::memcpy(&function, &entry, sizeof function);
  EXPECT_EQ(function(), 42);
}

}  // namespace
}  // namespace vm_platform
