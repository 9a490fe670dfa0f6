#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vm_platform/dirty_tracking.hpp>

#ifdef __linux__
#include <fcntl.h>
#include <unistd.h>
#endif

namespace vm_platform {
namespace {

#define ASSERT_OK(result) ASSERT_TRUE((result).has_value()) << (result).error().message()

struct Case {
  DirtyMethod method;
  bool shared;
};

void write_page(MappedMemory& memory, std::uint64_t page, unsigned value = 1) {
  std::atomic_ref<std::byte>(memory.data()[page * memory.page_size() + 100])
      .store(static_cast<std::byte>(value), std::memory_order_relaxed);
}

std::set<std::uint64_t> pages_of(const DirtyPages& pages) {
  std::set<std::uint64_t> found;
  for (std::uint64_t page = 0; page < pages.words.size() * 64; ++page)
    if (pages.test(page)) found.insert(page);
  return found;
}

class DirtyTrackerTest : public testing::TestWithParam<Case> {
 protected:
  static constexpr std::uint64_t kPages = 1000;  // no multiple of 64

  void SetUp() override {
    auto made = MappedMemory::create({.size = kPages * host_page_size(),
                                      .name = "tracked",
                                      .shared = GetParam().shared,
                                      .write_watch = GetParam().method == DirtyMethod::WriteWatch});
    ASSERT_OK(made);
    memory_ = std::move(*made);
    // Soft-dirty bits of a huge page count for all of it.
    if (GetParam().method == DirtyMethod::SoftDirty) {
      ASSERT_OK(memory_.advise(0, 0, MemoryAdvice::NoHugePages));
    }
  }
  Result<DirtyTracker> start() { return DirtyTracker::start(memory_, {.method = GetParam().method}); }

  MappedMemory memory_;
};

/// Whether the method must work here: whoever started the test on a machine they know says so (tools/test-aarch64,
/// tools/test-windows, tests/lab), "userfaultfd,soft-dirty". Elsewhere what does not work is skipped.
bool must_work(DirtyMethod method) {
  if (method == DirtyMethod::ProtectFault) return true;
  const char* methods = std::getenv("VMP_TEST_DIRTY");
  return methods != nullptr && ("," + std::string(methods) + ",").contains("," + std::string(to_string(method)) + ",");
}

#define SKIP_WHERE_UNSUPPORTED(tracker)                                        \
  if (!(tracker)) {                                                            \
    ASSERT_EQ((tracker).error().code(), ErrorCode::Unsupported);               \
    ASSERT_FALSE(must_work(GetParam().method)) << (tracker).error().message(); \
    GTEST_SKIP() << (tracker).error().message();                               \
  }

TEST_P(DirtyTrackerTest, ReportsWhatWasWrittenSinceLastTimeAndNothingElse) {
  write_page(memory_, 5);  // before the start
  auto tracker = start();
  SKIP_WHERE_UNSUPPORTED(tracker);
  EXPECT_EQ(tracker->method(), GetParam().method);
  DirtyPages pages;
  ASSERT_OK(tracker->collect(pages));
  EXPECT_EQ(pages.count, 0u);
  std::minstd_rand random(3);
  for (int round = 0; round < 5; ++round) {
    std::set<std::uint64_t> written;
    for (int i = 0; i < 100; ++i) written.insert(random() % kPages);
    for (const std::uint64_t first : {0U, 63U, 64U, 700U, 999U})  // runs over word boundaries, both ends
      for (std::uint64_t page = first; page < std::min<std::uint64_t>(first + 3, kPages); ++page) written.insert(page);
    for (const std::uint64_t page : written) write_page(memory_, page, static_cast<unsigned>(round) + 2);
    std::byte seen{};
    ASSERT_OK(memory_.read_at(321 * host_page_size(), {&seen, 1}));  // reading changes nothing
    ASSERT_OK(tracker->collect(pages));
    EXPECT_EQ(pages_of(pages), written) << "round " << round;
    EXPECT_EQ(pages.count, written.size());
  }
  ASSERT_OK(tracker->collect(pages));
  EXPECT_EQ(pages.count, 0u);
  for (std::uint64_t page = 0; page < kPages; ++page) write_page(memory_, page);
  ASSERT_OK(tracker->collect(pages));
  EXPECT_EQ(pages.count, kPages);
}

TEST_P(DirtyTrackerTest, WritersAtWorkLoseNothing) {
  if (GetParam().method == DirtyMethod::SoftDirty) GTEST_SKIP() << "writers must stand still: documented";
  auto tracker = start();
  SKIP_WHERE_UNSUPPORTED(tracker);
  // As a migration does it: copy what is reported while writers go on, stop them, copy once more. A write that was lost
  // shows as a difference.
  std::vector<std::byte> replica(memory_.bytes().begin(), memory_.bytes().end());
  DirtyPages pages;
  const auto copy_reported = [&] {
    ASSERT_OK(tracker->collect(pages));
    for (std::uint64_t page = 0; page < kPages; ++page) {
      if (!pages.test(page)) continue;
      const std::uint64_t at = page * memory_.page_size() + 100;
      replica[at] = std::atomic_ref<std::byte>(memory_.data()[at]).load(std::memory_order_relaxed);
    }
  };
  for (unsigned round = 1; round <= 4; ++round) {
    std::atomic<bool> stop = false;
    std::vector<std::jthread> writers;
    for (unsigned seed = 1; seed <= 2; ++seed) {
      writers.emplace_back([&, seed, round] {
        std::minstd_rand random(seed * 100 + round);
        while (!stop) write_page(memory_, random() % kPages, static_cast<unsigned>(random() & 0xff));
      });
    }
    for (int i = 0; i < 8; ++i) copy_reported();
    stop = true;
    writers.clear();
    copy_reported();
    for (std::uint64_t page = 0; page < kPages; ++page) {
      const std::uint64_t at = page * memory_.page_size() + 100;
      ASSERT_EQ(replica[at], memory_.data()[at]) << "page " << page << " round " << round;
    }
  }
}

#ifdef __linux__
TEST_P(DirtyTrackerTest, SystemCallsThatWriteCountToo) {
  if (GetParam().method == DirtyMethod::ProtectFault) GTEST_SKIP() << "the kernel gets EFAULT there: documented";
  auto tracker = start();
  SKIP_WHERE_UNSUPPORTED(tracker);
  const int zero = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(::read(zero, memory_.data() + 17 * host_page_size(), 10), 10);
  ::close(zero);
  DirtyPages pages;
  ASSERT_OK(tracker->collect(pages));
  EXPECT_EQ(pages_of(pages), std::set<std::uint64_t>{17});
}
#endif

TEST_P(DirtyTrackerTest, AfterTheTrackerIsGoneTheMemoryIsOrdinary) {
  {
    auto tracker = start();
    SKIP_WHERE_UNSUPPORTED(tracker);
  }
  for (std::uint64_t page = 0; page < kPages; ++page) write_page(memory_, page, 9);
  EXPECT_EQ(memory_.data()[100], std::byte{9});
}

constexpr Case kCases[] = {
#ifdef _WIN32
    {DirtyMethod::WriteWatch, false},
#else
    {DirtyMethod::PagemapScan, false},  {DirtyMethod::PagemapScan, true},  {DirtyMethod::Userfaultfd, false},
    {DirtyMethod::Userfaultfd, true},   {DirtyMethod::SoftDirty, false},
#endif
    {DirtyMethod::ProtectFault, false},
    {DirtyMethod::ProtectFault, true},
};
INSTANTIATE_TEST_SUITE_P(Methods, DirtyTrackerTest, testing::ValuesIn(kCases), [](const auto& which) {
  std::string name(to_string(which.param.method));
  std::erase(name, '-');
  return name + (which.param.shared ? "Shared" : "Private");
});

TEST(ProtectFaultTest, MakesNothingAccessibleThatWasNot) {
  const std::uint64_t page = host_page_size();
  const auto start = [](MappedMemory& memory) {
    return DirtyTracker::start(memory, {.method = DirtyMethod::ProtectFault});
  };
  for (const auto protection : {MemoryProtection::None, MemoryProtection::Read}) {
    auto memory = MappedMemory::create_private(8 * page);
    ASSERT_OK(memory);
    ASSERT_OK(memory->protect(7 * page, page, protection));
    const auto refused = start(*memory);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code(), ErrorCode::Unsupported);
    std::byte byte{};
    EXPECT_EQ(memory->read_at(7 * page, {&byte, 1}).has_value(), protection == MemoryProtection::Read);
    ASSERT_OK(memory->protect(0, 0, MemoryProtection::ReadWrite));
    EXPECT_TRUE(start(*memory).has_value());
  }
  auto reserved = MappedMemory::create({.size = 64 * page, .reserve_only = true});
  ASSERT_OK(reserved);
  EXPECT_FALSE(start(*reserved).has_value());
  ASSERT_OK(reserved->commit(0, 32 * page));
  EXPECT_FALSE(start(*reserved).has_value()) << "half of it is not there";
  ASSERT_OK(reserved->commit(32 * page, 32 * page));
  EXPECT_TRUE(start(*reserved).has_value());
  auto shared = MappedMemory::create_shared(16 * page, "shared");
  ASSERT_OK(shared);
  auto view = shared->view(MemoryProtection::Read);
  ASSERT_OK(view);
  EXPECT_FALSE(start(*view).has_value());
}

TEST(DirtyTrackerChoiceTest, TheBestThatWorksAndWhy) {
  auto memory = MappedMemory::create_shared(64 * host_page_size(), "chosen");
  ASSERT_OK(memory);
  auto tracker = DirtyTracker::start(*memory);
  ASSERT_OK(tracker);
  EXPECT_NE(tracker->method(), DirtyMethod::SoftDirty);
  EXPECT_EQ(tracker->reason().empty(), tracker->method() == DirtyMethod::PagemapScan);
  MappedMemory nothing;
  EXPECT_FALSE(DirtyTracker::start(nothing).has_value());
}

}  // namespace
}  // namespace vm_platform
