#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>
#include <vm_platform/memory.hpp>

#include "os/test_code.hpp"

namespace vm_platform {
namespace {

#define ASSERT_OK(result) ASSERT_TRUE((result).has_value()) << (result).error().message()

class JitMemoryTest : public testing::TestWithParam<JitMode> {
 protected:
  void SetUp() override {
    const JitSupport support = jit_support();
    if (GetParam() == JitMode::DualMapping ? !support.dual_mapping : !support.protection_switch)
      GTEST_SKIP() << support.reason;
  }
  static Result<JitMemory> create(std::uint64_t size) {
    return JitMemory::create(JitOptions{.size = size, .mode = GetParam()});
  }
};

TEST(JitSupportTest, ThisHostHasBothWays) {
  EXPECT_TRUE(jit_support().dual_mapping) << jit_support().reason;
  EXPECT_TRUE(jit_support().protection_switch) << jit_support().reason;
  EXPECT_EQ(JitMemory::create(1)->mode(), JitMode::DualMapping);
}

TEST_P(JitMemoryTest, CodeThatWasStoredRuns) {
  auto memory = create(kPageSize);
  ASSERT_OK(memory);
  EXPECT_EQ(memory->mode(), GetParam());
  ASSERT_OK(memory->store(0, test_code::return_value(42)));
  EXPECT_EQ(test_code::call(memory->executable()), 42);
  ASSERT_OK(memory->store(0, test_code::return_value(43)));
  EXPECT_EQ(test_code::call(memory->executable()), 43) << "the same address, new code";
}

TEST_P(JitMemoryTest, IsNeverWritableAndExecutableThroughOneAddress) {
  auto memory = create(kPageSize);
  ASSERT_OK(memory);
  ASSERT_OK(memory->store(0, test_code::return_value(1)));
  auto* executable = const_cast<std::byte*>(memory->executable());
  EXPECT_DEATH({ *static_cast<volatile std::byte*>(executable) = std::byte{0}; }, "");
  if (GetParam() == JitMode::DualMapping) {
    EXPECT_NE(memory->writable(), memory->executable());
    EXPECT_DEATH({ test_code::call(memory->writable()); }, "");
  }
}

TEST_P(JitMemoryTest, RangesAreChecked) {
  auto memory = create(kPageSize);
  ASSERT_OK(memory);
  EXPECT_FALSE(memory->write(memory->size(), 1).has_value());
  EXPECT_FALSE(memory->write(0, memory->size() + 1).has_value());
  EXPECT_FALSE(memory->write(UINT64_MAX, 2).has_value());
  EXPECT_FALSE(memory->write(0, 0).has_value());
  EXPECT_FALSE(memory->allocate(0).has_value());
  EXPECT_FALSE(memory->allocate(16, 3).has_value());
  EXPECT_FALSE(memory->free({.offset = 8, .size = 16}).has_value());
}

TEST_P(JitMemoryTest, BlocksAreReusedAndJoin) {
  auto memory = create(64 * kKiB);
  ASSERT_OK(memory);
  std::vector<JitBlock> blocks;
  while (auto block = memory->allocate(100 + blocks.size() % 900)) blocks.push_back(*block);
  EXPECT_GT(blocks.size(), 50u);
  EXPECT_LT(memory->largest_free(), 1000u);
  for (const auto& block : blocks) ASSERT_OK(memory->free(block));
  EXPECT_EQ(memory->allocated_bytes(), 0u);
  EXPECT_EQ(memory->largest_free(), memory->size());
  EXPECT_FALSE(memory->free(blocks.front()).has_value()) << "given back twice";
}

TEST_P(JitMemoryTest, ThreadsWriteAndRunNextToEachOther) {
  auto memory = create(64 * kKiB);
  ASSERT_OK(memory);
  std::atomic<int> wrong = 0;
  const auto work = [&](unsigned seed) {
    std::minstd_rand random(seed);
    for (int round = 0; round < 300; ++round) {
      const auto block = memory->allocate(16 + random() % 200);
      if (!block) continue;  // the other threads have it all
      const auto value = static_cast<std::uint16_t>(random() & 0x7fff);
      if (!memory->store(block->offset, test_code::return_value(value)) ||
          test_code::call(memory->executable() + block->offset) != value || !memory->free(*block))
        ++wrong;
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 1; i <= 4; ++i) threads.emplace_back(work, i);
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(memory->allocated_bytes(), 0u);
}

TEST_P(JitMemoryTest, AWriterHoldsItsPagesOpenUntilTheLastOneGoes) {
  auto memory = create(4 * kPageSize);
  ASSERT_OK(memory);
  auto first = memory->write(0, 2 * host_page_size());
  ASSERT_OK(first);
  {
    auto second = memory->write(host_page_size(), 16);
    ASSERT_OK(second);
    second->bytes()[0] = std::byte{1};
  }
  first->bytes()[host_page_size()] = std::byte{2};  // still open: the second was not the last
  EXPECT_EQ(memory->writable()[host_page_size()], std::byte{2});
}

INSTANTIATE_TEST_SUITE_P(Modes, JitMemoryTest, testing::Values(JitMode::DualMapping, JitMode::ProtectionSwitch),
                         [](const auto& mode) {
                           return mode.param == JitMode::DualMapping ? "DualMapping" : "ProtectionSwitch";
                         });

int somewhere() { return 0; }

TEST(JitMemoryNearTest, NearAnAddressWhereThereIsRoom) {
  const auto* here = reinterpret_cast<const void*>(&somewhere);
  auto memory = JitMemory::create(JitOptions{.size = kMiB, .near_address = here});
  ASSERT_OK(memory);
  EXPECT_TRUE(memory->reaches(here));
  EXPECT_FALSE(memory->reaches(memory->executable() + (1LL << 32)));
}

TEST(SynchronizeCoresTest, Works) {
  const auto done = synchronize_cores();
  EXPECT_TRUE(done.has_value() || done.error().code() == ErrorCode::Unsupported) << done.error().message();
}

#ifdef _WIN32

void throw_through() { throw 17; }

VMP_CALLS_GENERATED_CODE void enter(const std::byte* entry) {
  test_code::as_function<void(void (*)())>(entry)(throw_through);
}

TEST(JitUnwindTest, AnExceptionPassesThroughGeneratedCode) {
  auto memory = JitMemory::create(kPageSize);
  ASSERT_OK(memory);
  const auto block = memory->allocate(64);
  ASSERT_OK(block);
  // push rbp; mov rbp, rsp; sub rsp, 32; call rcx; leave; ret
  ASSERT_OK(memory->store(
      block->offset, test_code::bytes_of({0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0xff, 0xd1, 0xc9, 0xc3})));
  ASSERT_OK(memory->register_unwind(*block, JitFrame::FramePointer));
  int caught = 0;
  try {
    enter(memory->executable() + block->offset);
  } catch (int value) {
    caught = value;
  }
  EXPECT_EQ(caught, 17);
  EXPECT_TRUE(memory->free(*block).has_value());
  EXPECT_EQ(memory->allocated_bytes(), 0u) << "the description went with the block";
}

#else

TEST(JitUnwindTest, OnlyWindowsKeepsATable) {
  auto memory = JitMemory::create(kPageSize);
  ASSERT_OK(memory);
  const auto block = memory->allocate(64);
  ASSERT_OK(block);
  EXPECT_EQ(memory->register_unwind(*block, JitFrame::FramePointer).error().code(), ErrorCode::Unsupported);
}

#endif

}  // namespace
}  // namespace vm_platform
