// One guest in front of the user: its serial ports to where they go, signals, the way out.
#pragma once

#include <optional>
#include <vm_platform/runtime.hpp>

#include "apps/vmp/console/endpoint.hpp"

namespace vm_platform::vmp {

/// How the input of the console is sent.
enum class InputMode : std::uint8_t {
  Raw,        ///< As it is; its end is not told. A terminal is put into raw mode.
  Canonical,  ///< For a guest's terminal in canonical mode: control characters quoted, the end sent as Ctrl-D. With a
              ///< second port, not before the guest has sent the line "vmp-input" there, or asked for the window size.
              ///< A terminal stays as it is.
};

struct SessionOptions {
  InputMode input = InputMode::Raw;
  bool announce = true;  ///< Say how to leave, on stderr, where the input is a terminal.
};

struct SessionOutcome {
  std::optional<RuntimeController::End> end;  ///< Of the guest; nothing when the user or a signal ended it.
  int signal = 0;                             ///< SIGTERM, SIGINT or SIGHUP, if one did.
  Result<void> output = {};                   ///< Fails when the console's output could not be written.
};

/// Blocks, for this process, the signals that a session wants to see as data. Before any thread is started.
void block_session_signals();

/// Starts the guest and stays with it until it ends, the user leaves (Ctrl-]) or a signal comes. The guest is stopped
/// and all output written when it returns; a terminal is as it was.
[[nodiscard]] Result<SessionOutcome> run_session(Runtime& runtime, RuntimeController& controller, Endpoint& console,
                                                 Endpoint& channel, const SessionOptions& options);

}  // namespace vm_platform::vmp
