// Tracking changes where the host says no to part of it: nothing that was written is ever missing.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <ucontext.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <vm_platform/dirty_tracking.hpp>

#include "os/limited_child.hpp"

namespace vm_platform {
namespace {

TEST_F(MappingLimitTest, TrackingByFaultsSurvives) {
  EXPECT_CHILD(([most = most_] {
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

TEST_F(MappingLimitTest, CollectingFaultsLosesNothing) {
  EXPECT_CHILD(([most = most_] {
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

}  // namespace
}  // namespace vm_platform
