#include "apps/vmp/console/terminal.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <utility>

namespace vm_platform::vmp {
namespace {

// What the handler of a fatal signal needs, in a form it may touch.
std::atomic<int> g_raw_descriptor{-1};
termios g_before{};

struct FatalSignal {
  int number;
  struct sigaction before = {};  ///< The default action, or a sanitizer's, which has more to say.
};
std::array g_fatal_signals = {FatalSignal{SIGSEGV}, FatalSignal{SIGBUS}, FatalSignal{SIGILL},  FatalSignal{SIGFPE},
                              FatalSignal{SIGABRT}, FatalSignal{SIGSYS}, FatalSignal{SIGTRAP}, FatalSignal{SIGQUIT}};

void restore_and_die(int number) {
  const int descriptor = g_raw_descriptor.exchange(-1);
  if (descriptor >= 0) ::tcsetattr(descriptor, TCSANOW, &g_before);
  for (const FatalSignal& fatal : g_fatal_signals)
    if (fatal.number == number) ::sigaction(number, &fatal.before, nullptr);
  ::raise(number);  // again, for what would have come of it: a core dump where that is configured
}

/// As `tcsetattr`, also from a background process group, which would be stopped otherwise.
void set_attributes(int descriptor, const termios& attributes) {
  sigset_t block, old;
  ::sigemptyset(&block);
  ::sigaddset(&block, SIGTTOU);
  ::pthread_sigmask(SIG_BLOCK, &block, &old);
  while (::tcsetattr(descriptor, TCSANOW, &attributes) != 0 && errno == EINTR) {
  }
  ::pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

termios raw(termios attributes) {
  ::cfmakeraw(&attributes);
  attributes.c_cc[VMIN] = 1;
  attributes.c_cc[VTIME] = 0;
  return attributes;
}

}  // namespace

unsigned reserve_standard_descriptors() {
  unsigned closed = 0;
  for (int descriptor = 0; descriptor <= 2; ++descriptor) {
    if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    closed |= 1U << descriptor;
    // The lowest free number is this one: those below are open by now.
    static_cast<void>(::open("/dev/null", O_RDWR));
  }
  return closed;
}

void catch_fatal_signals() {
  struct sigaction action{};
  action.sa_handler = restore_and_die;
  action.sa_flags = SA_ONSTACK | static_cast<int>(SA_RESETHAND);
  ::sigfillset(&action.sa_mask);
  for (FatalSignal& fatal : g_fatal_signals) {
    ::sigaction(fatal.number, nullptr, &fatal.before);
    ::sigaction(fatal.number, &action, nullptr);
  }
}

Result<RawTerminal> RawTerminal::enter(int descriptor) {
  termios before{};
  if (::tcgetattr(descriptor, &before) != 0) return fail(VmError::from_os(errno, "tcgetattr", "the terminal"));
  RawTerminal terminal(descriptor, before);
  g_before = before;
  g_raw_descriptor = descriptor;
  set_attributes(descriptor, raw(before));
  return terminal;
}

RawTerminal::RawTerminal(RawTerminal&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), before_(other.before_) {}

RawTerminal::~RawTerminal() {
  if (descriptor_ < 0) return;
  leave();
}

void RawTerminal::leave() noexcept {
  g_raw_descriptor = -1;
  set_attributes(descriptor_, before_);
}

void RawTerminal::enter_again() noexcept {
  g_raw_descriptor = descriptor_;
  set_attributes(descriptor_, raw(before_));
}

std::optional<WindowSize> window_size(int descriptor) noexcept {
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) return std::nullopt;
  return WindowSize{size.ws_row, size.ws_col};
}

}  // namespace vm_platform::vmp
