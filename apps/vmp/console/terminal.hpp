// The terminal vmp was started in: raw while a guest's console is on it, restored whatever happens.
#pragma once

#include <termios.h>

#include <optional>
#include <vm_platform/core.hpp>

namespace vm_platform::vmp {

/// Makes sure that descriptors 0, 1 and 2 are open (/dev/null), so that nothing else gets their numbers. Returns a bit
/// for each that was closed. Call it before anything opens a file.
unsigned reserve_standard_descriptors();

/// From here on a fatal signal of our own (SIGSEGV, SIGABRT …) restores a terminal that is raw before the process dies.
/// Call it before an engine exists: its handlers for faults of generated code stand above these and pass on what is not
/// theirs. What was to happen before (a sanitizer's report, by default the end) happens then.
void catch_fatal_signals();

/// Raw mode (no echo, no line editing, no signals from keys, bytes as they are) for as long as it lives. At most one
/// exists at a time. See catch_fatal_signals.
class RawTerminal {
 public:
  static Result<RawTerminal> enter(int descriptor);
  RawTerminal(RawTerminal&& other) noexcept;
  RawTerminal& operator=(RawTerminal&&) = delete;
  ~RawTerminal();

  /// Around a stop of the process (SIGTSTP).
  void leave() noexcept;
  void enter_again() noexcept;

 private:
  RawTerminal(int descriptor, const termios& before) : descriptor_(descriptor), before_(before) {}
  int descriptor_;
  termios before_;
};

struct WindowSize {
  unsigned rows, columns;
  bool operator==(const WindowSize&) const = default;
};
/// Nothing where it is no terminal, or one that does not know its size.
[[nodiscard]] std::optional<WindowSize> window_size(int descriptor) noexcept;

}  // namespace vm_platform::vmp
