// The alternate signal stack, on hosts that have one.
#include <gtest/gtest.h>

#include <csignal>
#include <thread>
#include <vm_platform/memory.hpp>
#include <vm_platform/signals.hpp>

#include "os/test_code.hpp"

namespace vm_platform {
namespace {

#define ASSERT_OK(result) ASSERT_TRUE((result).has_value()) << (result).error().message()

const std::uint64_t kPage = host_page_size();

TEST(AlternateStackTest, HandlersRunOnItAndThePreviousOneComesBack) {
  std::jthread([] {
    stack_t before{}, during{}, after{};
    ::sigaltstack(nullptr, &before);
    {
      auto stack = AlternateStack::create();
      ASSERT_OK(stack);
      ::sigaltstack(nullptr, &during);
      auto memory = MappedMemory::create_private(kPage);
      ASSERT_OK(memory->protect(0, 0, MemoryProtection::Read));
      struct Where {
        std::uintptr_t stack;
        MappedMemory* memory;
      } where{0, &*memory};
      const auto locate = [](Fault&, void* user) noexcept {
        volatile int local = 0;
        static_cast<Where*>(user)->stack = reinterpret_cast<std::uintptr_t>(&local);
        (void)static_cast<Where*>(user)->memory->protect(0, 0, MemoryProtection::ReadWrite);
        return FaultAction::Resume;
      };
      auto handler = SignalHandler::install(FaultScope::touching(memory->bytes()), locate, &where);
      ASSERT_OK(handler);
      *static_cast<volatile std::byte*>(memory->data()) = std::byte{1};
      const auto bottom = reinterpret_cast<std::uintptr_t>(during.ss_sp);
#if !VMP_TEST_ASAN  // there, locals may live on a fake stack
      EXPECT_GE(where.stack, bottom);
      EXPECT_LT(where.stack, bottom + during.ss_size);
#endif
      EXPECT_NE(bottom, 0u);
    }
    ::sigaltstack(nullptr, &after);
    EXPECT_EQ(after.ss_sp, before.ss_sp);
    EXPECT_EQ(after.ss_flags, before.ss_flags);
  }).join();
}

TEST(AlternateStackTest, EnsureMakesOneOnce) {
  std::jthread([] {
    ASSERT_TRUE(ensure_alternate_stack().has_value());
    stack_t first{}, second{};
    ::sigaltstack(nullptr, &first);
    ASSERT_TRUE(ensure_alternate_stack().has_value());
    ::sigaltstack(nullptr, &second);
    EXPECT_EQ(first.ss_sp, second.ss_sp);
    EXPECT_EQ(first.ss_flags & SS_DISABLE, 0);
  }).join();
}

/// This thread's alternate stack; null where it has none.
void* current_stack() {
  stack_t now{};
  ::sigaltstack(nullptr, &now);
  return (now.ss_flags & SS_DISABLE) == 0 ? now.ss_sp : nullptr;
}

TEST(AlternateStackTest, EnsureMakesAnotherWhereSomebodyTookItDown) {
  std::jthread([] {
    for (int round = 0; round < 3; ++round) {
      ASSERT_TRUE(ensure_alternate_stack().has_value());
      EXPECT_NE(current_stack(), nullptr) << round;
      const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
      ::sigaltstack(&none, nullptr);
    }
  }).join();
}

TEST(AlternateStackTest, OnesGivenUpInAnyOrderLeaveTheRightOne) {
  std::jthread([] {
    void* const before = current_stack();
    {
      auto first = AlternateStack::create();
      ASSERT_OK(first);
      auto second = AlternateStack::create(128 * kKiB);
      ASSERT_OK(second);
      void* const wanted = current_stack();
      *first = std::move(*second);
      second = AlternateStack::create();  // and what `first` was is gone
      ASSERT_OK(second);
      EXPECT_NE(current_stack(), wanted);
      {
        const AlternateStack gone = std::move(*second);
      }
      EXPECT_EQ(current_stack(), wanted);
    }
    EXPECT_EQ(current_stack(), before);
    {
      auto older = AlternateStack::create();
      ASSERT_OK(older);
      const auto newer = AlternateStack::create();
      ASSERT_OK(newer);
      void* const wanted = current_stack();
      {
        const AlternateStack gone = std::move(*older);
      }
      EXPECT_EQ(current_stack(), wanted) << "not the older one's to take down";
    }
    EXPECT_EQ(current_stack(), before) << "the newer one does not put back what is gone";
  }).join();
}
}  // namespace
}  // namespace vm_platform
