// Runtime, SimpleRuntimeController and RuntimeService around a guest that is a C++ function.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "boot/test_images.hpp"
#include "runtime/fake_engine.hpp"

namespace vm_platform {
namespace {

using ::testing::HasSubstr;
using Kind = RuntimeEvent::Kind;
using namespace std::chrono_literals;

class Runtimes : public ::testing::Test {
 protected:
  Runtimes() {
    std::string name = (std::filesystem::temp_directory_path() / "runtime-test-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
    const auto image = boot::test::bz_image();
    std::ofstream(directory_ / "vmlinuz", std::ios::binary)
        .write(reinterpret_cast<const char*>(image.data()), static_cast<std::streamsize>(image.size()));
  }
  ~Runtimes() override { std::filesystem::remove_all(directory_); }

  RuntimeConfig config(unsigned cpus = 1) const {
    return {.boot = {.kernel = (directory_ / "vmlinuz").string()}, .memory_bytes = 64 * kMiB, .cpus = cpus};
  }
  std::shared_ptr<Runtime> make(runtime::test::GuestStep step, unsigned cpus = 1) const {
    auto made = RuntimeTestAccess::create(config(cpus), runtime::test::fake_engine(std::move(step)));
    EXPECT_TRUE(made) << made.error().message();
    return std::move(*made);
  }
  static std::optional<VcpuExit> nothing(unsigned, PortBus&) { return std::nullopt; }

  std::filesystem::path directory_;
};

TEST_F(Runtimes, StatesFollowCommands) {
  std::atomic<std::uint64_t> steps = 0;
  const auto guest = make(
      [&](unsigned, PortBus&) {
        ++steps;
        return std::nullopt;
      },
      2);
  EXPECT_EQ(guest->state(), RuntimeState::Created);
  EXPECT_EQ(guest->boot_status().method, BootMethod::Linux);
  EXPECT_EQ(guest->resume().error().code(), ErrorCode::Status);
  EXPECT_EQ(guest->pause().error().code(), ErrorCode::Status);
  EXPECT_EQ(steps, 0U);
  ASSERT_TRUE(guest->start());
  EXPECT_EQ(guest->state(), RuntimeState::Running);
  EXPECT_FALSE(guest->start());
  while (steps < 10) std::this_thread::yield();
  ASSERT_TRUE(guest->pause());
  const std::uint64_t paused_at = steps;
  std::this_thread::sleep_for(5ms);
  EXPECT_EQ(steps, paused_at) << "a paused guest does not run";
  EXPECT_EQ(guest->state(), RuntimeState::Paused);
  ASSERT_TRUE(guest->resume());
  while (steps < paused_at + 10) std::this_thread::yield();
  ASSERT_TRUE(guest->reset());
  EXPECT_EQ(guest->state(), RuntimeState::Running);
  ASSERT_TRUE(guest->stop());
  EXPECT_TRUE(guest->stop()) << "twice does no harm";
  EXPECT_EQ(guest->state(), RuntimeState::Stopped);
  EXPECT_EQ(guest->reset().error().code(), ErrorCode::Status);
  const RuntimeStats stats = guest->stats();
  EXPECT_EQ(stats.cpus.size(), 2U);
  EXPECT_GT(stats.cpus[1].exits, 0U);
  EXPECT_EQ(stats.resets, 1U);
  EXPECT_EQ(stats.memory_bytes, 64 * kMiB);
  EXPECT_GT(stats.resident_bytes, 0U);
  EXPECT_GT(stats.running_ns, 0U);
}

TEST_F(Runtimes, DebugExitStopsTheGuestWithItsValue) {
  const auto guest = make([](unsigned, PortBus& ports) {
    ports.write(0xf4, 1, 21);
    return std::nullopt;
  });
  SimpleRuntimeController controller(guest);
  ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
  const auto end = controller.wait(10s);
  ASSERT_TRUE(end);
  EXPECT_EQ(end->cause, Kind::DebugExit);
  EXPECT_EQ(end->value, 21U);
  EXPECT_EQ(controller.state(), RuntimeState::Stopped);
}

TEST_F(Runtimes, NothingRunsAfterTheGuestPoweredOff) {
  std::atomic<int> after = 0;
  std::atomic<bool> off = false;
  std::atomic<Runtime*> self = nullptr;
  const auto guest = make([&](unsigned, PortBus&) {
    if (!off.exchange(true))
      RuntimeTestAccess::events(*self).power_off();
    else
      ++after;
    return std::nullopt;
  });
  self = guest.get();
  SimpleRuntimeController controller(guest);
  ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
  EXPECT_EQ(controller.wait().cause, Kind::PowerOff);
  EXPECT_LE(after, 1) << "the step under way may end";
}

TEST_F(Runtimes, TripleFaultComesWithTheState) {
  const auto guest = make([](unsigned, PortBus&) { return VcpuExit{VcpuExit::Kind::TripleFault}; });
  SimpleRuntimeController controller(guest);
  ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
  const auto end = controller.wait();
  EXPECT_EQ(end.cause, Kind::TripleFault);
  EXPECT_EQ(controller.state(), RuntimeState::Failed);
  EXPECT_THAT(end.text, HasSubstr("RIP 0000000001000200"));
  EXPECT_THAT(end.text, HasSubstr("nop")) << "disassembled by way of the guest's page tables";
  EXPECT_THAT(end.text, HasSubstr("-> physical 0x1000200"));
}

TEST_F(Runtimes, AnEngineThatFailsSaysWhy) {
  const auto guest = make(
      [](unsigned cpu, PortBus&) -> std::optional<VcpuExit> {
        if (cpu == 0) return std::nullopt;
        return VcpuExit{VcpuExit::Kind::Failed, "out of code memory"};
      },
      2);
  SimpleRuntimeController controller(guest);
  ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
  const auto end = controller.wait();
  EXPECT_EQ(end.cause, Kind::EngineFailed);
  EXPECT_EQ(end.cpu, 1U);
  EXPECT_EQ(end.text, "out of code memory");
}

TEST_F(Runtimes, ThreeResetsInARowAreALoop) {
  std::atomic<int> boots = 0;
  const auto guest = make([&](unsigned, PortBus& ports) {
    ++boots;
    ports.write(0xcf9, 1, 0x2);
    ports.write(0xcf9, 1, 0x6);
    return std::nullopt;
  });
  std::vector<Kind> events;
  {  // its thread has told everything once it is gone
    SimpleRuntimeController controller(guest);
    controller.subscribe([&](const RuntimeEvent& event) { events.push_back(event.kind); });
    ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
    const auto end = controller.wait();
    EXPECT_EQ(end.cause, Kind::ResetLoop);
    EXPECT_EQ(end.value, 3U);
    EXPECT_EQ(controller.stats().resets, 2U);
    EXPECT_EQ(controller.state(), RuntimeState::Failed);
  }
  EXPECT_EQ(std::ranges::count(events, Kind::ResetRequested), 3);
  EXPECT_EQ(std::ranges::count(events, Kind::Reset), 2);
  EXPECT_EQ(std::ranges::count(events, Kind::ResetLoop), 1);
}

TEST_F(Runtimes, AResetPutsTheKernelBack) {
  std::atomic<int> boots = 0;
  const auto guest = make([&](unsigned, PortBus& ports) -> std::optional<VcpuExit> {
    if (++boots == 1) {
      ports.write(0xcf9, 1, 0x6);
      return std::nullopt;
    }
    return VcpuExit{VcpuExit::Kind::TripleFault};
  });
  SimpleRuntimeController controller(guest);
  ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
  EXPECT_THAT(controller.wait().text, HasSubstr("RIP 0000000001000200"));
}

TEST_F(Runtimes, APanickedGuestMaySpeakForAMoment) {
  std::atomic<bool> panicked = false;
  std::atomic<int> after = 0;
  std::atomic<Runtime*> self = nullptr;
  const auto guest = make([&](unsigned, PortBus&) {
    if (!panicked.exchange(true))
      RuntimeTestAccess::events(*self).guest_panicked(1);
    else
      ++after;
    return std::nullopt;
  });
  self = guest.get();
  SimpleRuntimeController controller(guest);
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
  const auto end = controller.wait();
  EXPECT_EQ(end.cause, Kind::Panic);
  EXPECT_GE(std::chrono::steady_clock::now() - start, SimpleRuntimeController::kPanicGrace);
  EXPECT_GT(after, 1);
}

TEST_F(Runtimes, APanicIsReportedOnceABoot) {
  std::atomic<int> steps = 0;
  const auto guest = make([&](unsigned, PortBus& ports) {
    for (int i = 0; i < 1000; ++i) ports.write(0x505, 1, 2 | (i & 1));
    ++steps;
    return std::nullopt;
  });
  std::vector<std::uint64_t> panics;  // its handler is called under a lock
  guest->set_event_handler([&](const RuntimeEvent& event) {
    if (event.kind == Kind::Panic) panics.push_back(event.value);
  });
  ASSERT_TRUE(guest->start());
  while (steps < 2) std::this_thread::yield();
  ASSERT_TRUE(guest->pause());
  EXPECT_THAT(panics, ::testing::ElementsAre(2, 1));
  ASSERT_TRUE(guest->reset());
  ASSERT_TRUE(guest->resume());
  for (const int before = steps; steps < before + 2;) std::this_thread::yield();
  ASSERT_TRUE(guest->stop());
  EXPECT_THAT(panics, ::testing::ElementsAre(2, 1, 2, 1)) << "a new boot may panic again";
}

TEST_F(Runtimes, APanickedGuestEndsInTimeWhateverElseHappens) {
  constexpr int kEvents = 200;
  std::atomic<bool> panicked = false, ended = false;
  std::atomic<int> told = 0;
  const auto guest = make([&](unsigned, PortBus& ports) {
    if (!panicked.exchange(true)) ports.write(0x505, 1, 1);
    return std::nullopt;
  });
  SimpleRuntimeController controller(guest);
  controller.subscribe([&](const RuntimeEvent&) {
    for (int i = 0; i < 50 && !ended; ++i) std::this_thread::sleep_for(1ms);
    ++told;
  });
  ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
  while (!panicked) std::this_thread::yield();
  for (int i = 0; i < kEvents / 2; ++i) {  // ten seconds of news for the listener
    if (!guest->pause() || !guest->resume()) break;
  }
  const auto end = controller.wait(60s);
  EXPECT_LT(told, kEvents / 2) << "the limit counts, not the end of the queue";
  ended = true;
  ASSERT_TRUE(end);
  EXPECT_EQ(end->cause, Kind::Panic);
}

TEST_F(Runtimes, ACrashKernelIsLeftAlone) {
  std::atomic<int> step = 0;
  std::atomic<Runtime*> self = nullptr;
  const auto guest = make([&](unsigned, PortBus& ports) {
    if (step++ == 0) RuntimeTestAccess::events(*self).guest_panicked(2);
    if (step == 20) ports.write(0xf4, 1, 0);
    return std::nullopt;
  });
  self = guest.get();
  SimpleRuntimeController controller(guest);
  ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
  EXPECT_EQ(controller.wait().cause, Kind::DebugExit);
}

TEST_F(Runtimes, EventsTellEveryStateInOrder) {
  const auto guest = make(nothing);
  std::vector<RuntimeState> states;
  {
    SimpleRuntimeController controller(guest);
    const auto number = controller.subscribe([&](const RuntimeEvent& event) {
      if (event.kind == Kind::StateChanged) states.push_back(event.state);
    });
    for (const RuntimeCommand command : {RuntimeCommand::Start, RuntimeCommand::Pause, RuntimeCommand::Resume,
                                         RuntimeCommand::Nmi, RuntimeCommand::PowerButton, RuntimeCommand::Stop})
      EXPECT_TRUE(controller.execute(command)) << to_string(command);
    EXPECT_EQ(controller.wait().cause, Kind::StateChanged);
    EXPECT_EQ(controller.execute(RuntimeCommand::Start).error().code(), ErrorCode::Status);
    controller.unsubscribe(number);
  }
  using enum RuntimeState;
  EXPECT_THAT(states, ::testing::ElementsAre(Running, Paused, Running, Stopped));
}

TEST_F(Runtimes, CommandsFromManyThreads) {
  const auto guest = make(nothing, 3);
  SimpleRuntimeController controller(guest);
  ASSERT_TRUE(controller.execute(RuntimeCommand::Start));
  std::vector<std::thread> threads;
  std::atomic<int> done = 0;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < 20; ++j) {
        using enum RuntimeCommand;
        constexpr RuntimeCommand kCommands[] = {Pause, Resume, Reset, PowerButton, Nmi};
        if (controller.execute(kCommands[(i * 7 + j * 3) % 5])) ++done;
        static_cast<void>(controller.stats());
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GT(done, 0);
  EXPECT_TRUE(controller.execute(RuntimeCommand::Stop));
}

TEST_F(Runtimes, WhatCannotBeIsRefusedBeforeAnythingRuns) {
  const auto error = [](RuntimeConfig config) {
    auto made = RuntimeTestAccess::create(std::move(config), runtime::test::fake_engine(nothing));
    return made ? "no error" : made.error().message();
  };
  RuntimeConfig bad = config();
  bad.cpus = 0;
  EXPECT_THAT(error(bad), HasSubstr("--cpus"));
  bad = config();
  bad.memory_bytes = std::uint64_t{1} << 50;
  EXPECT_THAT(error(bad), HasSubstr("this host has"));
  bad = config();
  bad.memory_bytes = 8 * kMiB;
  EXPECT_THAT(error(bad), HasSubstr("--memory"));
  bad = config();
  bad.boot.kernel = "/no/such/file";
  EXPECT_THAT(error(bad), HasSubstr("/no/such/file"));
}

TEST_F(Runtimes, NoThreadForACpuIsAnError) {
  if (::getuid() != 0) GTEST_SKIP() << "limits the threads of a user who has none";
  using std::filesystem::perms;
  std::filesystem::permissions(directory_, perms{0755});
  std::filesystem::permissions(directory_ / "vmlinuz", perms{0644});
  const pid_t child = ::fork();
  if (child == 0) {
    constexpr uid_t kUser = 54321;
    const rlimit threads{5, 5};
    if (::setrlimit(RLIMIT_NPROC, &threads) != 0 || ::setuid(kUser) != 0) ::_exit(2);
    const auto made = Runtime::create(config(64));
    if (!made && made.error().code() == ErrorCode::OutOfMemory) ::_exit(0);
    std::fputs((made ? "no error\n" : made.error().message() + "\n").c_str(), stderr);
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(Runtimes, TheServiceKeepsThemByName) {
  RuntimeService service;
  auto first = config();
  first.name = "first";
  ASSERT_TRUE(service.create(first));
  EXPECT_EQ(service.create(first).error().code(), ErrorCode::Busy);
  EXPECT_THAT(service.names(), ::testing::ElementsAre("first"));
  EXPECT_EQ((*service.find("first"))->state(), RuntimeState::Created);
  EXPECT_EQ((*service.runtime("first"))->config().memory_bytes, 64 * kMiB);
  EXPECT_EQ(service.find("second").error().code(), ErrorCode::NotFound);
  EXPECT_TRUE(service.remove("first"));
  EXPECT_EQ(service.remove("first").error().code(), ErrorCode::NotFound);
  EXPECT_TRUE(service.names().empty());
}

}  // namespace
}  // namespace vm_platform
