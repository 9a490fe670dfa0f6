#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>
#include <vm_platform/memory.hpp>
#include <vm_platform/signals.hpp>

#include "os/test_code.hpp"

#ifndef _WIN32
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstdio>
#endif

namespace vm_platform {
namespace {

#define ASSERT_OK(result) ASSERT_TRUE((result).has_value()) << (result).error().message()

const std::uint64_t kPage = host_page_size();

/// What a handler saw, and what it should do.
struct Seen {
  int calls = 0;
  FaultKind kind{};
  FaultAccess access{};
  std::uintptr_t address = 0, pc = 0;
  bool known = false;
  std::uintptr_t continue_at = 0;     // not 0: resume there
  MappedMemory* unprotect = nullptr;  // else make this usable
  FaultAction action = FaultAction::Resume;
};

FaultAction record(Fault& fault, void* user) noexcept {
  auto& seen = *static_cast<Seen*>(user);
  ++seen.calls;
  seen.kind = fault.kind();
  seen.access = fault.access();
  seen.address = fault.address();
  seen.known = fault.address_known();
  seen.pc = fault.pc();
  if (seen.continue_at != 0) fault.set_pc(seen.continue_at);
  if (seen.unprotect != nullptr && !seen.unprotect->protect(0, 0, MemoryProtection::ReadWrite))
    return FaultAction::Pass;
  return seen.action;
}

void write_byte(std::byte* where, std::byte value) { *static_cast<volatile std::byte*>(where) = value; }

/// Generated code at [0, 64) that does something wrong, and at [64, …) a return of 77 to continue at.
class BadCode {
 public:
  explicit BadCode(const std::vector<std::byte>& code) : memory_(JitMemory::create(kPageSize)) {
    EXPECT_TRUE(memory_->store(0, code).has_value());
    EXPECT_TRUE(memory_->store(64, test_code::return_value(77)).has_value());
  }
  [[nodiscard]] std::span<const std::byte> range() const { return {memory_->executable(), 64}; }
  [[nodiscard]] std::uintptr_t landing() const { return reinterpret_cast<std::uintptr_t>(memory_->executable() + 64); }
  [[nodiscard]] std::uintptr_t entry() const { return reinterpret_cast<std::uintptr_t>(memory_->executable()); }
  VMP_CALLS_GENERATED_CODE int call(std::uintptr_t argument = 0) const {
    return test_code::as_function<int(std::uintptr_t)>(memory_->executable())(argument);
  }

 private:
  Result<JitMemory> memory_;
};

std::vector<std::byte> illegal() {
#if defined(__x86_64__)
  return test_code::bytes_of({0x0f, 0x0b});  // ud2
#else
  return test_code::words({0});  // udf #0
#endif
}

TEST(SignalsTest, AWriteFaultIsSeenAndResumed) {
  auto memory = MappedMemory::create_private(2 * kPage);
  ASSERT_OK(memory);
  ASSERT_OK(memory->protect(0, 0, MemoryProtection::Read));
  Seen seen{.unprotect = &*memory};
  auto handler = register_sigsegv_handler(memory->bytes(), record, &seen);
  ASSERT_OK(handler);
  write_byte(memory->data() + kPage + 17, std::byte{5});
  EXPECT_EQ(memory->data()[kPage + 17], std::byte{5});
  EXPECT_EQ(seen.calls, 1);
  EXPECT_EQ(seen.kind, FaultKind::Memory);
  EXPECT_EQ(seen.access, FaultAccess::Write);
  EXPECT_EQ(seen.address, reinterpret_cast<std::uintptr_t>(memory->data()) + kPage + 17);
  EXPECT_TRUE(seen.known);
}

TEST(SignalsTest, AReadFaultInGeneratedCodeContinuesElsewhere) {
  auto memory = MappedMemory::create({.size = kPage, .protection = MemoryProtection::None});
  ASSERT_OK(memory);
  const BadCode code(test_code::load_from_argument());
  Seen seen{.continue_at = code.landing()};
  auto handler = SignalHandler::install(FaultScope::caused_by(code.range(), FaultKind::Memory), record, &seen);
  ASSERT_OK(handler);
  EXPECT_EQ(code.call(reinterpret_cast<std::uintptr_t>(memory->data()) + 4), 77);
  EXPECT_EQ(seen.access, FaultAccess::Read);
  EXPECT_EQ(seen.pc, code.entry());
  EXPECT_EQ(seen.address, reinterpret_cast<std::uintptr_t>(memory->data()) + 4);
#if defined(__x86_64__)
  EXPECT_EQ(code.call(0xdead'0000'0000'0000), 77) << "a non-canonical address is a fault of its own kind";
#ifdef __linux__
  EXPECT_FALSE(seen.known);
#endif
#endif
}

TEST(SignalsTest, RegistersCanBeReadAndChanged) {
  auto memory = MappedMemory::create_private(kPage);
  ASSERT_OK(memory);
  const std::uint32_t value = 123456;
  std::memcpy(memory->data() + 8, &value, sizeof value);
  const BadCode code(test_code::load_from_argument());
#if defined(_WIN32)
  constexpr unsigned kArgument = 1;
#elif defined(__x86_64__)
  constexpr unsigned kArgument = 7;
#else
  constexpr unsigned kArgument = 0;
#endif
  static std::byte* good;
  good = memory->data() + 8;
  const auto redirect = [](Fault& fault, void* user) noexcept {
    *static_cast<std::uint64_t*>(user) = fault.general(kArgument);
    if (fault.sp() == 0 || fault.flags() == 0 || fault.general(99) != 0) return FaultAction::Pass;
    fault.set_general(kArgument, reinterpret_cast<std::uintptr_t>(good));
    return FaultAction::Resume;  // the same instruction again, with a good address
  };
  std::uint64_t argument = 0;
  auto handler = SignalHandler::install(FaultScope::caused_by(code.range(), FaultKind::Memory), redirect, &argument);
  ASSERT_OK(handler);
  EXPECT_EQ(code.call(0x18), 123456);
  EXPECT_EQ(argument, 0x18u);
}

TEST(SignalsTest, IllegalInstructions) {
  const BadCode code(illegal());
  Seen seen{.continue_at = code.landing()};
  auto handler =
      SignalHandler::install(FaultScope::caused_by(code.range(), FaultKind::IllegalInstruction), record, &seen);
  ASSERT_OK(handler);
  EXPECT_EQ(code.call(), 77);
  EXPECT_EQ(seen.kind, FaultKind::IllegalInstruction);
  EXPECT_EQ(seen.pc, code.entry());
}

#if defined(__x86_64__)
TEST(SignalsTest, DivisionByZero) {
  const BadCode code(test_code::bytes_of({0x31, 0xc9, 0xf7, 0xf1, 0xc3}));  // xor ecx, ecx; div ecx; ret
  Seen seen{.continue_at = code.landing()};
  auto handler = SignalHandler::install(FaultScope::caused_by(code.range(), FaultKind::Arithmetic), record, &seen);
  ASSERT_OK(handler);
  EXPECT_EQ(code.call(), 77);
  EXPECT_EQ(seen.kind, FaultKind::Arithmetic);
  EXPECT_EQ(seen.pc, code.entry() + 2);
}

TEST(SignalsTest, Breakpoints) {
  const BadCode code(test_code::bytes_of({0xcc, 0xc3}));  // int3
  Seen seen{.continue_at = code.landing()};
  auto handler = SignalHandler::install(FaultScope::caused_by(code.range(), FaultKind::Trap), record, &seen);
  ASSERT_OK(handler);
  EXPECT_EQ(code.call(), 77);
  EXPECT_EQ(seen.kind, FaultKind::Trap);
  EXPECT_TRUE(seen.known);
  EXPECT_EQ(seen.address, code.entry()) << "the breakpoint's own, wherever the program counter is";
}

TEST(SignalsTest, ABreakpointAtTheEndOfItsRange) {
  const BadCode code(test_code::bytes_of({0xcc, 0xc3}));  // int3
  const auto breakpoint = code.range().first(1);
  for (const FaultScope& scope : {FaultScope::touching(breakpoint, FaultKind::Trap),  //
                                  FaultScope::caused_by(breakpoint, FaultKind::Trap)}) {
    Seen seen{.continue_at = code.landing()}, behind{.action = FaultAction::Pass};
    auto handler = SignalHandler::install(scope, record, &seen);
    ASSERT_OK(handler);
    auto other =
        SignalHandler::install(FaultScope::touching(code.range().subspan(1), FaultKind::Trap), record, &behind);
    ASSERT_OK(other);
    EXPECT_EQ(code.call(), 77);
    EXPECT_EQ(seen.calls, 1);
    EXPECT_EQ(behind.calls, 0);
  }
}
#endif

TEST(SignalsTest, ExecutingDataIsAnExecuteFault) {
  auto memory = MappedMemory::create_private(kPage);
  ASSERT_OK(memory);
  const auto code = test_code::return_value(1);
  std::memcpy(memory->data(), code.data(), code.size());
  const BadCode landing(illegal());
  Seen seen{.continue_at = landing.landing()};
  auto handler = register_sigsegv_handler(memory->bytes(), record, &seen);
  ASSERT_OK(handler);
  EXPECT_EQ(test_code::call(memory->data()), 77);
  EXPECT_EQ(seen.access, FaultAccess::Execute);
  EXPECT_EQ(seen.pc, reinterpret_cast<std::uintptr_t>(memory->data()));
}

TEST(SignalsTest, EachRangeHasItsOwnHandlerAndTheLatestIsAskedFirst) {
  auto memory = MappedMemory::create_private(2 * kPage);
  ASSERT_OK(memory);
  ASSERT_OK(memory->protect(0, 0, MemoryProtection::Read));
  Seen low{.unprotect = &*memory}, high{.unprotect = &*memory}, both{.action = FaultAction::Pass};
  auto first = register_sigsegv_handler(memory->bytes().first(kPage), record, &low);
  auto second = register_sigsegv_handler(memory->bytes().subspan(kPage), record, &high);
  auto third = register_sigsegv_handler(memory->bytes(), record, &both);
  ASSERT_TRUE(first && second && third);
  write_byte(memory->data() + kPage, std::byte{1});
  EXPECT_EQ(low.calls, 0);
  EXPECT_EQ(high.calls, 1);
  EXPECT_EQ(both.calls, 1) << "asked first, passed it on";
  ASSERT_OK(memory->protect(0, 0, MemoryProtection::Read));
  *third = SignalHandler();
  write_byte(memory->data() + kPage - 1, std::byte{1});
  EXPECT_EQ(low.calls, 1);
  EXPECT_EQ(both.calls, 1);
}

TEST(SignalsTest, WhatNobodyTakesEndsTheProcess) {
  auto memory = MappedMemory::create({.size = kPage, .protection = MemoryProtection::None});
  ASSERT_OK(memory);
  auto elsewhere = MappedMemory::create_private(kPage);
  Seen seen;
  auto handler = register_sigsegv_handler(elsewhere->bytes(), record, &seen);
  ASSERT_OK(handler);
  EXPECT_DEATH(write_byte(memory->data(), std::byte{1}), "");
}

TEST(SignalsTest, BadRegistrationsAreRefused) {
  EXPECT_FALSE(SignalHandler::install({}, nullptr, nullptr).has_value());
  EXPECT_FALSE(register_sigsegv_handler({}, record, nullptr).has_value());
  std::vector<SignalHandler> many;
  for (;;) {
    auto handler = SignalHandler::install({}, record, nullptr);
    if (!handler) {
      EXPECT_EQ(handler.error().code(), ErrorCode::Busy);
      break;
    }
    many.push_back(std::move(*handler));
  }
  EXPECT_GE(many.size(), 100u);
}

TEST(SignalsTest, RegisteringWhileThreadsFault) {
  std::atomic<bool> stop = false;
  std::atomic<int> faults = 0, wrong = 0;
  const auto faulting = [&] {
    if (!ensure_alternate_stack()) ++wrong;
    auto memory = MappedMemory::create_private(kPage);
    while (!stop) {
      Seen seen{.unprotect = &*memory};
      if (!memory->protect(0, 0, MemoryProtection::Read)) ++wrong;
      auto handler = register_sigsegv_handler(memory->bytes(), record, &seen);
      if (!handler) {
        ++wrong;
        return;
      }
      write_byte(memory->data(), std::byte{1});
      if (seen.calls != 1) ++wrong;
      ++faults;
    }
  };
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(faulting);
  while (faults < 2000 && wrong == 0) std::this_thread::yield();
  stop = true;
  threads.clear();
  EXPECT_EQ(wrong, 0);
}

#ifndef _WIN32

TEST(SignalsTest, AFileThatShrankIsABusFault) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  const int descriptor = ::fileno(file);
  ASSERT_EQ(::ftruncate(descriptor, static_cast<off_t>(2 * kPage)), 0);
  auto memory = MappedMemory::from_descriptor(descriptor, {.access = FileAccess::Shared});
  ASSERT_OK(memory);
  ASSERT_EQ(::ftruncate(descriptor, static_cast<off_t>(kPage)), 0);
  const BadCode code(test_code::load_from_argument());
  Seen seen{.continue_at = code.landing()};
  auto handler = SignalHandler::install(FaultScope::touching(memory->bytes(), FaultKind::Bus), record, &seen);
  ASSERT_OK(handler);
  EXPECT_EQ(code.call(reinterpret_cast<std::uintptr_t>(memory->data()) + kPage), 77);
  EXPECT_EQ(seen.kind, FaultKind::Bus);
  EXPECT_EQ(seen.address, reinterpret_cast<std::uintptr_t>(memory->data()) + kPage);
  EXPECT_EQ(seen.access, FaultAccess::Read);
  EXPECT_TRUE(seen.known);
  std::fclose(file);
}

#if defined(__x86_64__)
TEST(SignalsTest, ABusFaultWithoutAnAddress) {
  // push rbp; mov rbp, rdi; mov eax, [rbp]; by way of rbp or rsp, a non-canonical address is a stack fault.
  const BadCode code(test_code::bytes_of({0x55, 0x48, 0x89, 0xfd, 0x8b, 0x45, 0x00, 0xc3}));
  const BadCode landing(test_code::bytes_of({0x5d, 0xb8, 77, 0, 0, 0, 0xc3}));  // pop rbp; mov eax, 77; ret
  Seen seen{.continue_at = landing.entry()}, low{.action = FaultAction::Pass};
  auto handler =
      SignalHandler::install(FaultScope::caused_by(code.range(), FaultKind::Bus | FaultKind::Memory), record, &seen);
  ASSERT_OK(handler);
  auto other =
      SignalHandler::install({.kinds = FaultKind::Bus, .address_begin = 0, .address_end = kPage}, record, &low);
  ASSERT_OK(other);
  EXPECT_EQ(code.call(0x8000'0000'0000'0000), 77);
  EXPECT_FALSE(seen.known);
  EXPECT_EQ(low.calls, 0) << "its address is not 0";
  if (seen.kind == FaultKind::Memory) GTEST_SKIP() << "this CPU, an emulated one, knows no stack faults of this kind";
  EXPECT_EQ(seen.kind, FaultKind::Bus);
}
#endif

struct sigaction current_action(int signal) {
  struct sigaction action{};
  ::sigaction(signal, nullptr, &action);
  return action;
}

TEST(SignalsTest, UnregisteringPutsBackWhatWasThere) {
  const struct sigaction before = current_action(SIGBUS);
  {
    Seen seen;
    auto handler = SignalHandler::install({.kinds = FaultKind::Bus}, record, &seen);
    ASSERT_OK(handler);
    EXPECT_NE(current_action(SIGBUS).sa_sigaction, before.sa_sigaction);
    auto second = SignalHandler::install({.kinds = FaultKind::Bus}, record, &seen);
    ASSERT_OK(second);
  }
  EXPECT_EQ(current_action(SIGBUS).sa_sigaction, before.sa_sigaction);
  constexpr int kRestorer = 0x04000000;  // the C library's own business
  EXPECT_EQ(current_action(SIGBUS).sa_flags & ~kRestorer, before.sa_flags & ~kRestorer);
}

sigjmp_buf g_escape;
volatile int g_previous_calls = 0;
volatile std::uintptr_t g_previous_address = 0;

void previous_handler(int, siginfo_t* information, void*) {
  g_previous_calls = g_previous_calls + 1;
  g_previous_address = reinterpret_cast<std::uintptr_t>(information->si_addr);
  siglongjmp(g_escape, 1);
}

/// Somebody else's handler, there before ours.
class PreviousHandler {
 public:
  PreviousHandler() {
    struct sigaction action{};
    action.sa_sigaction = previous_handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGSEGV, &action, &before_);
    g_previous_calls = 0;
  }
  PreviousHandler(const PreviousHandler&) = delete;
  PreviousHandler& operator=(const PreviousHandler&) = delete;
  ~PreviousHandler() { ::sigaction(SIGSEGV, &before_, nullptr); }

 private:
  struct sigaction before_{};
};

TEST(SignalsChainTest, FaultsOutsideAnyRangeGoToThePreviousHandler) {
  const PreviousHandler previous;
  auto memory = MappedMemory::create({.size = 2 * kPage, .protection = MemoryProtection::None});
  ASSERT_OK(memory);
  Seen seen;
  auto handler = register_sigsegv_handler(memory->bytes().first(kPage), record, &seen);
  ASSERT_OK(handler);
  for (int round = 1; round <= 3; ++round) {  // leaving by longjmp each time must not wear anything out
    if (sigsetjmp(g_escape, 1) == 0) write_byte(memory->data() + kPage, std::byte{1});
    EXPECT_EQ(g_previous_calls, round);
  }
  EXPECT_EQ(g_previous_address, reinterpret_cast<std::uintptr_t>(memory->data()) + kPage);
  EXPECT_EQ(seen.calls, 0);
  seen.unprotect = &*memory;
  write_byte(memory->data(), std::byte{1});
  EXPECT_EQ(seen.calls, 1) << "and ours still works";
}

TEST(SignalsChainTest, AFaultInsideAHandlerGoesToThePreviousHandler) {
#if VMP_TEST_TSAN
  GTEST_SKIP() << "ThreadSanitizer blocks every signal while a handler runs";
#endif
  // In a process of its own: a handler left by longjmp can never be unregistered.
  const auto nested = [] {
    const PreviousHandler previous;
    auto memory = MappedMemory::create({.size = 2 * kPage, .protection = MemoryProtection::None});
    const auto faulty = [](Fault&, void* user) noexcept {
      write_byte(static_cast<std::byte*>(user), std::byte{1});
      return FaultAction::Resume;
    };
    auto handler = register_sigsegv_handler(memory->bytes(), faulty, memory->data() + kPage);
    if (!handler) std::_Exit(2);
    if (sigsetjmp(g_escape, 1) == 0) write_byte(memory->data(), std::byte{1});
    const bool right =
        g_previous_calls == 1 && g_previous_address == reinterpret_cast<std::uintptr_t>(memory->data()) + kPage;
    std::_Exit(right ? 0 : 1);
  };
  EXPECT_EXIT(nested(), testing::ExitedWithCode(0), "");
}

TEST(SignalsChainTest, EveryFaultInsideAHandlerGoesToThePreviousHandler) {
#if VMP_TEST_TSAN
  GTEST_SKIP() << "ThreadSanitizer blocks every signal while a handler runs";
#endif
  // One that repairs and returns, so that the handler goes on, into its next fault.
  struct Work {
    MappedMemory memory;
    int calls = 0, repairs = 0;
  };
  static Work* work;
  const auto nested = [] {
    auto memory = MappedMemory::create({.size = 3 * kPage, .protection = MemoryProtection::None});
    Work here{.memory = std::move(*memory)};
    work = &here;
    struct sigaction repairing{};
    repairing.sa_flags = SA_SIGINFO | SA_ONSTACK;
    repairing.sa_sigaction = [](int, siginfo_t* information, void*) {
      ++work->repairs;
      const auto at = reinterpret_cast<std::uintptr_t>(information->si_addr);
      const auto page = round_down(at - reinterpret_cast<std::uintptr_t>(work->memory.data()), kPage);
      if (!work->memory.protect(page, kPage, MemoryProtection::ReadWrite)) std::_Exit(3);
    };
    ::sigaction(SIGSEGV, &repairing, nullptr);
    const auto faulty = [](Fault&, void*) noexcept {
      ++work->calls;
      write_byte(work->memory.data() + kPage, std::byte{1});
      write_byte(work->memory.data() + 2 * kPage, std::byte{1});
      return work->memory.protect(0, kPage, MemoryProtection::ReadWrite) ? FaultAction::Resume : FaultAction::Pass;
    };
    auto handler = register_sigsegv_handler(here.memory.bytes(), faulty, nullptr);
    if (!handler) std::_Exit(2);
    write_byte(here.memory.data(), std::byte{1});
    std::_Exit(here.calls == 1 && here.repairs == 2 ? 0 : 1);
  };
  EXPECT_EXIT(nested(), testing::ExitedWithCode(0), "");
}

TEST(SignalsChainTest, ADefaultActionPutOverOursIsReplaced) {
  for (const auto over : {SIG_DFL, SIG_IGN}) {
    const auto again = [over] {
      auto memory = MappedMemory::create_private(kPage);
      Seen seen{.unprotect = &*memory};
      {
        auto first = register_sigsegv_handler(memory->bytes(), record, &seen);
        ::signal(SIGSEGV, over);
      }
      if (current_action(SIGSEGV).sa_handler != over) std::_Exit(2);
      {
        auto second = register_sigsegv_handler(memory->bytes(), record, &seen);
        if (!second || !memory->protect(0, 0, MemoryProtection::Read)) std::_Exit(3);
        write_byte(memory->data(), std::byte{1});
      }
      std::_Exit(seen.calls == 1 && current_action(SIGSEGV).sa_handler == over ? 0 : 1);
    };
    EXPECT_EXIT(again(), testing::ExitedWithCode(0), "");
  }
}

TEST(SignalsChainTest, SomebodyOnTopOfUsStays) {
  auto memory = MappedMemory::create_private(kPage);
  ASSERT_OK(memory);
  Seen seen{.unprotect = &*memory};
  auto handler = register_sigsegv_handler(memory->bytes(), record, &seen);
  ASSERT_OK(handler);
  static struct sigaction ours;
  static volatile int on_top;
  on_top = 0;
  struct sigaction theirs{};
  theirs.sa_flags = SA_SIGINFO | SA_ONSTACK;
  theirs.sa_sigaction = [](int signal, siginfo_t* information, void* context) {
    on_top = on_top + 1;
    ours.sa_sigaction(signal, information, context);
  };
  ::sigaction(SIGSEGV, &theirs, &ours);
  ASSERT_OK(memory->protect(0, 0, MemoryProtection::Read));
  write_byte(memory->data(), std::byte{1});
  EXPECT_EQ(on_top, 1);
  EXPECT_EQ(seen.calls, 1);
  *handler = SignalHandler();
  EXPECT_EQ(current_action(SIGSEGV).sa_sigaction, theirs.sa_sigaction) << "not torn down under them";
  ::sigaction(SIGSEGV, &ours, nullptr);
  {
    auto again = register_sigsegv_handler(memory->bytes(), record, &seen);
  }
  EXPECT_NE(current_action(SIGSEGV).sa_sigaction, ours.sa_sigaction) << "free to leave now";
}

TEST(SignalsChainTest, DefaultActionIsTheSignalItself) {
#if VMP_TEST_ASAN || VMP_TEST_TSAN
  GTEST_SKIP() << "sanitizers report and exit instead";
#endif
  auto memory = MappedMemory::create({.size = kPage, .protection = MemoryProtection::None});
  Seen seen;
  const auto with_handler = [&](auto&& act) {
    for (const int signal : {SIGSEGV, SIGTRAP}) ::signal(signal, SIG_DFL);
    auto elsewhere = MappedMemory::create_private(kPage);
    auto handler = SignalHandler::install(FaultScope::touching(elsewhere->bytes(), FaultKind::Memory | FaultKind::Trap),
                                          record, &seen);
    act();
    std::_Exit(0);
  };
  EXPECT_EXIT(with_handler([&] { write_byte(memory->data(), std::byte{1}); }), testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(with_handler([] { ::raise(SIGSEGV); }), testing::KilledBySignal(SIGSEGV), "");
  EXPECT_EXIT(with_handler([] { ::raise(SIGTRAP); }), testing::KilledBySignal(SIGTRAP), "");
#if defined(__x86_64__)
  // After these the thread would go on behind the instruction.
  EXPECT_EXIT(with_handler([] { __asm__ __volatile__("int3"); }), testing::KilledBySignal(SIGTRAP), "");
  EXPECT_EXIT(with_handler([] { __asm__ __volatile__("int $4"); }), testing::KilledBySignal(SIGSEGV), "");
#endif
}
#endif

}  // namespace
}  // namespace vm_platform
