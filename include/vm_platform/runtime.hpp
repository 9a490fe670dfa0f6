// Runtime: a guest that runs. Its machine, its CPUs' threads, its states; commands to it, events and statistics from
// it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#include <vm_platform/boot.hpp>
#include <vm_platform/core.hpp>
#include <vm_platform/platform.hpp>

namespace vm_platform {

/// Which engine runs the guest's CPUs.
enum class EngineChoice : std::uint8_t {
  Auto,  ///< The best one that is usable here.
  Soft,  ///< The embedded software engine.
};

struct RuntimeConfig {
  std::string name = "vm";
  BootConfig boot;
  std::uint64_t memory_bytes = 512 * kMiB;
  unsigned cpus = 1;
  EngineChoice engine = EngineChoice::Auto;
  HostCpuUse host_cpu = HostCpuUse::All;  ///< Less than all is for tests of what runs on older hosts.
  /// Most memory for translated code, 1 to 48 MiB: with less, a guest that runs much code has it translated again.
  std::uint64_t code_bytes = 48 * kMiB;
  bool five_level_paging = false;  ///< Gives the CPUs 57-bit linear addresses (LA57), which slows a kernel's start.
};

enum class RuntimeState : std::uint8_t {
  Created,  ///< Loaded; nothing has run yet.
  Running,
  Paused,
  Stopped,  ///< For good: powered off, or stopped by command.
  Failed,   ///< For good: triple fault, or the engine could not go on.
};
[[nodiscard]] std::string_view to_string(RuntimeState state) noexcept;

struct RuntimeEvent {
  enum class Kind : std::uint8_t {
    StateChanged,    ///< `state` is the new one.
    PowerOff,        ///< The guest switched itself off (ACPI S5).
    ResetRequested,  ///< The guest asked for a reset.
    Reset,           ///< The machine was reset, by the guest or by command.
    ResetLoop,       ///< The guest asked for `value` resets within 10 s; it was stopped.
    Panic,           ///< pvpanic; `value` is its event byte (bit 0: panicked, bit 1: a crash kernel takes over). Each
                     ///< bit is reported once between two resets.
    DebugExit,       ///< A write of `value` to port F4h.
    TripleFault,     ///< On CPU `cpu`; `text` holds its state for `--debug-dump`.
    EngineFailed,    ///< On CPU `cpu`; `text` says why.
  };
  Kind kind = Kind::StateChanged;
  RuntimeState state = RuntimeState::Created;  ///< At the time of the event.
  unsigned cpu = 0;
  std::uint64_t value = 0;
  std::string text = {};
  std::uint64_t time_ns = 0;  ///< Since the runtime was created.
};
[[nodiscard]] std::string_view to_string(RuntimeEvent::Kind kind) noexcept;

struct RuntimeStats {
  struct Cpu {
    std::uint64_t exits = 0;          ///< From guest code to the engine.
    std::uint64_t port_accesses = 0;  ///< IN, OUT and their string forms.
    std::uint64_t mmio_accesses = 0, interrupts = 0, exceptions = 0, halts = 0;
    std::uint64_t host_ns = 0;  ///< Host CPU time of the CPU's thread.
  };
  RuntimeState state = RuntimeState::Created;
  std::string engine;
  std::uint64_t running_ns = 0;      ///< Wall-clock time in the state Running.
  std::uint64_t memory_bytes = 0;    ///< RAM of the guest.
  std::uint64_t resident_bytes = 0;  ///< What of it takes host memory.
  std::uint64_t resets = 0;
  std::uint64_t translated_blocks = 0, translated_instructions = 0, invalidated_blocks = 0, code_bytes = 0;
  std::uint64_t console_out_bytes = 0, console_in_bytes = 0;  ///< First serial port.
  std::vector<Cpu> cpus;
};

/// One serial port of a guest, from outside. Thread-safe.
class RuntimeSerial {
 public:
  virtual ~RuntimeSerial() = default;
  /// What the guest sends. Called on the guest's threads, one call at a time; while it does not return, the CPU that
  /// waits for the port waits too. Null drops the output. `has_room` says, without blocking, whether `output` would
  /// take 256 bytes without blocking: while it does not, the guest's timers go on without it. An output that never
  /// blocks for long needs none.
  virtual void set_output(std::function<void(std::span<const std::byte>)> output, std::function<bool()> has_room) = 0;
  void set_output(std::function<void(std::span<const std::byte>)> output) { set_output(std::move(output), {}); }
  /// Sends to the guest; returns how many bytes it took. When fewer than given, `set_input_ready`'s function is called
  /// once there is room again.
  virtual std::size_t send(std::span<const std::byte> bytes) = 0;
  virtual void set_input_ready(std::function<void()> ready) = 0;
};

/// A guest: its machine, its engine and a thread for each CPU. What happens in the guest is reported; what to do about
/// it is a controller's decision, so that after a power-off, reset request, debug exit, triple fault or failure the
/// CPUs stand still until somebody commands something. Thread-safe, except that destruction needs to be the last call.
class Runtime {
 public:
  static constexpr unsigned kSerialPorts = 2;

  /// Checks everything, creates the machine and loads the kernel; nothing runs yet. Errors: those of BootManager,
  /// `InvalidArgument` for a memory size or CPU count that cannot be, `Unsupported` for an engine that does not work
  /// here, each with a hint.
  static Result<std::unique_ptr<Runtime>> create(RuntimeConfig config);
  /// Stops the CPUs.
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// Created → Running. Every command that does not fit the state fails with `Status`.
  Result<void> start();
  /// Running → Paused; no CPU runs guest code any more when it returns. Not from an event handler.
  Result<void> pause();
  /// Paused → Running.
  Result<void> resume();
  /// Any but Failed → Stopped; of a guest that has ended, nothing. Not from an event handler.
  Result<void> stop();
  /// Any but Stopped and Failed: machine and CPUs to their power-on state, the kernel loaded again; Running goes on,
  /// also after a reset request. Not from an event handler.
  Result<void> reset();
  Result<void> press_power_button();
  Result<void> inject_nmi();

  /// The guest cannot go on (triple fault, a reset loop): Any → Failed.
  Result<void> fail_guest();

  [[nodiscard]] RuntimeState state() const noexcept;
  [[nodiscard]] RuntimeStats stats() const;
  [[nodiscard]] const RuntimeConfig& config() const noexcept;
  [[nodiscard]] const BootStatus& boot_status() const noexcept;
  /// `index` 0 is COM1, the console; 1 is COM2.
  [[nodiscard]] RuntimeSerial& serial(unsigned index) noexcept;

  /// Called for every event in order, on whatever thread it happens, often a CPU's: must return soon and must not call
  /// back, except `state`. Set before `start`.
  void set_event_handler(std::function<void(const RuntimeEvent&)> handler);

 private:
  friend struct RuntimeTestAccess;
  struct Impl;
  explicit Runtime(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// What a controller can be told to do.
enum class RuntimeCommand : std::uint8_t { Start, Pause, Resume, Stop, Reset, PowerButton, Nmi };
[[nodiscard]] std::string_view to_string(RuntimeCommand command) noexcept;

/// Drives a runtime: takes commands, follows its events, decides what happens after them.
class RuntimeController {
 public:
  /// Why the guest ended.
  struct End {
    RuntimeEvent::Kind cause = RuntimeEvent::Kind::PowerOff;  ///< StateChanged: by command.
    std::uint64_t value = 0;                                  ///< Of the event.
    unsigned cpu = 0;
    std::string text = {};
  };
  using Listener = std::function<void(const RuntimeEvent&)>;

  virtual ~RuntimeController() = default;
  /// Done when it returns. Commands from several threads happen one after another. Not from a listener.
  virtual Result<void> execute(RuntimeCommand command) = 0;
  /// Calls `listener` for each event from now on, on the controller's thread, in order. Returns a number for
  /// `unsubscribe`, after which it is not called any more (not from a listener).
  virtual std::uint64_t subscribe(Listener listener) = 0;
  virtual void unsubscribe(std::uint64_t number) = 0;
  /// Waits until the guest has ended, and says why; nothing after `timeout`.
  virtual std::optional<End> wait(std::chrono::nanoseconds timeout) = 0;
  End wait();
  [[nodiscard]] virtual RuntimeState state() const = 0;
  [[nodiscard]] virtual RuntimeStats stats() const = 0;
};

/// The standard controller: a guest that powers off, writes the debug-exit port, panics or faults for good is stopped;
/// one that asks for a reset gets it, until it has asked three times within ten seconds. A panicked guest may go on for
/// a moment, so that its last words reach the console, or, where it has a crash kernel loaded, for as long as it likes.
class SimpleRuntimeController final : public RuntimeController {
 public:
  static constexpr unsigned kResetLoopCount = 3;
  static constexpr std::chrono::seconds kResetLoopTime{10};
  static constexpr std::chrono::milliseconds kPanicGrace{300};

  explicit SimpleRuntimeController(std::shared_ptr<Runtime> runtime);
  /// Stops the guest.
  ~SimpleRuntimeController() override;

  using RuntimeController::wait;
  Result<void> execute(RuntimeCommand command) override;
  std::uint64_t subscribe(Listener listener) override;
  void unsubscribe(std::uint64_t number) override;
  std::optional<End> wait(std::chrono::nanoseconds timeout) override;
  [[nodiscard]] RuntimeState state() const override;
  [[nodiscard]] RuntimeStats stats() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Hosts runtimes by name, each with a controller. Thread-safe.
class RuntimeService {
 public:
  /// Fails with `Busy` when the name is taken, else as `Runtime::create`.
  Result<std::shared_ptr<RuntimeController>> create(RuntimeConfig config);
  [[nodiscard]] Result<std::shared_ptr<RuntimeController>> find(const std::string& name) const;
  [[nodiscard]] Result<std::shared_ptr<Runtime>> runtime(const std::string& name) const;
  /// Stops it and forgets it.
  Result<void> remove(const std::string& name);
  [[nodiscard]] std::vector<std::string> names() const;

 private:
  struct Entry {
    std::shared_ptr<Runtime> runtime;
    std::shared_ptr<RuntimeController> controller;
  };
  mutable std::mutex mutex_;
  std::map<std::string, Entry> entries_;
};

}  // namespace vm_platform
