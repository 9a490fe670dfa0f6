// What happens when the host says no: each failure is clear, and nothing leaks. Each test is a process of its own,
// because limits, once lowered, stay low.
#include <fcntl.h>
#include <sys/mman.h>

#include <vm_platform/dirty_tracking.hpp>
#include <vm_platform/platform.hpp>

#include "os/limited_child.hpp"

namespace vm_platform {
namespace {

TEST(LimitsTest, AddressSpace) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD([] {
    std::uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const Held before = held();
    lower(RLIMIT_AS, pages * 4096 + 64 * kMiB);
    check_error(MappedMemory::create_private(kGiB), MemoryError::AddressSpaceLimit, "ulimit -v");
    check_error(MappedMemory::create_shared(kGiB, "large"), MemoryError::AddressSpaceLimit, "RLIMIT_AS");
    check_error(MappedMemory::create({.size = kMiB, .alignment = kGiB}), MemoryError::AddressSpaceLimit, "RLIMIT_AS");
    check(!JitMemory::create(kGiB), "executable memory too");
    check(MappedMemory::create_private(kMiB).has_value(), "small ones still work");
    check(held() == before, "nothing is left behind");
  });
}

TEST(LimitsTest, LockedMemory) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD([] {
    auto memory = MappedMemory::create_private(4 * kMiB);
    // Locking brings pages in, and older kernels (6.1) do not join what has pages with what never had any: all has
    // some.
    check(memory->prefault().has_value(), "memory of which every page is there");
    lower(RLIMIT_MEMLOCK, 64 * kKiB);
    if (::getuid() == 0) check(::setresuid(65534, 65534, 65534) == 0, "giving up root, who has no such limit");
    const Held before = held();
    check_error(memory->lock(), MemoryError::LockLimit, "ulimit -l");
    check(memory->lock(0, 32 * kKiB).has_value(), "a little may be locked");
    check(memory->unlock(0, 32 * kKiB).has_value(), "and unlocked");
    check(held() == before, "nothing is left behind");
  });
}

TEST(LimitsTest, LockingWhatIsNotThereIsNotTheLimit) {
  SKIP_WITH_SANITIZERS();  // they make nothing of mlock
  const std::uint64_t page = host_page_size();
  auto memory = MappedMemory::create({.size = 4 * page, .reserve_only = true});
  ASSERT_TRUE(memory.has_value());
  const auto locked = memory->lock();
  ASSERT_FALSE(locked.has_value());
  EXPECT_EQ(locked.error().detail(), MemoryError::NotAccessible) << locked.error().message();
}

TEST(LimitsTest, PrivateWritableMemory) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD([] {
    lower(RLIMIT_DATA, 512 * kMiB);
    check_error(MappedMemory::create_private(kGiB), MemoryError::AddressSpaceLimit, "ulimit -d");
    check(MappedMemory::create_shared(kGiB, "large").has_value(), "shared memory is not counted");
  });
}

/// The child of a test is a new process, which has asked for no limit yet.
class FileSizeLimitTest : public testing::Test {
 protected:
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  void TearDown() override { GTEST_FLAG_SET(death_test_style, "fast"); }
};

TEST_F(FileSizeLimitTest, OfSharedMemory) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD([] {
    const Held before = held();
    lower(RLIMIT_FSIZE, 64 * kKiB);
    check_error(MappedMemory::create_shared(kMiB, "large"), MemoryError::FileSizeLimit, "ulimit -f");
    auto small = MappedMemory::create_shared(32 * kKiB, "small");
    check(small.has_value(), "what fits is made");
    check_error(small->resize(kMiB), MemoryError::FileSizeLimit, "64 KiB");
    check(small->size() == 32 * kKiB, "a mapping that could not grow is as before");
    small = MappedMemory();
    check(held() == before, "nothing is left behind");
  });
}

TEST(LimitsTest, MemoryThatIsLockedAtOnce) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD([] {
    if (::getuid() == 0) check(::setresuid(65534, 65534, 65534) == 0, "giving up root, who has no such limit");
    lower(RLIMIT_MEMLOCK, 256 * kKiB);
    check(::mlockall(MCL_FUTURE) == 0, "mlockall");
    check_error(MappedMemory::create_private(kGiB), MemoryError::LockLimit, "MCL_FUTURE");
  });
}

TEST_F(MappingLimitTest, NumberOfMappings) {
  EXPECT_CHILD(([most = most_] {
    const Held before = held();
    {
      auto memory = MappedMemory::create_private((most + 64) * kPageSize);
      Result<void> done;
      // Each page that differs from its neighbours is a mapping of its own.
      for (std::uint64_t page = 1; done && page < most + 64; page += 2)
        done = memory->protect(page * kPageSize, kPageSize, MemoryProtection::Read);
      check_error(done, MemoryError::MapLimit, "vm.max_map_count");
      auto more = MappedMemory::create({.size = 2 * kMiB, .shared = true, .guard_before = kPageSize});
      check_error(more, MemoryError::MapLimit, "sysctl");
    }
    const Held after = held();
    check(after.mappings <= before.mappings + 2 && after.descriptors == before.descriptors, "nothing is left behind");
  }));
}

TEST(LimitsTest, NoHugePagesLeft) {
  constexpr std::uint64_t kHuge = 2 * kMiB;
  const auto available = [] {
    std::uint64_t pages = 0;
    std::ifstream("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") >> pages;
    return pages;
  };
  const std::uint64_t pool = available();
  const Held before = held();
  {
    MappedMemory all;  // what there is: none on most machines, some in the lab
    if (pool != 0) {
      auto taken = MappedMemory::create({.size = pool * kHuge,
                                         .huge_pages = HugePages::Explicit,
                                         .huge_page_size = kHuge,
                                         .huge_pages_required = true,
                                         .prefault = true});
      ASSERT_TRUE(taken.has_value()) << taken.error().message();
      EXPECT_EQ(taken->huge_pages(), HugePages::Explicit);
      EXPECT_EQ(available(), 0u);
      all = std::move(*taken);
    }
    for (const bool shared : {false, true}) {
      const auto refused = MappedMemory::create({.size = kHuge,
                                                 .shared = shared,
                                                 .huge_pages = HugePages::Explicit,
                                                 .huge_page_size = kHuge,
                                                 .huge_pages_required = true});
      ASSERT_FALSE(refused.has_value());
      EXPECT_EQ(refused.error().detail(), MemoryError::NoHugePages);
      EXPECT_NE(refused.error().message().find("kB/nr_hugepages"), std::string::npos) << refused.error().message();
      auto smaller = MappedMemory::create(
          {.size = kHuge, .shared = shared, .huge_pages = HugePages::Explicit, .huge_page_size = kHuge});
      ASSERT_TRUE(smaller.has_value()) << smaller.error().message();
      EXPECT_NE(smaller->huge_pages(), HugePages::Explicit);
      EXPECT_NE(smaller->note().find("kB/nr_hugepages"), std::string::npos) << smaller->note();
      smaller->data()[kHuge - 1] = std::byte{1};
    }
  }
  EXPECT_EQ(available(), pool) << "and the pool is whole again";
  EXPECT_EQ(held().descriptors, before.descriptors);
}

TEST(LimitsTest, WithoutMemfd) {
  EXPECT_CHILD([] {
    forbid({{SYS_memfd_create, 0}});
    const Held before = held();
    check_error(MappedMemory::create_shared(kMiB, "shared"), MemoryError::Denied, "seccomp");
    check(MappedMemory::create_private(kMiB).has_value(), "private memory works");
    check(!jit_support().dual_mapping && jit_support().protection_switch, "one way to executable memory is left");
    {
      auto code = JitMemory::create(kPageSize);
      check(code.has_value() && code->mode() == JitMode::ProtectionSwitch, "and it is taken");
      check(code->store(0, test_code::return_value(42)).has_value(), "storing code");
      check(test_code::call(code->executable()) == 42, "running it");
    }
    check(held().descriptors == before.descriptors, "nothing is left behind");
  });
}

TEST(LimitsTest, WithoutExecutableMemory) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD([] {
    forbid({{SYS_mmap, PROT_EXEC}, {SYS_mprotect, PROT_EXEC}});
    const Held before = held();
    const auto code = JitMemory::create(kPageSize);
    check_error(MappedMemory::create_private(kPageSize)->protect(0, 0, MemoryProtection::ReadExecute),
                MemoryError::ExecutableDenied, "SELinux");
    check(!code && code.error().code() == ErrorCode::Unsupported &&
              code.error().detail() == make_error_code(MemoryError::ExecutableDenied),
          "unsupported, with the reason");
    check(!PlatformFeatures::detect({.probe_kvm = false}).executable_memory.usable, "and detection says so");
    check(held().descriptors == before.descriptors, "nothing is left behind");
  });
}

TEST(LimitsTest, TooManyOpenFiles) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD([] {
    std::vector<int> all;
    auto memory = MappedMemory::create_shared(kMiB, "one");
    lower(RLIMIT_NOFILE, 64);
    for (int fd = 0; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) all.push_back(fd);
    const auto view = memory->view();
    check(!view && view.error().message().find("ulimit -n") != std::string::npos, "the fix");
    check(!MappedMemory::create_shared(kMiB, "two"), "no descriptor, no memfd");
    check(!JitMemory::create(JitOptions{.size = kPageSize, .mode = JitMode::DualMapping}), "nor a dual mapping");
    check(::open("/dev/null", O_RDONLY | O_CLOEXEC) < 0, "all are still in use");
    ::close(all.back());
    check(::open("/dev/null", O_RDONLY | O_CLOEXEC) == all.back(), "and none was lost");
  });
}

TEST(LimitsTest, AShortageAtTheFirstProbeForExecutableMemoryPasses) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD(([] {
    rlimit files{};
    check(::getrlimit(RLIMIT_NOFILE, &files) == 0, "getrlimit");
    const rlimit none{3, files.rlim_max};
    check(::setrlimit(RLIMIT_NOFILE, &none) == 0, "setrlimit");
    const JitOptions forced{.size = kPageSize, .mode = JitMode::DualMapping};
    check_error(JitMemory::create(forced), MemoryError::OutOfMemory, "ulimit -n");
    const auto meanwhile = JitMemory::create(kPageSize);
    check(meanwhile.has_value() && meanwhile->mode() == JitMode::ProtectionSwitch, "what works meanwhile");
    check(!jit_support().dual_mapping && jit_support().reason.find("ulimit -n") != std::string::npos, "and why");
    check(::setrlimit(RLIMIT_NOFILE, &files) == 0, "setrlimit");
    const auto later = JitMemory::create(kPageSize);
    check(later.has_value() && later->mode() == JitMode::DualMapping, "the best way again");
    check(JitMemory::create(forced).has_value() && jit_support().dual_mapping, "also where it is forced");
  }));
}

TEST_F(FileSizeLimitTest, OfExecutableMemory) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD(([] {
    const Held before = held();
    lower(RLIMIT_FSIZE, 64 * kKiB);
    check(JitMemory::create(64 * kKiB)->mode() == JitMode::DualMapping, "as much as is allowed");
    check_error(JitMemory::create(64 * kKiB + 1), MemoryError::FileSizeLimit, "ulimit -f unlimited");
    check(held() == before, "nothing is left behind");
    lower(RLIMIT_FSIZE, 2 * kKiB);  // what the test prints is a file too
    check_error(JitMemory::create(JitOptions{.size = kPageSize, .mode = JitMode::DualMapping}),
                MemoryError::FileSizeLimit, "RLIMIT_FSIZE is 2 KiB");
  }));
  EXPECT_CHILD([] {
    lower(RLIMIT_FSIZE, 0);
    check(!jit_support().dual_mapping && jit_support().protection_switch, "not even a page for the probe");
    check(JitMemory::create(kPageSize)->mode() == JitMode::ProtectionSwitch, "the way that needs no file");
  });
}

TEST(LeakTest, EverythingIsGivenBack) {
  const auto round = [] {
    auto shared = MappedMemory::create({.size = kMiB, .shared = true, .alignment = 2 * kMiB, .guard_before = 4096});
    ASSERT_TRUE(shared.has_value());
    auto view = shared->view();
    ASSERT_TRUE(shared->resize(2 * kMiB).has_value());
    for (const auto method : {DirtyMethod::PagemapScan, DirtyMethod::Userfaultfd, DirtyMethod::SoftDirty})
      (void)DirtyTracker::start(*shared, {.method = method});
    auto dual = JitMemory::create(64 * kKiB);
    auto switching = JitMemory::create(JitOptions{.size = 64 * kKiB, .mode = JitMode::ProtectionSwitch});
    (void)MappedMemory::create({.size = kMiB, .fixed_address = shared->data()});  // fails
    (void)MappedMemory::open_file("/nonexistent");
    auto file = MappedMemory::open_file("/proc/self/exe");
    ASSERT_TRUE(file.has_value());
    (void)PlatformFeatures::detect();
  };
  round();  // what is made once and kept
  const Held before = held();
  for (int i = 0; i < 10; ++i) round();
  const Held after = held();
  EXPECT_EQ(after.descriptors, before.descriptors);
#if !VMP_TEST_ASAN && !VMP_TEST_TSAN  // they map memory of their own as they go
  EXPECT_LE(after.mappings, before.mappings + 2) << "the allocator's arenas may move";
#endif
}

}  // namespace
}  // namespace vm_platform
