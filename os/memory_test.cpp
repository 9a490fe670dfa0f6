#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vm_platform/memory.hpp>

#include "os/test_code.hpp"

#ifdef __linux__
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace vm_platform {
namespace {

#define ASSERT_OK(result) ASSERT_TRUE((result).has_value()) << (result).error().message()
#define EXPECT_OK(result)                                                           \
  do {                                                                              \
    const auto& checked = (result);                                                 \
    EXPECT_TRUE(checked.has_value()) << (checked ? "" : checked.error().message()); \
  } while (false)

const std::uint64_t kPage = host_page_size();

class TemporaryFile {
 public:
  explicit TemporaryFile(std::uint64_t size)
      : path_((std::filesystem::temp_directory_path() /
               ("vmp-memory-test-" + std::to_string(reinterpret_cast<std::uintptr_t>(this))))
                  .string()) {
    std::ofstream file(path_, std::ios::binary);
    for (std::uint64_t i = 0; i < size; ++i) file.put(static_cast<char>(i % 251));
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

bool all_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

TEST(MemoryProtectionTest, NamesAndCombinations) {
  EXPECT_EQ(MemoryProtection::Read | MemoryProtection::Write, MemoryProtection::ReadWrite);
  EXPECT_TRUE(allows(MemoryProtection::ReadExecute, MemoryProtection::Execute));
  EXPECT_FALSE(allows(MemoryProtection::Read, MemoryProtection::ReadWrite));
  EXPECT_EQ(to_string(MemoryProtection::ReadExecute), "r-x");
  EXPECT_EQ(to_string(MemoryProtection::None), "---");
}

TEST(MemoryErrorTest, IsAnErrorCodeThatErrorsCarry) {
  const std::error_code code = MemoryError::MapLimit;
  EXPECT_EQ(code, make_error_code(MemoryError::MapLimit));
  EXPECT_NE(code, make_error_code(MemoryError::Overcommit));
  EXPECT_STREQ(code.category().name(), "memory");
  for (int value = 1; value <= static_cast<int>(MemoryError::NotAccessible); ++value)
    EXPECT_NE(make_error_code(static_cast<MemoryError>(value)).message(), "memory error") << value;
}

TEST(MappedMemoryTest, SharedMemoryStartsZeroedAndHoldsWhatIsWritten) {
  auto memory = MappedMemory::create_shared(kMiB + 1, "test");
  ASSERT_OK(memory);
  EXPECT_EQ(memory->size(), kMiB + kPage);
  EXPECT_TRUE(memory->shared());
  EXPECT_EQ(memory->data()[kMiB], std::byte{0});
  memory->data()[kMiB] = std::byte{42};
  const MappedMemory moved = std::move(*memory);
  EXPECT_EQ(moved.data()[kMiB], std::byte{42});
#ifdef __linux__
  EXPECT_GE(moved.descriptor(), 0);
#endif
}

TEST(MappedMemoryTest, RefusesWhatCannotWork) {
  EXPECT_FALSE(MappedMemory::create_private(0).has_value());
  EXPECT_FALSE(MappedMemory::create_private(UINT64_MAX).has_value());
  EXPECT_FALSE(MappedMemory::create({.size = kPage, .alignment = 3 * kPage}).has_value());
  const auto wx = MappedMemory::create({.size = kPage, .protection = static_cast<MemoryProtection>(7)});
  ASSERT_FALSE(wx.has_value());
  EXPECT_EQ(wx.error().detail(), MemoryError::WritableExecutable);
}

TEST(MappedMemoryTest, AlignmentAndGuards) {
  auto memory =
      MappedMemory::create({.size = 3 * kPage, .alignment = 4 * kMiB, .guard_before = kPage, .guard_after = kPage});
  ASSERT_OK(memory);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory->data()) % (4 * kMiB), 0u);
  std::memset(memory->data(), 0x5a, memory->size());
  // The guards are inaccessible: reading them through the kernel is an error, reading inside is not.
  std::byte byte{};
  EXPECT_OK(memory->read_at(3 * kPage - 1, {&byte, 1}));
  EXPECT_EQ(byte, std::byte{0x5a});
  EXPECT_DEATH({ static_cast<volatile std::byte*>(memory->data())[-1] = std::byte{1}; }, "");
  EXPECT_DEATH({ static_cast<volatile std::byte*>(memory->data())[3 * kPage] = std::byte{1}; }, "");
}

TEST(MappedMemoryTest, FixedAddressNeverReplaces) {
  auto first = MappedMemory::create({.size = 64 * kKiB, .shared = true});
  ASSERT_OK(first);
  first->data()[0] = std::byte{7};
  void* where = first->data();
  auto taken = MappedMemory::create({.size = 64 * kKiB, .fixed_address = where});
  ASSERT_FALSE(taken.has_value());
  EXPECT_EQ(taken.error().detail(), MemoryError::AddressTaken) << taken.error().message();
  EXPECT_EQ(first->data()[0], std::byte{7});
  auto hinted = MappedMemory::create({.size = 64 * kKiB, .hint = where});
  ASSERT_OK(hinted);
  EXPECT_NE(hinted->data(), where);
  *first = MappedMemory();
  auto again = MappedMemory::create({.size = 64 * kKiB, .fixed_address = where});
  ASSERT_OK(again);
  EXPECT_EQ(again->data(), where);
}

TEST(MappedMemoryTest, ReserveThenCommit) {
  for (const bool shared : {false, true}) {
    auto memory = MappedMemory::create({.size = 64 * kMiB, .shared = shared, .reserve_only = true});
    ASSERT_OK(memory);
    std::byte byte{};
    EXPECT_FALSE(memory->read_at(kMiB, {&byte, 1}).has_value());
    ASSERT_OK(memory->commit(kMiB, 4 * kPage));
    std::memset(memory->data() + kMiB, 1, 4 * kPage);
    EXPECT_FALSE(memory->read_at(kMiB + 4 * kPage, {&byte, 1}).has_value()) << "only what was committed";
#ifdef _WIN32
    if (shared) continue;  // pages of a section cannot be decommitted: documented
#endif
    ASSERT_OK(memory->decommit(kMiB, kPage));
    EXPECT_FALSE(memory->read_at(kMiB, {&byte, 1}).has_value());
    ASSERT_OK(memory->commit(kMiB, kPage));
    EXPECT_TRUE(all_zero(memory->bytes().subspan(kMiB, kPage)));
    EXPECT_EQ(memory->data()[kMiB + kPage], std::byte{1});
  }
}

TEST(MappedMemoryTest, ProtectTakesRightsAwayAndGivesThemBack) {
  auto memory = MappedMemory::create_private(4 * kPage);
  ASSERT_OK(memory);
  memory->data()[kPage] = std::byte{3};
  ASSERT_OK(memory->protect(kPage, kPage, MemoryProtection::None));
  std::byte byte{};
  EXPECT_FALSE(memory->read_at(kPage, {&byte, 1}).has_value());
  ASSERT_OK(memory->protect(kPage, kPage, MemoryProtection::Read));
  EXPECT_EQ(memory->data()[kPage], std::byte{3});
  EXPECT_DEATH({ static_cast<volatile std::byte*>(memory->data())[kPage] = std::byte{1}; }, "");
  const auto wx = memory->protect(0, kPage, MemoryProtection::Write | MemoryProtection::Execute);
  ASSERT_FALSE(wx.has_value());
  EXPECT_EQ(wx.error().detail(), MemoryError::WritableExecutable);
}

TEST(MappedMemoryTest, RangesAreChecked) {
  auto memory = MappedMemory::create_private(4 * kPage);
  ASSERT_OK(memory);
  EXPECT_EQ(memory->protect(1, kPage, MemoryProtection::Read).error().detail(), MemoryError::Misaligned);
  EXPECT_EQ(memory->discard(0, 5 * kPage).error().detail(), MemoryError::OutOfRange);
  EXPECT_EQ(memory->discard(UINT64_MAX - kPage + 1, kPage).error().detail(), MemoryError::OutOfRange);
  EXPECT_EQ(memory->prefault(4 * kPage, 0).error().detail(), MemoryError::OutOfRange);
  MappedMemory nothing;
  EXPECT_EQ(nothing.discard(0, kPage).error().code(), ErrorCode::Status);
  EXPECT_EQ(nothing.view().error().code(), ErrorCode::Status);
}

TEST(MappedMemoryTest, DiscardGivesZeroesBackAndPrefaultMakesResident) {
  for (const bool shared : {false, true}) {
    auto memory = MappedMemory::create({.size = 16 * kPage, .shared = shared});
    ASSERT_OK(memory);
    EXPECT_EQ(memory->resident_bytes().value(), 0u) << "shared " << shared;
    ASSERT_OK(memory->prefault(0, 8 * kPage));
    EXPECT_GE(memory->resident_bytes(0, 8 * kPage).value(), 8 * kPage);
    std::memset(memory->data(), 0xee, 8 * kPage);
    ASSERT_OK(memory->discard(2 * kPage, 3 * kPage));
    EXPECT_TRUE(all_zero(memory->bytes().subspan(2 * kPage, 3 * kPage)));
    EXPECT_EQ(memory->data()[2 * kPage - 1], std::byte{0xee});
    EXPECT_EQ(memory->data()[5 * kPage], std::byte{0xee});
#ifdef __linux__
    ASSERT_OK(memory->discard());
    EXPECT_EQ(memory->resident_bytes().value(), 0u);
    const auto pages = memory->residency(kPage, 4 * kPage);
    ASSERT_OK(pages);
    EXPECT_EQ(pages->size(), 4u);
#endif
  }
}

TEST(MappedMemoryTest, PrefaultOfWhatMayNotBeAccessedIsAnError) {
  auto memory = MappedMemory::create_private(4 * kPage);
  ASSERT_OK(memory);
  ASSERT_OK(memory->protect(0, kPage, MemoryProtection::Read));
  EXPECT_EQ(memory->prefault().error().detail(), MemoryError::NotAccessible);
  EXPECT_OK(memory->prefault(kPage, 3 * kPage));
  auto reserved = MappedMemory::create({.size = 64 * kMiB, .reserve_only = true});
  ASSERT_OK(reserved);
  ASSERT_OK(reserved->commit(0, kPage));
  EXPECT_EQ(reserved->prefault(0, 2 * kPage).error().detail(), MemoryError::NotAccessible);
  EXPECT_OK(reserved->prefault(0, kPage));
  const auto closed = MappedMemory::create({.size = kPage, .protection = MemoryProtection::None, .prefault = true});
  ASSERT_FALSE(closed.has_value());
  EXPECT_EQ(closed.error().detail(), MemoryError::NotAccessible) << closed.error().message();
}

TEST(MappedMemoryTest, DiscardLeavesWhatIsMappedReadOnly) {
  auto memory = MappedMemory::create_shared(64 * kKiB, "read");
  ASSERT_OK(memory);
  memory->data()[0] = std::byte{7};
  auto view = memory->view(MemoryProtection::Read);
  ASSERT_OK(view);
  const auto refused = view->discard();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), ErrorCode::Status) << refused.error().message();
  EXPECT_EQ(memory->data()[0], std::byte{7});
  const TemporaryFile file(64 * kKiB);
  auto mapped = MappedMemory::open_file(file.path());
  ASSERT_OK(mapped);
  EXPECT_EQ(mapped->discard().error().code(), ErrorCode::Status);
  EXPECT_EQ(mapped->data()[1], std::byte{1});
}

TEST(MappedMemoryTest, AViewShowsTheSameBytesAndOutlivesTheFirst) {
  auto memory = MappedMemory::create_shared(64 * kMiB, "viewed");
  ASSERT_OK(memory);
  auto view = memory->view(MemoryProtection::Read, 64 * kKiB, 64 * kKiB);
  ASSERT_OK(view);
  memory->data()[64 * kKiB + 5] = std::byte{9};
  EXPECT_EQ(view->data()[5], std::byte{9});
  EXPECT_NE(view->data(), memory->data() + 64 * kKiB);
  auto second = view->view(MemoryProtection::ReadWrite, 0, 64 * kKiB);
  ASSERT_OK(second);
  *memory = MappedMemory();
  EXPECT_EQ(view->data()[5], std::byte{9});
  second->data()[6] = std::byte{10};
  EXPECT_EQ(view->data()[6], std::byte{10});
  auto lonely = MappedMemory::create_private(kPage);
  EXPECT_EQ(lonely->view().error().code(), ErrorCode::Status);
}

TEST(MappedMemoryTest, ResizeKeepsTheBytes) {
  auto memory = MappedMemory::create({.size = 4 * kPage, .shared = true, .guard_after = kPage});
  ASSERT_OK(memory);
  memory->data()[4 * kPage - 1] = std::byte{11};
  const auto grown = memory->resize(64 * kPage);
#ifdef _WIN32
  EXPECT_EQ(grown.error().code(), ErrorCode::Unsupported);
#else
  ASSERT_OK(grown);
  EXPECT_EQ(memory->size(), 64 * kPage);
  EXPECT_EQ(memory->data()[4 * kPage - 1], std::byte{11});
  EXPECT_EQ(memory->data()[64 * kPage - 1], std::byte{0});
  ASSERT_OK(memory->resize(kPage));
  EXPECT_EQ(memory->size(), kPage);
  ASSERT_OK(memory->resize(4 * kPage));
  EXPECT_EQ(memory->data()[4 * kPage - 1], std::byte{0}) << "what was cut off is gone";
#endif
  EXPECT_FALSE(MappedMemory::create_private(kPage)->resize(2 * kPage).has_value());
}

#ifdef __linux__
TEST(MappedMemoryTest, ResizeCutsOffNothingThatIsNotMapped) {
  const TemporaryFile file(16 * kPage);
  auto begin = MappedMemory::open_file(file.path(), {.access = FileAccess::Shared, .size = 2 * kPage});
  ASSERT_OK(begin);
  ASSERT_OK(begin->resize(kPage));
  EXPECT_EQ(std::filesystem::file_size(file.path()), 16 * kPage);
  auto end = MappedMemory::open_file(file.path(), {.access = FileAccess::Shared, .offset = 8 * kPage});
  ASSERT_OK(end);
  ASSERT_OK(end->resize(kPage));
  EXPECT_EQ(std::filesystem::file_size(file.path()), 9 * kPage);
}

TEST(MappedMemoryTest, AHintIsForTheDataAlsoWithAGuard) {
  std::byte* free_place = nullptr;
  {
    auto place = MappedMemory::create_private(16 * kMiB);
    ASSERT_OK(place);
    free_place = place->data() + 8 * kMiB;
  }
  auto memory = MappedMemory::create({.size = kPage, .hint = free_place, .guard_before = kPage});
  ASSERT_OK(memory);
  EXPECT_EQ(memory->data(), free_place);
}

TEST(MappedMemoryTest, LongNamesAndAddressesThatNobodyHas) {
  auto named = MappedMemory::create({.size = kPage, .name = std::string(1000, 'n'), .shared = true});
  ASSERT_OK(named);
#if !VMP_TEST_TSAN  // which ends a program that asks for such an address
  const auto beyond = MappedMemory::create({.size = kPage, .fixed_address = reinterpret_cast<void*>(1ULL << 62)});
  ASSERT_FALSE(beyond.has_value());
  EXPECT_EQ(beyond.error().detail(), MemoryError::OutOfRange) << beyond.error().message();
#endif
}

TEST(MappedMemoryTest, WhatIsOpenForReadingOnlyCannotBeWritten) {
  const TemporaryFile file(2 * kPage);
  auto mapped = MappedMemory::open_file(file.path());
  ASSERT_OK(mapped);
  for (const VmError& refused :
       {mapped->protect(0, kPage, MemoryProtection::ReadWrite).error(), mapped->view().error()}) {
    EXPECT_EQ(refused.code(), ErrorCode::Status);
    EXPECT_NE(refused.message().find("for reading only"), std::string::npos) << refused.message();
  }
  EXPECT_OK(mapped->view(MemoryProtection::Read));
  const int descriptor = ::open(file.path().c_str(), O_RDONLY | O_CLOEXEC);
  const auto shared = MappedMemory::from_descriptor(descriptor, {.access = FileAccess::Shared});
  ::close(descriptor);
  ASSERT_FALSE(shared.has_value());
  EXPECT_NE(shared.error().message().find("O_RDWR"), std::string::npos) << shared.error().message();
}
#endif

TEST(MappedMemoryTest, HugePagesFallBackAndSaySo) {
  for (const bool shared : {false, true}) {
    auto memory = MappedMemory::create({.size = 4 * kMiB, .shared = shared, .huge_pages = HugePages::Explicit});
    ASSERT_OK(memory);
    if (memory->huge_pages() != HugePages::Explicit) {
      EXPECT_FALSE(memory->note().empty());
      EXPECT_EQ(std::getenv("VMP_TEST_HUGE_PAGES"), nullptr) << "there are some here: " << memory->note();
    } else {
      EXPECT_GT(memory->page_size(), kPage);
    }
    memory->data()[4 * kMiB - 1] = std::byte{1};
    auto transparent = MappedMemory::create({.size = 4 * kMiB, .shared = shared, .huge_pages = HugePages::Transparent});
    ASSERT_OK(transparent);
    EXPECT_TRUE(transparent->huge_pages() == HugePages::Transparent || !transparent->note().empty());
    transparent->data()[0] = std::byte{1};
  }
#ifdef __linux__
  const auto no_such_size = MappedMemory::create(
      {.size = 4 * kMiB, .huge_pages = HugePages::Explicit, .huge_page_size = 4 * kMiB, .huge_pages_required = true});
  ASSERT_FALSE(no_such_size.has_value());
  EXPECT_NE(no_such_size.error().message().find("other sizes"), std::string::npos) << no_such_size.error().message();
#endif
  const auto impossible = MappedMemory::create(
      {.size = kMiB, .huge_pages = HugePages::Explicit, .huge_page_size = 12345, .huge_pages_required = true});
  ASSERT_FALSE(impossible.has_value());
  EXPECT_EQ(impossible.error().detail(), MemoryError::NoHugePages) << impossible.error().message();
}

TEST(MappedMemoryTest, NumaNode) {
  auto node0 = MappedMemory::create({.size = kMiB, .numa_node = 0});
  ASSERT_OK(node0);
  std::memset(node0->data(), 1, kMiB);
  auto missing = MappedMemory::create({.size = kMiB, .numa_node = 999});
  ASSERT_OK(missing);
  EXPECT_FALSE(missing->note().empty());
#ifdef __linux__
  if (!std::filesystem::exists("/sys/devices/system/node/node1")) return;  // the lab has one
  auto node1 = MappedMemory::create({.size = kMiB, .numa_node = 1, .prefault = true});
  ASSERT_OK(node1);
  EXPECT_TRUE(node1->note().empty()) << node1->note();
  int node = -1;
  ASSERT_EQ(::syscall(SYS_get_mempolicy, &node, nullptr, 0, node1->data(), MPOL_F_NODE | MPOL_F_ADDR), 0);
  EXPECT_EQ(node, 1);
#endif
}

TEST(MappedMemoryTest, FileReadOnlyPrivateAndShared) {
  const TemporaryFile file(3 * kPage + 100);
  {
    auto memory = MappedMemory::open_file(file.path());
    ASSERT_OK(memory);
    EXPECT_EQ(memory->size(), 3 * kPage + 100);
    EXPECT_EQ(memory->data()[250], std::byte{250});
    std::byte last{};
    ASSERT_OK(memory->read_at(3 * kPage + 99, {&last, 1}));
    EXPECT_EQ(last, static_cast<std::byte>((3 * kPage + 99) % 251));
    std::array<std::byte, 2> beyond{};
    EXPECT_EQ(memory->read_at(3 * kPage + 99, beyond).error().detail(), MemoryError::OutOfRange);
    EXPECT_DEATH({ static_cast<volatile std::byte*>(memory->data())[0] = std::byte{1}; }, "");
  }
  {
    auto memory = MappedMemory::open_file(file.path(), {.access = FileAccess::Private});
    ASSERT_OK(memory);
    memory->data()[0] = std::byte{99};
    std::byte seen{};
    ASSERT_OK(memory->read_at(0, {&seen, 1}));
    EXPECT_EQ(seen, std::byte{99}) << "read_at sees the private copy";
    std::ifstream stream(file.path(), std::ios::binary);
    EXPECT_EQ(stream.get(), 0) << "the file does not";
  }
  {
    auto memory = MappedMemory::open_file(file.path(), {.access = FileAccess::Shared});
    ASSERT_OK(memory);
    memory->data()[1] = std::byte{77};
    ASSERT_OK(memory->flush());
    std::ifstream stream(file.path(), std::ios::binary);
    stream.get();
    EXPECT_EQ(stream.get(), 77);
  }
}

TEST(MappedMemoryTest, FileErrors) {
  EXPECT_EQ(MappedMemory::open_file("/nonexistent/file").error().code(), ErrorCode::NotFound);
  const TemporaryFile empty(0);
  EXPECT_EQ(MappedMemory::open_file(empty.path()).error().code(), ErrorCode::InvalidArgument);
  const TemporaryFile file(2 * kPage);
  EXPECT_FALSE(MappedMemory::open_file(file.path(), {.offset = 64 * kMiB}).has_value());
  EXPECT_FALSE(MappedMemory::open_file(file.path(), {.size = 3 * kPage}).has_value());
  EXPECT_FALSE(MappedMemory::open_file(file.path(), {.offset = 1}).has_value());
}

#ifdef __linux__
TEST(MappedMemoryTest, AFileThatShrankIsAnErrorAndNoDeath) {
  const TemporaryFile file(4 * kPage);
  auto memory = MappedMemory::open_file(file.path());
  ASSERT_OK(memory);
  std::vector<std::byte> bytes(kPage);
  ASSERT_OK(memory->read_at(3 * kPage, bytes));
  ASSERT_EQ(::truncate(file.path().c_str(), static_cast<off_t>(kPage + 10)), 0);
  const auto gone = memory->read_at(3 * kPage, bytes);
  ASSERT_FALSE(gone.has_value());
  EXPECT_EQ(gone.error().detail(), MemoryError::FileShrank) << gone.error().message();
  const auto tail = memory->read_at(kPage, bytes);
  ASSERT_FALSE(tail.has_value()) << "the zeroes after the new end are not the file's";
  EXPECT_EQ(tail.error().detail(), MemoryError::FileShrank);
  ASSERT_OK(memory->read_at(0, bytes));
  EXPECT_FALSE(memory->prefault().has_value());
}

TEST(MappedMemoryTest, FromDescriptorHasItsOwn) {
  auto memory = MappedMemory::create_shared(4 * kPage, "passed on");
  ASSERT_OK(memory);
  auto other = MappedMemory::from_descriptor(memory->descriptor(), {.access = FileAccess::Shared});
  ASSERT_OK(other);
  EXPECT_NE(other->descriptor(), memory->descriptor());
  other->data()[7] = std::byte{1};
  EXPECT_EQ(memory->data()[7], std::byte{1});
  EXPECT_FALSE(MappedMemory::from_descriptor(-1).has_value());
}

TEST(MappedMemoryTest, Advice) {
  auto memory = MappedMemory::create_private(4 * kMiB);
  ASSERT_OK(memory);
  for (const auto advice :
       {MemoryAdvice::Normal, MemoryAdvice::Sequential, MemoryAdvice::Random, MemoryAdvice::WillNeed,
        MemoryAdvice::DontDump, MemoryAdvice::DoDump, MemoryAdvice::DontFork, MemoryAdvice::WipeOnFork})
    EXPECT_OK(memory->advise(0, 4 * kMiB, advice));
  for (const auto advice : {MemoryAdvice::Cold, MemoryAdvice::PageOut, MemoryAdvice::HugePages,
                            MemoryAdvice::NoHugePages, MemoryAdvice::Mergeable}) {
    const auto done = memory->advise(0, 4 * kMiB, advice);
    EXPECT_TRUE(done.has_value() || done.error().code() == ErrorCode::Unsupported) << done.error().message();
  }
}
#endif

TEST(MappedMemoryTest, LockAndUnlock) {
  auto memory = MappedMemory::create_private(4 * kPage);
  ASSERT_OK(memory);
  ASSERT_OK(memory->lock());
#if !VMP_TEST_ASAN && !VMP_TEST_TSAN  // they make mlock do nothing
  EXPECT_EQ(memory->resident_bytes().value(), 4 * kPage);
#endif
  EXPECT_OK(memory->unlock());
}

}  // namespace
}  // namespace vm_platform
