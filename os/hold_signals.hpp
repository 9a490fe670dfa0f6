// Signals that come from elsewhere wait.
#pragma once

#ifndef _WIN32
#include <pthread.h>

#include <csignal>
#endif

namespace vm_platform {

/// While it lives, this thread takes only signals that it raises itself: faults, and what seccomp traps. A thread
/// started meanwhile begins, and stays, like that. Async-signal-safe. Windows has no such signals.
class HoldSignals {
 public:
#ifdef _WIN32
  HoldSignals() {}
  ~HoldSignals() {}
#else
  HoldSignals() {
    sigset_t held;
    ::sigfillset(&held);
    for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS}) ::sigdelset(&held, own);
    ::pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  ~HoldSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
#endif
  HoldSignals(const HoldSignals&) = delete;
  HoldSignals& operator=(const HoldSignals&) = delete;

#ifndef _WIN32
 private:
  sigset_t before_{};
#endif
};

}  // namespace vm_platform
