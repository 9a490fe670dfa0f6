// The words for states, events and commands: in messages, JSON and logs.
#include <vm_platform/runtime.hpp>

namespace vm_platform {

std::string_view to_string(RuntimeState state) noexcept {
  switch (state) {
    case RuntimeState::Created: return "created";
    case RuntimeState::Running: return "running";
    case RuntimeState::Paused: return "paused";
    case RuntimeState::Stopped: return "stopped";
    case RuntimeState::Failed: return "failed";
  }
  return "unknown";
}

std::string_view to_string(RuntimeEvent::Kind kind) noexcept {
  switch (kind) {
    case RuntimeEvent::Kind::StateChanged: return "state-changed";
    case RuntimeEvent::Kind::PowerOff: return "power-off";
    case RuntimeEvent::Kind::ResetRequested: return "reset-requested";
    case RuntimeEvent::Kind::Reset: return "reset";
    case RuntimeEvent::Kind::ResetLoop: return "reset-loop";
    case RuntimeEvent::Kind::Panic: return "panic";
    case RuntimeEvent::Kind::DebugExit: return "debug-exit";
    case RuntimeEvent::Kind::TripleFault: return "triple-fault";
    case RuntimeEvent::Kind::EngineFailed: return "engine-failed";
  }
  return "unknown";
}

std::string_view to_string(RuntimeCommand command) noexcept {
  switch (command) {
    case RuntimeCommand::Start: return "start";
    case RuntimeCommand::Pause: return "pause";
    case RuntimeCommand::Resume: return "resume";
    case RuntimeCommand::Stop: return "stop";
    case RuntimeCommand::Reset: return "reset";
    case RuntimeCommand::PowerButton: return "power-button";
    case RuntimeCommand::Nmi: return "nmi";
  }
  return "unknown";
}

}  // namespace vm_platform
