// What a Runtime is made of. Tests reach it to bring an engine of their own.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <optional>
#include <vm_platform/boot.hpp>
#include <vm_platform/runtime.hpp>

#include "engine/engine.hpp"
#include "machine/pc.hpp"
#include "runtime/cpu_threads.hpp"
#include "runtime/serial_link.hpp"

namespace vm_platform {

using EngineFactory = std::function<Result<std::unique_ptr<Engine>>(const EngineEnvironment&, const EngineOptions&)>;

/// Locks: `command_mutex_` makes commands happen one after another; `state_mutex_` orders state changes and events. A
/// vCPU's thread may come with a device's lock in hand and takes only `state_mutex_`; so nothing calls the machine
/// while that is held.
struct Runtime::Impl final : PcEvents {
  static Result<std::unique_ptr<Runtime>> create(RuntimeConfig config, const EngineFactory& make_engine);
  ~Impl() override;

  Result<void> start();
  Result<void> pause();
  Result<void> resume();
  Result<void> stop(RuntimeState end);
  Result<void> reset();
  Result<void> press_power_button() const;
  Result<void> inject_nmi() const;
  RuntimeStats stats() const;

  void power_off() override;
  void reset_requested() override;
  void debug_exit(std::uint8_t value) override;
  void guest_panicked(std::uint8_t pvpanic_event) override;

  /// Puts the kernel into memory and the CPUs to where they begin.
  Result<void> load();
  void cpu_exited(unsigned cpu, const VcpuExit& exit, const CpuState& state);
  void report(RuntimeEvent::Kind kind, std::uint64_t value = 0, unsigned cpu = 0, std::string text = {});
  /// A report after which no CPU goes on by itself.
  void halt_and_report(RuntimeEvent::Kind kind, std::uint64_t value = 0);
  void change_state(RuntimeState to);
  Result<void> require(std::initializer_list<RuntimeState> allowed, const char* operation) const;
  void flush_serial();

  using Clock = std::chrono::steady_clock;
  RuntimeConfig config_;
  std::unique_ptr<SimpleBootManager> boot_;
  std::unique_ptr<Pc> pc_;
  std::unique_ptr<Engine> engine_;
  std::optional<runtime::CpuThreads> cpus_;
  std::vector<CpuState> reset_states_;
  std::vector<std::unique_ptr<runtime::SerialLink>> serial_;

  std::mutex command_mutex_;
  mutable std::mutex state_mutex_;
  std::atomic<RuntimeState> state_ = RuntimeState::Created;
  std::function<void(const RuntimeEvent&)> on_event_;
  std::uint64_t running_ns_ = 0;     // under state_mutex_
  Clock::time_point running_since_;  // under state_mutex_
  std::atomic<std::uint64_t> resets_ = 0;
  std::atomic<std::uint8_t> panics_reported_ = 0;  // bits of pvpanic events, since the machine was reset
  const Clock::time_point created_ = Clock::now();
};

struct RuntimeTestAccess {
  static Result<std::unique_ptr<Runtime>> create(RuntimeConfig config, const EngineFactory& make_engine) {
    return Runtime::Impl::create(std::move(config), make_engine);
  }
  /// What the machine calls when the guest does something.
  static PcEvents& events(Runtime& runtime) { return *runtime.impl_; }
};

}  // namespace vm_platform
