// What happens when the host cannot give a page of guest memory that it has promised.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>
#include <vm_platform/core.hpp>
#include <vm_platform/signals.hpp>

#include "guest/guest_memory.hpp"

namespace vm_platform {

/// Guest memory is touched by generated code, by devices and by loaders, on any thread, and each touch may be the first
/// of its page. Where the host then has no page (memory or a limit of its file system is used up) or the page is lost
/// (a failed memory module), the kernel sends SIGBUS. This maps an empty page of the process's own in its place, so
/// that whoever touched it goes on, remembers where it was, and tells the owner, who ends the guest.
class GuestMemoryGuard {
 public:
  /// Called in signal context, on the thread that touched the page: only async-signal-safe work. May come again.
  using Lost = void (*)(void* user) noexcept;

  /// The memory, and what `user` points to, outlive the guard. Fails as SignalHandler::install does.
  static Result<std::unique_ptr<GuestMemoryGuard>> create(const GuestMemory& memory, Lost tell, void* user);

  /// The first page that was lost, if any. Thread-safe.
  [[nodiscard]] std::optional<Gpa> lost() const noexcept;
  /// What to say of it.
  [[nodiscard]] VmError error() const;

 private:
  GuestMemoryGuard(const GuestMemory& memory, Lost tell, void* user) : memory_(memory), tell_(tell), user_(user) {}
  static FaultAction on_fault(Fault& fault, void* user) noexcept;

  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  const GuestMemory& memory_;
  Lost tell_;
  void* user_;
  std::atomic<std::uint64_t> first_ = kNone;
  std::atomic<bool> broken_ = false;  ///< The hardware's fault, not a shortage.
  std::vector<SignalHandler> handlers_;
};

}  // namespace vm_platform
