// What happens when the host says no: each failure is clear, and nothing leaks. Each test is a process of its own,
// because limits, once lowered, stay low.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>
#include <vm_platform/dirty_tracking.hpp>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>

#include "os/test_code.hpp"

namespace vm_platform {
namespace {

#if VMP_TEST_ASAN || VMP_TEST_TSAN
#define SKIP_WITH_SANITIZERS() GTEST_SKIP() << "the sanitizers' own memory does not fit the limits"
#else
#define SKIP_WITH_SANITIZERS() (void)0
#endif

/// In a child: a false condition ends it with a message.
void check(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "not so: %s\n", what.c_str());
  std::_Exit(1);
}

template <typename T>
void check_error(const Result<T>& result, MemoryError detail, const char* in_message) {
  check(!result.has_value(), "it should have failed");
  const std::string message = result.error().message();
  std::fprintf(stderr, "%s\n", message.c_str());
  check(result.error().detail() == make_error_code(detail), "the detail of: " + message);
  check(message.find(in_message) != std::string::npos, std::string(in_message) + " in: " + message);
  check(!result.error().hint().empty(), "a hint in: " + message);
}

struct Held {
  std::size_t mappings = 0, descriptors = 0;
  bool operator==(const Held&) const = default;
};
Held held() {
  Held now;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find("[heap]") == std::string::npos) ++now.mappings;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    (void)entry;
    ++now.descriptors;
  }
  return now;
}

#define EXPECT_CHILD(function) EXPECT_EXIT((function(), std::_Exit(0)), testing::ExitedWithCode(0), "")

void lower(__rlimit_resource_t which, rlim_t to) {
  const rlimit value{to, to};
  check(::setrlimit(which, &value) == 0, "setrlimit");
}

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

TEST(LimitsTest, NumberOfMappings) {
  SKIP_WITH_SANITIZERS();
  std::uint64_t most = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> most;
  if (most > 200'000) GTEST_SKIP() << "vm.max_map_count is " << most << ": too long to reach";
  EXPECT_CHILD(([most] {
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

TEST(LimitsTest, TrackingByFaultsSurvivesTheMappingLimit) {
  SKIP_WITH_SANITIZERS();
  std::uint64_t most = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> most;
  if (most > 200'000) GTEST_SKIP() << "vm.max_map_count is " << most << ": too long to reach";
  EXPECT_CHILD(([most] {
    const std::uint64_t pages = most + 4096;
    auto memory = MappedMemory::create_private(pages * kPageSize);
    auto tracker = DirtyTracker::start(*memory, {.method = DirtyMethod::ProtectFault});
    check(tracker.has_value(), "tracking");
    for (std::uint64_t page = 0; page < pages; page += 2) memory->data()[page * kPageSize] = std::byte{1};
    DirtyPages found;
    check(tracker->collect(found).has_value(), "collecting");
    for (std::uint64_t page = 0; page < pages; page += 2) check(found.test(page), "a page that was written");
    memory->data()[0] = std::byte{2};
    check(tracker->collect(found).has_value() && found.count == 1 && found.test(0), "and it goes on, page by page");
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
      EXPECT_NE(refused.error().message().find("vm.nr_hugepages"), std::string::npos) << refused.error().message();
      auto smaller = MappedMemory::create(
          {.size = kHuge, .shared = shared, .huge_pages = HugePages::Explicit, .huge_page_size = kHuge});
      ASSERT_TRUE(smaller.has_value()) << smaller.error().message();
      EXPECT_NE(smaller->huge_pages(), HugePages::Explicit);
      EXPECT_NE(smaller->note().find("vm.nr_hugepages"), std::string::npos) << smaller->note();
      smaller->data()[kHuge - 1] = std::byte{1};
    }
  }
  EXPECT_EQ(available(), pool) << "and the pool is whole again";
  EXPECT_EQ(held().descriptors, before.descriptors);
}

/// Lets the system call fail with EPERM, always or only where the third argument has a bit set.
void forbid(std::vector<std::pair<long, unsigned>> calls) {
  std::vector<sock_filter> program = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const auto& [number, bit] : calls) {
    const auto k = static_cast<std::uint32_t>(number);
    if (bit == 0) {
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, 1));
      program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
    } else {
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, 0, 4));
      program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[2])));
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bit, 0, 1));
      program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
      program.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)));
    }
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
  check(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0, "seccomp");
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

TEST(LimitsTest, WithoutUserfaultfd) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD([] {
    auto memory = MappedMemory::create_private(16 * kPageSize);
    forbid({{SYS_userfaultfd, 0}, {SYS_openat, 0}});
    const auto tracker = DirtyTracker::start(*memory);
    check(tracker.has_value() && tracker->method() == DirtyMethod::ProtectFault, "the method that works anywhere");
    check(tracker->reason().find("userfaultfd: userfaultfd: Operation not permitted") != std::string::npos,
          "why none better: " + tracker->reason());
    check(tracker->reason().find("vm.unprivileged_userfaultfd") != std::string::npos, "and what to do about it");
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

TEST(LimitsTest, FileSizeOfExecutableMemory) {
  SKIP_WITH_SANITIZERS();
  EXPECT_CHILD(([] {
    const Held before = held();
    lower(RLIMIT_FSIZE, 64 * kKiB);
    check(JitMemory::create(64 * kKiB)->mode() == JitMode::DualMapping, "as much as is allowed");
    check_error(JitMemory::create(64 * kKiB + 1), MemoryError::OutOfMemory, "ulimit -f unlimited");
    check(held() == before, "nothing is left behind");
    lower(RLIMIT_FSIZE, 2 * kKiB);  // what the test prints is a file too
    check_error(JitMemory::create(JitOptions{.size = kPageSize, .mode = JitMode::DualMapping}),
                MemoryError::OutOfMemory, "RLIMIT_FSIZE is 2 KiB");
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
