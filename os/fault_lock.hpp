// A lock shared by fault handlers and ordinary code.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#ifndef _WIN32
#include <pthread.h>

#include <csignal>
#endif

namespace vm_platform {

/// Spins, because a fault handler cannot sleep on a mutex. Asynchronous signals are held off while it is taken, so that
/// no handler of one can fault and wait for the very thread it interrupted.
class FaultLock {
 public:
  class Guard {
   public:
    explicit Guard(FaultLock& lock) : lock_(lock) {
#ifndef _WIN32
      sigset_t all;
      ::sigfillset(&all);
      for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) ::sigdelset(&all, fault);
      ::pthread_sigmask(SIG_BLOCK, &all, &before_);
#endif
      while (lock_.taken_.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
    }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    ~Guard() {
      lock_.taken_.clear(std::memory_order_release);
#ifndef _WIN32
      ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
#endif
    }

   private:
    FaultLock& lock_;
#ifndef _WIN32
    sigset_t before_{};
#endif
  };

 private:
  std::atomic_flag taken_;
};

/// Makes pages readable and writable; async-signal-safe.
bool fault_unprotect(std::byte* from, std::uint64_t size) noexcept;

}  // namespace vm_platform
