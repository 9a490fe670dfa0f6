// fork and exec: a child has what it may have, and leaves alone what is its parent's; a new program has nothing.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <string>
#include <thread>
#include <vm_platform/dirty_tracking.hpp>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>
#include <vm_platform/signals.hpp>
#include <vm_platform/timer.hpp>

#include "os/counter_clock.hpp"

namespace vm_platform {
namespace {

/// What another program, started by exec, has from this process: caught, ignored and blocked signals, and descriptors.
std::string inherited() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::execl("/bin/sh", "sh", "-c", "grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status; exec ls -l /proc/self/fd/", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> buffer{};
  for (ssize_t got = 0; (got = ::read(ends[0], buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  // Of a descriptor only its number and what kind of thing it is: the pipe's and the folder's own differ each time.
  std::string stable;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    if (const auto arrow = line.find(" -> "); arrow != std::string::npos) {
      const auto number = line.find_last_of(' ', arrow - 1);
      const auto kind = line.find_first_of(":0123456789", arrow + 4);
      line = line.substr(number + 1, (kind == std::string::npos ? line.size() : kind) - number - 1);
    }
    if (!line.starts_with("total")) stable += line + "\n";
  }
  return stable;
}

TEST(ForkTest, AProgramStartedByExecHasNothingOfOurs) {
  const std::string before = inherited();
  ASSERT_NE(before.find("SigCgt:"), std::string::npos) << before;
  auto shared = MappedMemory::create_shared(kMiB, "shared");
  auto view = shared->view();
  auto file = MappedMemory::open_file("/proc/self/exe");
  auto code = JitMemory::create(kPageSize);
  auto switching = JitMemory::create(JitOptions{.size = kPageSize, .mode = JitMode::ProtectionSwitch});
  auto tracker = DirtyTracker::start(*shared);
  auto other = MappedMemory::create_shared(kMiB, "other");
  auto by_thread = DirtyTracker::start(*other, {.method = DirtyMethod::Userfaultfd});
  auto third = MappedMemory::create_private(kMiB);
  auto by_fault = DirtyTracker::start(*third, {.method = DirtyMethod::ProtectFault});
  ASSERT_TRUE(by_fault.has_value()) << by_fault.error().message();
  third->data()[0] = std::byte{1};
  const auto pass = [](Fault&, void*) noexcept { return FaultAction::Pass; };
  auto handler = SignalHandler::install({.kinds = FaultKind::Memory | FaultKind::Bus | FaultKind::Arithmetic |
                                                  FaultKind::IllegalInstruction | FaultKind::Trap},
                                        pass, nullptr);
  ASSERT_TRUE(handler.has_value());
  (void)timestamp_ns();
  (void)PlatformFeatures::detect();
  EXPECT_EQ(inherited(), before);
}

TEST(ForkTest, AChildHasOrdinaryMemoryAndLeavesItsParentsTrackerAlone) {
  for (const DirtyMethod method :
       {DirtyMethod::PagemapScan, DirtyMethod::Userfaultfd, DirtyMethod::SoftDirty, DirtyMethod::ProtectFault}) {
    auto memory = MappedMemory::create_private(16 * kPageSize);
    ASSERT_TRUE(memory.has_value());
    auto tracker = DirtyTracker::start(*memory, {.method = method});
    if (!tracker) continue;  // not on this host
    volatile std::byte* bytes = memory->data();
    bytes[0] = std::byte{1};
    DirtyPages pages;
    ASSERT_TRUE(tracker->collect(pages).has_value());
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(30);  // a writer that waits for its parent's thread would wait for ever
      for (std::uint64_t page = 0; page < 4; ++page) bytes[page * kPageSize] = std::byte{2};
      const auto collected = tracker->collect(pages);
      if (collected || collected.error().code() != ErrorCode::Status) ::_exit(1);
      {
        const DirtyTracker gone = std::move(*tracker);
      }
      bytes[8 * kPageSize] = std::byte{2};
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << to_string(method);
    bytes[5 * kPageSize] = std::byte{3};
    ASSERT_TRUE(tracker->collect(pages).has_value()) << to_string(method);
    EXPECT_TRUE(pages.test(5)) << to_string(method);
    EXPECT_EQ(memory->data()[0], std::byte{1}) << "the child had its own";
  }
}

TEST(ForkTest, MemoryCanBeTrackedAgainWhileAChildLives) {
  for (const DirtyMethod method : {DirtyMethod::PagemapScan, DirtyMethod::Userfaultfd}) {
    auto memory = MappedMemory::create_private(16 * kPageSize);
    ASSERT_TRUE(memory.has_value());
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    pid_t child = 0;
    {
      const auto tracker = DirtyTracker::start(*memory, {.method = method});
      if (!tracker) continue;  // not on this host
      child = ::fork();
      if (child == 0) {  // with copies of the tracker's descriptors, until told to go
        ::close(ends[1]);
        char byte = 0;
        ::_exit(static_cast<int>(::read(ends[0], &byte, 1)));
      }
    }
    const auto again = DirtyTracker::start(*memory, {.method = method});
    EXPECT_TRUE(again.has_value()) << again.error().message();
    ::close(ends[1]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    ::close(ends[0]);
  }
}

TEST(ForkTest, AChildHandlesFaultsAndItsParentStillDoes) {
  auto memory = MappedMemory::create_private(kPageSize);
  const auto unprotect = [](Fault&, void* user) noexcept {
    return static_cast<MappedMemory*>(user)->protect(0, 0, MemoryProtection::ReadWrite) ? FaultAction::Resume
                                                                                        : FaultAction::Pass;
  };
  auto handler = register_sigsegv_handler(memory->bytes(), unprotect, &*memory);
  ASSERT_TRUE(handler.has_value());
  const auto fault = [&] {
    if (!memory->protect(0, 0, MemoryProtection::Read)) std::_Exit(2);
    *static_cast<volatile std::byte*>(memory->data()) = std::byte{1};
  };
  const pid_t child = ::fork();
  if (child == 0) {
    fault();
    *handler = SignalHandler();  // does not wait for threads of the parent
    std::_Exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  fault();
}

TEST(ForkTest, AChildForkedWhileAThreadDrawsTheClocksLineDrawsItsOwn) {
  static std::atomic<std::uint64_t> now;  // of a counter and a reference of one nanosecond each
  now = 1'000'000'000;
  const auto read = []() -> std::uint64_t { return now.fetch_add(10); };
  CounterClock clock({.counter = read, .reference = read});
  ASSERT_EQ(clock.reason(), nullptr);
  std::atomic<std::uint64_t> last = 0;
  const std::jthread drawing([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      now += 200'000'000;  // each reading finds the line used up
      last = clock.slow();
    }
  });
  while (last == 0) std::this_thread::yield();
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t before = last;
    const pid_t child = ::fork();
    if (child == 0) {
      clock.forget_other_threads();
      const std::uint64_t first = clock.slow();
      const auto second = clock.at(now);
      ::_exit(first < before ? 1 : second && *second >= first ? 0 : 2);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0) << "fork " << i;
  }
}

}  // namespace
}  // namespace vm_platform
