// Fault handlers by sigaction, chained with whatever was there before.
#include <pthread.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <utility>
#include <vm_platform/signals.hpp>

#include "os/fault_table.hpp"

namespace vm_platform {
namespace {

struct SignalOfKind {
  FaultKind kind;
  int signal;
  const char* name;
};
constexpr std::array<SignalOfKind, 5> kSignals = {{{FaultKind::Memory, SIGSEGV, "SIGSEGV"},
                                                   {FaultKind::Bus, SIGBUS, "SIGBUS"},
                                                   {FaultKind::Arithmetic, SIGFPE, "SIGFPE"},
                                                   {FaultKind::IllegalInstruction, SIGILL, "SIGILL"},
                                                   {FaultKind::Trap, SIGTRAP, "SIGTRAP"}}};

/// What stood before us, per entry of kSignals. Written under the lock before our handler can run for that signal.
struct Installed {
  bool ours = false;
  struct sigaction previous{};
};
std::array<Installed, kSignals.size()> g_installed;

std::mutex& registration() {
  static std::mutex mutex;
  return mutex;
}

/// How deep this thread is in our handlers. Initial-exec: a dynamic TLS access could allocate, in a signal handler.
thread_local __attribute__((tls_model("initial-exec"))) volatile std::sig_atomic_t t_depth = 0;

std::size_t index_of(int signal) {
  std::size_t index = 0;
  while (index + 1 < kSignals.size() && kSignals[index].signal != signal) ++index;
  return index;
}

bool is_a_handler(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 || (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
}

/// The default action, with the registers of the fault in the core dump: the default is put back, and the signal sent
/// again. It waits until the handler returns, when the mask and the registers of the interrupted code are back. That
/// the instruction would fault again is not enough: behind a breakpoint, or where somebody sent the signal, it does
/// not.
void default_action(int signal, siginfo_t* information) {
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  ::sigaction(signal, &standard, nullptr);
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::syscall(SYS_rt_tgsigqueueinfo, ::getpid(), ::syscall(SYS_gettid), signal, information);
}

void call_previous(int signal, siginfo_t* information, void* context) {
  const std::size_t index = index_of(signal);
  struct sigaction& previous = g_installed[index].previous;
  if (!is_a_handler(previous)) {
    // The kernel never ignores a fault; only a signal that was sent is dropped.
    if (previous.sa_handler == SIG_DFL || information->si_code > 0) default_action(signal, information);
    return;
  }
  // As the kernel would have called it: the same mask, and SA_RESETHAND kept.
  sigset_t mask = previous.sa_mask;
  if ((previous.sa_flags & SA_NODEFER) == 0) ::sigaddset(&mask, signal);
  sigset_t before;
  ::pthread_sigmask(SIG_SETMASK, &static_cast<ucontext_t*>(context)->uc_sigmask, &before);
  ::pthread_sigmask(SIG_BLOCK, &mask, nullptr);
  const struct sigaction handler = previous;
  if ((static_cast<unsigned>(previous.sa_flags) & static_cast<unsigned>(SA_RESETHAND)) != 0) {
    previous.sa_handler = SIG_DFL;
    previous.sa_flags = 0;
  }
  if ((handler.sa_flags & SA_SIGINFO) != 0) {
    handler.sa_sigaction(signal, information, context);
  } else {
    handler.sa_handler(signal);
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void on_signal(int signal, siginfo_t* information, void* context) {
  const int error = errno;
  Fault fault(kSignals[index_of(signal)].kind, information, context);
  // A fault inside a handler is not for the handlers; nor is a signal that somebody sent.
  if (t_depth == 0 && fault.synchronous()) {
    t_depth = 1;
    const FaultAction action = fault_table().dispatch(fault);
    t_depth = 0;
    if (action == FaultAction::Resume) {
      errno = error;
      return;
    }
  }
  const std::sig_atomic_t depth = t_depth;
  t_depth = 0;  // the previous handler may never return here (longjmp)
  errno = error;
  call_previous(signal, information, context);
  errno = error;
  t_depth = depth;  // into the handler that faulted, if it was one
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == on_signal;
}

Result<void> install_for(std::size_t index) {
  Installed& installed = g_installed[index];
  struct sigaction now{};
  if (::sigaction(kSignals[index].signal, nullptr, &now) != 0)
    return fail(VmError::from_os(errno, "sigaction", kSignals[index].name));
  if (is_ours(now)) {
    installed.ours = true;  // also where somebody has put us back after we had gone
    return {};
  }
  // Somebody stands on our shoulders, and is trusted to call us. The default calls nobody.
  if (installed.ours && is_a_handler(now)) return {};
  static const bool prepared = [] {
    (void)fault_table();  // built now: a signal handler must not be the first to ask
    ::pthread_atfork(nullptr, nullptr, [] { fault_table().forget_other_threads(); });
    return true;
  }();
  (void)prepared;
  struct sigaction ours{};
  ours.sa_sigaction = on_signal;
  // Asynchronous signals wait; faults do not, or a fault in a handler would end the process without the previous
  // handler (a crash reporter) having seen it.
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  ::sigfillset(&ours.sa_mask);
  for (const auto& entry : kSignals) ::sigdelset(&ours.sa_mask, entry.signal);
  installed.previous = now;  // known before ours can run
  if (::sigaction(kSignals[index].signal, &ours, nullptr) != 0)
    return fail(VmError::from_os(errno, "sigaction", kSignals[index].name));
  installed.ours = true;
  return {};
}

void remove_for(std::size_t index) {
  Installed& installed = g_installed[index];
  if (!installed.ours) return;
  struct sigaction now{};
  ::sigaction(kSignals[index].signal, nullptr, &now);
  // Somebody stands on our shoulders: they may call us, so we stay, and pass everything on.
  if (!is_ours(now)) return;
  ::sigaction(kSignals[index].signal, &installed.previous, nullptr);
  installed.ours = false;
}

}  // namespace

Result<SignalHandler> SignalHandler::install(const FaultScope& scope, FaultFunction function, void* user) {
  if (function == nullptr || static_cast<unsigned>(scope.kinds) == 0 || scope.address_begin >= scope.address_end ||
      scope.pc_begin >= scope.pc_end)
    return fail(ErrorCode::InvalidArgument, "register fault handler", "", "empty scope, or no function");
  const std::lock_guard lock(registration());
  const int slot = fault_table().add(scope, function, user);
  if (slot < 0) return fail(ErrorCode::Busy, "register fault handler", "", "all 128 places are taken");
  SignalHandler handler;
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    if (!contains(scope.kinds, kSignals[i].kind)) continue;
    if (auto done = install_for(i); !done) {
      fault_table().remove(slot);
      return fail(done.error());
    }
  }
  handler.slot_ = slot;
  return handler;
}

SignalHandler::SignalHandler(SignalHandler&& other) noexcept : slot_(std::exchange(other.slot_, -1)) {}
SignalHandler& SignalHandler::operator=(SignalHandler&& other) noexcept {
  std::swap(slot_, other.slot_);
  return *this;
}
SignalHandler::~SignalHandler() {
  if (slot_ < 0) return;
  const std::lock_guard lock(registration());
  const FaultKind kinds = fault_table().kinds(slot_);
  fault_table().remove(slot_);
  for (std::size_t i = 0; i < kSignals.size(); ++i)
    if (contains(kinds, kSignals[i].kind) && fault_table().count(kSignals[i].kind) == 0) remove_for(i);
}

}  // namespace vm_platform
