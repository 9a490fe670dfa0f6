// What happens when the host says no: each failure is clear, and nothing leaks. Each test is a process of its own,
// because limits, once lowered, stay low.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <type_traits>
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

TEST(LimitsTest, CollectingFaultsAtTheMappingLimitLosesNothing) {
  SKIP_WITH_SANITIZERS();
  std::uint64_t most = 0;
  std::ifstream("/proc/sys/vm/max_map_count") >> most;
  if (most > 200'000) GTEST_SKIP() << "vm.max_map_count is " << most << ": too long to reach";
  EXPECT_CHILD(([most] {
    // Guards, so that the neighbours' mappings do not join those of the tracked memory.
    auto memory = MappedMemory::create({.size = 4096 * kPageSize, .guard_before = kPageSize, .guard_after = kPageSize});
    auto tracker = DirtyTracker::start(*memory, {.method = DirtyMethod::ProtectFault});
    check(tracker.has_value(), "tracking");
    DirtyPages found;
    {
      for (std::uint64_t page = 0; page < 1500; ++page) memory->data()[page * kPageSize] = std::byte{1};
      auto others = MappedMemory::create({.size = 2 * most * kPageSize, .reserve_only = true});
      check(others.has_value(), "room for many mappings");
      Result<void> more;
      for (std::uint64_t page = 1; more; page += 2)
        more = others->protect(page * kPageSize, kPageSize, MemoryProtection::Read);
      check_error(more, MemoryError::MapLimit, "vm.max_map_count");
      check(tracker->collect(found).has_value(), "collecting at the limit");
      for (std::uint64_t page = 0; page < 1500; ++page) check(found.test(page), "a page that was written");
    }
    for (unsigned round = 0; round < 2; ++round) {
      memory->data()[5 * kPageSize] = std::byte{2};
      check(tracker->collect(found).has_value(), "collecting");
      check(found.test(5), "a page that was written after the limit was hit");
    }
    check(found.count == 1, "and it goes on, page by page");
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

bool works(DirtyMethod method) {
  auto memory = MappedMemory::create_private(kPageSize);
  return memory && DirtyTracker::start(*memory, {.method = method}).has_value();
}

TEST(LimitsTest, WithoutThreads) {
  SKIP_WITH_SANITIZERS();
  if (!works(DirtyMethod::Userfaultfd)) GTEST_SKIP() << "no userfaultfd";
  EXPECT_CHILD([] {
    auto memory = MappedMemory::create_private(16 * kPageSize);
    forbid({{SYS_clone, 0}, {SYS_clone3, 0}});
    const Held before = held();
    const auto refused = DirtyTracker::start(*memory, {.method = DirtyMethod::Userfaultfd});
    check(!refused && refused.error().message().find("start a thread") != std::string::npos, "no thread, no tracker");
    check(held().descriptors == before.descriptors, "nothing is left behind");
    check(DirtyTracker::start(*memory).has_value(), "the other methods are there");
  });
}

TEST(LimitsTest, TrackingIsForEverybody) {
  if (!works(DirtyMethod::PagemapScan)) GTEST_SKIP() << "no PAGEMAP_SCAN";
  EXPECT_CHILD([] {
    if (::getuid() == 0) check(::setresuid(65534, 65534, 65534) == 0, "giving up root");
    check(::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0, "having a /proc of one's own, as a program started by this user");
    for (const bool shared : {false, true}) {
      auto memory = MappedMemory::create({.size = 16 * kPageSize, .shared = shared});
      auto tracker = DirtyTracker::start(*memory);
      check(tracker.has_value() && tracker->method() == DirtyMethod::PagemapScan, "the best: " + tracker->reason());
      const int zero = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
      check(::read(zero, memory->data() + 3 * kPageSize, kPageSize) == kPageSize, "a system call that writes");
      ::close(zero);
      memory->data()[7 * kPageSize] = std::byte{1};
      DirtyPages found;
      check(tracker->collect(found).has_value() && found.count == 2 && found.test(3) && found.test(7), "both writes");
    }
  });
}

std::byte* g_tracked;

TEST(LimitsTest, SignalsDoNotGoToTheTrackersThread) {
  SKIP_WITH_SANITIZERS();
  if (!works(DirtyMethod::Userfaultfd)) GTEST_SKIP() << "no userfaultfd";
  EXPECT_CHILD([] {
    ::alarm(30);
    auto memory = MappedMemory::create_private(16 * kPageSize);
    auto tracker = DirtyTracker::start(*memory, {.method = DirtyMethod::Userfaultfd});
    check(tracker.has_value(), "tracking");
    g_tracked = memory->data();
    struct sigaction writes{};
    writes.sa_handler = [](int) { g_tracked[2 * kPageSize] = std::byte{1}; };
    ::sigaction(SIGUSR1, &writes, nullptr);
    sigset_t one;
    sigset_t pending;
    ::sigemptyset(&one);
    ::sigaddset(&one, SIGUSR1);
    ::pthread_sigmask(SIG_BLOCK, &one, nullptr);
    ::kill(::getpid(), SIGUSR1);
    ::usleep(50'000);  // in which another thread could take it
    memory->data()[0] = std::byte{1};
    check(::sigpending(&pending) == 0 && ::sigismember(&pending, SIGUSR1) == 1, "it waits for this thread");
    ::pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
    DirtyPages found;
    check(tracker->collect(found).has_value() && found.test(0) && found.test(2) && found.count == 2, "both writes");
  });
}

std::atomic<bool> g_refuse_protection;

/// From now on the kernel asks here for every UFFDIO_WRITEPROTECT, which fails while `g_refuse_protection`.
void intercept_write_protection() {
  static constexpr std::uint32_t kLetThrough = 0x7e57;  // as the fifth argument, which ioctl does not have
  struct sigaction decide{};
  decide.sa_flags = SA_SIGINFO;
  decide.sa_sigaction = [](int, siginfo_t*, void* context) {
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
    auto& result = registers.gregs[REG_RAX];
    const auto first = registers.gregs[REG_RDI], second = registers.gregs[REG_RSI], third = registers.gregs[REG_RDX];
#else
    auto& result = registers.regs[0];
    const auto first = registers.regs[0], second = registers.regs[1], third = registers.regs[2];
#endif
    long done = g_refuse_protection ? -ENOMEM : ::syscall(SYS_ioctl, first, second, third, 0, kLetThrough);
    if (done == -1) done = -errno;
    result = static_cast<std::remove_reference_t<decltype(result)>>(done);
  };
  check(::sigaction(SIGSYS, &decide, nullptr) == 0, "sigaction");
  const auto low = [](unsigned argument) {
    return static_cast<std::uint32_t>(offsetof(seccomp_data, args) + argument * sizeof(std::uint64_t));
  };
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low(1)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(UFFDIO_WRITEPROTECT), 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low(4)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kLetThrough, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  check(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no new privileges");
  check(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0, "seccomp");
}

TEST(LimitsTest, ACollectThatFailsLosesNothing) {
  SKIP_WITH_SANITIZERS();
  if (!works(DirtyMethod::Userfaultfd)) GTEST_SKIP() << "no userfaultfd";
  EXPECT_CHILD([] {
    auto memory = MappedMemory::create_private(4096 * kPageSize);
    intercept_write_protection();
    auto tracker = DirtyTracker::start(*memory, {.method = DirtyMethod::Userfaultfd});
    check(tracker.has_value(), "tracking");
    const auto write = [&](std::uint64_t page) { memory->data()[page * kPageSize] = std::byte{1}; };
    write(5);
    write(3000);
    g_refuse_protection = true;
    DirtyPages found;
    check(!tracker->collect(found), "it should have failed");
    g_refuse_protection = false;
    write(5);
    check(tracker->collect(found).has_value() && found.test(5) && found.test(3000), "what was written before");
    write(5);
    check(tracker->collect(found).has_value() && found.test(5) && found.count == 1, "and it goes on, page by page");
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
