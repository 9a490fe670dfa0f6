// A lock shared by fault handlers and ordinary code.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "os/hold_signals.hpp"

namespace vm_platform {

/// What a fault handler may ask of the host, because it is async-signal-safe there.
namespace fault_host {
/// Sleeps while `word` is `expected` (or wakes for no reason).
void wait(std::atomic<std::uint32_t>& word, std::uint32_t expected) noexcept;
void wake_one(std::atomic<std::uint32_t>& word) noexcept;
/// Makes pages readable and writable.
bool unprotect(std::byte* from, std::uint64_t size) noexcept;
}  // namespace fault_host

/// A mutex that a fault handler may take. Who has to wait sleeps: on a busy machine, spinning takes the CPU away from
/// the one that is waited for. Asynchronous signals are held off while it is taken, so that no handler of one can fault
/// and wait for the very thread it interrupted.
class FaultLock {
 public:
  class Guard {
   public:
    explicit Guard(FaultLock& lock) : lock_(lock) { lock_.lock(); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    ~Guard() { lock_.unlock(); }

   private:
    const HoldSignals held_;
    FaultLock& lock_;
  };

 private:
  enum : std::uint32_t { kFree, kTaken, kAwaited };

  void lock() noexcept {
    std::uint32_t seen = kFree;
    if (state_.compare_exchange_strong(seen, kTaken, std::memory_order_acquire)) return;
    while (state_.exchange(kAwaited, std::memory_order_acquire) != kFree) fault_host::wait(state_, kAwaited);
  }
  void unlock() noexcept {
    if (state_.exchange(kFree, std::memory_order_release) == kAwaited) fault_host::wake_one(state_);
  }

  std::atomic<std::uint32_t> state_ = kFree;
};

}  // namespace vm_platform
