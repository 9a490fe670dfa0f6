#include "apps/vmp/console/session.hpp"

#include <fmt/core.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>

#include "apps/vmp/console/output_pump.hpp"
#include "apps/vmp/console/serial_input.hpp"
#include "apps/vmp/console/terminal.hpp"

namespace vm_platform::vmp {
namespace {

using std::chrono::milliseconds;

/// What a guest sends on the second port once its terminal is set up for canonical input: what came before would be
/// echoed or lost.
constexpr std::string_view kReadyLine = "vmp-input";

sigset_t session_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP, SIGPIPE}) ::sigaddset(&set, number);
  return set;
}

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  [[nodiscard]] int get() const noexcept { return number_; }

 private:
  int number_;
};

class Session {
 public:
  Session(Runtime& runtime, RuntimeController& controller, Endpoint& console, Endpoint& channel,
          const SessionOptions& options)
      : runtime_(runtime), controller_(controller), console_(console), channel_(channel), options_(options) {}
  ~Session() {
    for (unsigned i = 0; i < Runtime::kSerialPorts; ++i) {
      runtime_.serial(i).set_output({});
      runtime_.serial(i).set_input_ready({});
    }
  }

  Result<SessionOutcome> run();

 private:
  void connect();
  void look_for_ready_line(std::span<const std::byte> bytes);
  void tell_window_size_if_due();
  void stop_guest();
  void drain();
  void wake() const {
    const std::uint64_t one = 1;
    static_cast<void>(!::write(wake_.get(), &one, sizeof one));
  }

  Runtime& runtime_;
  RuntimeController& controller_;
  Endpoint& console_;
  Endpoint& channel_;
  const SessionOptions options_;

  Descriptor wake_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  /// Keys go to the guest one by one; otherwise input comes as from a pipe, also from a terminal.
  const bool keyboard_ =
      options_.input == InputMode::Raw && console_.kind() == ConsoleTarget::Kind::Stdio && ::isatty(STDIN_FILENO) != 0;
  std::optional<RawTerminal> terminal_;
  std::unique_ptr<OutputPump> outputs_[Runtime::kSerialPorts];
  std::optional<SerialInput> inputs_[Runtime::kSerialPorts];
  std::atomic<bool> output_failed_ = false, size_wanted_ = false;
  std::atomic<bool> input_wanted_ = options_.input == InputMode::Raw || channel_.kind() == ConsoleTarget::Kind::None;
  std::string channel_line_;  // of the second port's output, on the thread that brings it
  bool size_known_to_guest_ = false, size_due_ = false, done_ = false, left_ = false;
  SessionOutcome outcome_;
};

void Session::connect() {
  Endpoint* const endpoints[] = {&console_, &channel_};
  for (unsigned i = 0; i < Runtime::kSerialPorts; ++i) {
    RuntimeSerial& port = runtime_.serial(i);
    Endpoint& endpoint = *endpoints[i];
    const bool is_console = i == 0;
    inputs_[i].emplace(port, endpoint.input(), is_console ? options_.input : InputMode::Raw, is_console && keyboard_);
    port.set_input_ready([this] { wake(); });
    if (endpoint.kind() == ConsoleTarget::Kind::WindowSize) {
      port.set_output([this](std::span<const std::byte>) {
        size_wanted_ = input_wanted_ = true;  // a guest that asks has its terminal set up
        wake();
      });
    } else if (endpoint.output() >= 0) {
      outputs_[i] = std::make_unique<OutputPump>(endpoint.output(), endpoint.name(), [this] {
        output_failed_ = true;
        wake();
      });
      OutputPump* const pump = outputs_[i].get();
      port.set_output(
          [this, is_console, pump](std::span<const std::byte> bytes) {
            if (!is_console && !input_wanted_) look_for_ready_line(bytes);
            pump->push(bytes);
          },
          [pump] { return pump->has_room(); });
    }
  }
}

Result<SessionOutcome> Session::run() {
  sigset_t set = session_signals();
  const Descriptor signals(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (signals.get() < 0 || wake_.get() < 0) return fail(VmError::from_os(errno, "signalfd", "session"));
  connect();
  if (keyboard_) {
    if (options_.announce) std::fputs("Press Ctrl-] to leave the guest (it is stopped).\n", stderr);
    auto terminal = RawTerminal::enter(STDIN_FILENO);
    if (!terminal) return fail(terminal.error());
    terminal_.emplace(std::move(*terminal));
  }
  const std::uint64_t subscription = controller_.subscribe([this](const RuntimeEvent&) { wake(); });
  auto started = controller_.execute(RuntimeCommand::Start);
  while (started && !done_) {
    pollfd waits[4] = {{signals.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}, {-1, POLLIN, 0}, {-1, POLLIN, 0}};
    for (unsigned i = 0; i < Runtime::kSerialPorts; ++i) {
      if (inputs_[i]->wants_input() && (i != 0 || input_wanted_)) waits[2 + i].fd = inputs_[i]->descriptor();
    }
    if (::poll(waits, 4, -1) < 0 && errno != EINTR) break;
    if (waits[0].revents != 0) {
      signalfd_siginfo information{};
      while (::read(signals.get(), &information, sizeof information) == static_cast<ssize_t>(sizeof information)) {
        const int number = static_cast<int>(information.ssi_signo);
        if (number == SIGWINCH) {
          size_due_ = size_known_to_guest_;
        } else if (number == SIGTSTP) {
          if (terminal_) terminal_->leave();
          ::raise(SIGSTOP);  // until SIGCONT
          if (terminal_) terminal_->enter_again();
        } else if (number != SIGPIPE) {
          outcome_.signal = number;
          done_ = left_ = true;
        }
      }
    }
    if (waits[1].revents != 0) {
      std::uint64_t count = 0;
      static_cast<void>(!::read(wake_.get(), &count, sizeof count));
      for (auto& input : inputs_) input->push();
      if (size_wanted_.exchange(false)) size_known_to_guest_ = size_due_ = true;
      if (output_failed_) done_ = left_ = true;
      outcome_.end = controller_.wait(std::chrono::nanoseconds(0));
      if (outcome_.end) done_ = true;
    }
    for (unsigned i = 0; i < Runtime::kSerialPorts; ++i) {
      if (waits[2 + i].revents != 0 && !inputs_[i]->read()) done_ = left_ = true;
    }
    tell_window_size_if_due();
  }
  if (left_ || !started) stop_guest();
  controller_.unsubscribe(subscription);
  drain();
  if (!started) return fail(started.error());
  return std::move(outcome_);
}

void Session::look_for_ready_line(std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) {
    const char c = static_cast<char>(byte);
    if (c == '\n' || c == '\r') {
      if (channel_line_ == kReadyLine) {
        input_wanted_ = true;
        wake();
        return;
      }
      channel_line_.clear();
    } else if (channel_line_.size() <= kReadyLine.size()) {
      channel_line_ += c;
    }
  }
}

void Session::tell_window_size_if_due() {
  // A guest that asks and does not read gets one answer when it does, not one for each time.
  if (!size_due_ || !inputs_[1]->idle()) return;
  size_due_ = false;
  const auto size = window_size(keyboard_ ? STDIN_FILENO : STDOUT_FILENO);
  if (size && channel_.kind() == ConsoleTarget::Kind::WindowSize)
    inputs_[1]->send(fmt::format("{} {}\n", size->rows, size->columns));
}

void Session::stop_guest() {
  // A CPU may stand in a `push` that waits for a reader who never comes.
  for (auto& output : outputs_) {
    if (output) output->release();
  }
  static_cast<void>(controller_.execute(RuntimeCommand::Stop));
}

void Session::drain() {
  bool complete = true;
  for (auto& output : outputs_) {
    if (output && !output->drain(milliseconds(1000)) && output->status()) complete = false;
  }
  terminal_.reset();
  // What is still to be said, here or by the caller, may wait for a slow reader: let signals end that as they do.
  sigset_t set = session_signals();
  ::sigdelset(&set, SIGPIPE);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
  if (!complete && !left_) {  // the guest has ended, the reader is slow: wait as any program would
    for (auto& output : outputs_) {
      while (output && !output->drain(milliseconds(60'000)) && output->status()) {
      }
    }
  }
  for (auto& output : outputs_) {
    if (output && !output->status()) outcome_.output = output->status();
  }
}

}  // namespace

void block_session_signals() {
  const sigset_t set = session_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Result<SessionOutcome> run_session(Runtime& runtime, RuntimeController& controller, Endpoint& console,
                                   Endpoint& channel, const SessionOptions& options) {
  return Session(runtime, controller, console, channel, options).run();
}

}  // namespace vm_platform::vmp
