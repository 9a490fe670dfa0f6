#include <sys/auxv.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <optional>
#include <utility>
#include <vm_platform/memory.hpp>
#include <vm_platform/signals.hpp>

namespace vm_platform {

struct AlternateStack::State {
  MappedMemory memory;
  stack_t previous{};
  State* older = nullptr;  // of this thread

  static thread_local State* newest;
};
thread_local AlternateStack::State* AlternateStack::State::newest = nullptr;

namespace {

/// The register frame alone is several KiB with wide vectors; only the kernel knows.
std::uint64_t frame_size() {
#ifdef AT_MINSIGSTKSZ
  const std::uint64_t told = ::getauxval(AT_MINSIGSTKSZ);
  return std::max<std::uint64_t>(told, 2048);
#else
  return 16 * kKiB;
#endif
}

constexpr std::uint64_t kUsualSize = 16 * kKiB;

}  // namespace

AlternateStack::AlternateStack() noexcept = default;
AlternateStack::AlternateStack(AlternateStack&&) noexcept = default;
AlternateStack& AlternateStack::operator=(AlternateStack&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Result<AlternateStack> AlternateStack::create(std::uint64_t size) {
  auto memory = MappedMemory::create(
      {.size = size + frame_size(), .name = "alternate signal stack", .guard_before = host_page_size()});
  if (!memory) return fail(memory.error());
  AlternateStack stack;
  stack.state_ = std::make_unique<State>();
  stack.state_->memory = std::move(*memory);
  const stack_t wanted{.ss_sp = stack.state_->memory.data(), .ss_flags = 0, .ss_size = stack.state_->memory.size()};
  if (::sigaltstack(&wanted, &stack.state_->previous) != 0) {
    const int error = errno;
    stack.state_.reset();
    return fail(VmError::from_os(error, "sigaltstack", "this thread"));
  }
  stack.state_->older = std::exchange(State::newest, stack.state_.get());
  return stack;
}

AlternateStack::~AlternateStack() {
  if (!state_) return;
  // The one that was there, not none: AddressSanitizer takes its own down at thread exit and wants to find it.
  stack_t previous = state_->previous;
  previous.ss_flags &= SS_DISABLE;
  void* const ours = state_->memory.data();
  // A newer one that would put this one back puts back what this one would have.
  State** at = &State::newest;
  for (; *at != nullptr && *at != state_.get(); at = &(*at)->older)
    if ((*at)->previous.ss_sp == ours) (*at)->previous = previous;
  if (*at != nullptr) *at = state_->older;
  stack_t now{};
  if (::sigaltstack(nullptr, &now) != 0 || now.ss_sp != ours) return;  // not ours to take down
  if (::sigaltstack(&previous, nullptr) != 0) {
    const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
    ::sigaltstack(&none, nullptr);
  }
}

Result<void> ensure_alternate_stack() {
  thread_local std::optional<AlternateStack> own;
  stack_t now{};
  if (::sigaltstack(nullptr, &now) == 0 && (now.ss_flags & SS_DISABLE) == 0 && now.ss_size >= kUsualSize + frame_size())
    return {};
  auto made = AlternateStack::create();
  if (!made) return fail(made.error());
  own = std::move(*made);
  return {};
}

}  // namespace vm_platform
