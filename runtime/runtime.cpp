#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "runtime/debug_dump.hpp"
#include "runtime/runtime_impl.hpp"

namespace vm_platform {
namespace {

constexpr std::uint32_t kMsrTsc = 0x10;

std::string mebibytes(std::uint64_t bytes) { return std::to_string(bytes / kMiB) + " MiB"; }

Result<void> check(const RuntimeConfig& config) {
  if (config.cpus < 1 || config.cpus > Pc::kMaxCpus) {
    return fail(
        VmError(ErrorCode::InvalidArgument, "create guest", std::to_string(config.cpus) + " CPUs", "not possible")
            .with_hint("give 1 to " + std::to_string(Pc::kMaxCpus) + " (--cpus)"));
  }
  struct sysinfo host{};
  if (::sysinfo(&host) == 0) {
    const std::uint64_t total = (std::uint64_t{host.totalram} + host.totalswap) * host.mem_unit;
    if (config.memory_bytes > total) {
      return fail(VmError(ErrorCode::InvalidArgument, "create guest", mebibytes(config.memory_bytes) + " of memory",
                          "this host has " + mebibytes(total))
                      .with_hint("give less (--memory)"));
    }
  }
  return {};
}

std::uint64_t resident(const GuestMemory& memory) {
  std::uint64_t pages = 0;
  std::vector<unsigned char> map;
  constexpr std::uint64_t kStep = kGiB;
  for (const GuestMemory::Region& region : memory.regions()) {
    for (std::uint64_t at = 0; at < region.size; at += kStep) {
      const std::uint64_t size = std::min(kStep, region.size - at);
      map.assign(round_up(size, kPageSize) / kPageSize, 0);
      if (::mincore(region.host + at, size, map.data()) != 0) continue;
      pages +=
          static_cast<std::uint64_t>(std::ranges::count_if(map, [](unsigned char byte) { return (byte & 1) != 0; }));
    }
  }
  return pages * kPageSize;
}

}  // namespace

Result<std::unique_ptr<Runtime>> Runtime::Impl::create(RuntimeConfig config, const EngineFactory& make_engine) {
  if (auto checked = check(config); !checked) return fail(checked.error());
  auto boot = SimpleBootManager::open(config.boot);
  if (!boot) return fail(boot.error());

  auto impl = std::make_unique<Impl>();
  impl->config_ = std::move(config);
  impl->boot_ = std::move(*boot);
  const unsigned cpus = impl->config_.cpus;
  TscClock tsc{.frequency_hz = host_tsc_frequency(), .offset = 0};
  tsc.offset = -tsc.now();  // the guest's counter begins at 0, as after power-on
  auto pc = Pc::create({.memory_bytes = impl->config_.memory_bytes, .cpus = cpus, .tsc = tsc}, *impl);
  if (!pc) return fail(pc.error());
  impl->pc_ = std::move(*pc);
  auto engine = make_engine(
      {.memory = &impl->pc_->memory(), .ports = &impl->pc_->ports(), .mmio = &impl->pc_->mmio(), .tsc = tsc},
      {.cpus = cpus,
       .five_level_paging = impl->config_.five_level_paging,
       .host_cpu = impl->config_.host_cpu,
       .code_bytes = impl->config_.code_bytes});
  if (!engine) return fail(engine.error());
  impl->engine_ = std::move(*engine);
  std::vector<std::unique_ptr<Vcpu>> vcpus;
  for (unsigned i = 0; i < cpus; ++i) {
    auto vcpu = impl->engine_->create_vcpu(i, impl->pc_->local_apic(i));
    if (!vcpu) return fail(vcpu.error());
    CpuState state = (*vcpu)->state();
    // A reset leaves the counter running: the machine's timers are set by the same clock.
    std::erase_if(state.msrs, [](const MsrValue& msr) { return msr.index == kMsrTsc; });
    impl->reset_states_.push_back(std::move(state));
    vcpus.push_back(std::move(*vcpu));
  }
  for (unsigned i = 0; i < kSerialPorts; ++i)
    impl->serial_.push_back(std::make_unique<runtime::SerialLink>(impl->pc_->serial(i)));
  Impl* self = impl.get();
  impl->cpus_.emplace(std::move(vcpus), [self](unsigned cpu, const VcpuExit& exit, const CpuState& state) {
    self->cpu_exited(cpu, exit, state);
  });
  for (unsigned i = 0; i < cpus; ++i) impl->pc_->connect_cpu(i, impl->cpus_->vcpu(i));
  if (auto loaded = impl->load(); !loaded) return fail(loaded.error());
  return std::unique_ptr<Runtime>(new Runtime(std::move(impl)));
}

Runtime::Impl::~Impl() {
  if (!cpus_) return;
  cpus_->end();
  for (unsigned i = 0; i < cpus_->count(); ++i) pc_->disconnect_cpu(i);
  flush_serial();
  for (auto& link : serial_) {
    link->set_output({});
    link->set_input_ready({});
  }
  cpus_.reset();
  engine_.reset();
}

Result<void> Runtime::Impl::load() {
  std::vector<BootMemoryRange> map;
  for (const E820Entry& entry : pc_->e820())
    map.push_back({entry.base, entry.size, static_cast<BootMemoryRange::Type>(entry.type)});
  CpuState first = reset_states_[0];
  if (auto loaded = boot_->load({.memory = &pc_->memory(), .memory_map = map, .rsdp = pc_->rsdp()}, first); !loaded)
    return loaded;
  cpus_->set_state(0, std::move(first));
  for (unsigned i = 1; i < cpus_->count(); ++i) cpus_->set_state(i, reset_states_[i]);
  return {};
}

Result<void> Runtime::Impl::require(std::initializer_list<RuntimeState> allowed, const char* operation) const {
  if (std::ranges::find(allowed, state_.load()) != allowed.end()) return {};
  return fail(ErrorCode::Status, operation, config_.name, "the guest is " + std::string(to_string(state_.load())));
}

void Runtime::Impl::report(RuntimeEvent::Kind kind, std::uint64_t value, unsigned cpu, std::string text) {
  const std::lock_guard lock(state_mutex_);
  if (!on_event_) return;
  const auto since = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - created_).count();
  on_event_({kind, state_, cpu, value, std::move(text), static_cast<std::uint64_t>(since)});
}

void Runtime::Impl::change_state(RuntimeState to) {
  {
    const std::lock_guard lock(state_mutex_);
    const RuntimeState from = state_;
    if (from == to) return;
    const auto now = Clock::now();
    if (from == RuntimeState::Running)
      running_ns_ += static_cast<std::uint64_t>(
          std::chrono::duration_cast<std::chrono::nanoseconds>(now - running_since_).count());
    if (to == RuntimeState::Running) running_since_ = now;
    state_ = to;
  }
  report(RuntimeEvent::Kind::StateChanged);
}

Result<void> Runtime::Impl::start() {
  const std::lock_guard lock(command_mutex_);
  if (auto allowed = require({RuntimeState::Created}, "start"); !allowed) return allowed;
  change_state(RuntimeState::Running);
  cpus_->run();
  return {};
}

Result<void> Runtime::Impl::pause() {
  const std::lock_guard lock(command_mutex_);
  if (auto allowed = require({RuntimeState::Running}, "pause"); !allowed) return allowed;
  cpus_->park();
  flush_serial();
  change_state(RuntimeState::Paused);
  return {};
}

Result<void> Runtime::Impl::resume() {
  const std::lock_guard lock(command_mutex_);
  if (auto allowed = require({RuntimeState::Paused}, "resume"); !allowed) return allowed;
  change_state(RuntimeState::Running);
  cpus_->run();
  return {};
}

Result<void> Runtime::Impl::stop(RuntimeState end) {
  const std::lock_guard lock(command_mutex_);
  cpus_->end();
  flush_serial();
  if (state_ != RuntimeState::Stopped && state_ != RuntimeState::Failed) change_state(end);
  return {};
}

Result<void> Runtime::Impl::reset() {
  const std::lock_guard lock(command_mutex_);
  if (auto allowed = require({RuntimeState::Created, RuntimeState::Running, RuntimeState::Paused}, "reset"); !allowed)
    return allowed;
  cpus_->park();
  flush_serial();
  pc_->reset();
  for (unsigned i = 0; i < cpus_->count(); ++i) cpus_->vcpu(i).forget_signals();
  panics_reported_ = 0;
  if (auto loaded = load(); !loaded) {
    cpus_->end();
    change_state(RuntimeState::Failed);
    return loaded;
  }
  ++resets_;
  report(RuntimeEvent::Kind::Reset);
  cpus_->release();
  if (state_ == RuntimeState::Running) cpus_->run();
  return {};
}

Result<void> Runtime::Impl::press_power_button() const {
  if (auto allowed = require({RuntimeState::Running, RuntimeState::Paused}, "press the power button of"); !allowed)
    return allowed;
  pc_->press_power_button();
  return {};
}

Result<void> Runtime::Impl::inject_nmi() const {
  if (auto allowed = require({RuntimeState::Running, RuntimeState::Paused}, "send an NMI to"); !allowed) return allowed;
  pc_->inject_nmi();
  return {};
}

void Runtime::Impl::halt_and_report(RuntimeEvent::Kind kind, std::uint64_t value) {
  cpus_->hold();
  report(kind, value);
}
void Runtime::Impl::power_off() { halt_and_report(RuntimeEvent::Kind::PowerOff); }
void Runtime::Impl::reset_requested() { halt_and_report(RuntimeEvent::Kind::ResetRequested); }
void Runtime::Impl::debug_exit(std::uint8_t value) { halt_and_report(RuntimeEvent::Kind::DebugExit, value); }
void Runtime::Impl::guest_panicked(std::uint8_t pvpanic_event) {
  // The write holds no CPU, so a guest could repeat it faster than anybody takes events.
  const auto news = static_cast<std::uint8_t>(pvpanic_event & ~panics_reported_.fetch_or(pvpanic_event));
  if (news != 0) report(RuntimeEvent::Kind::Panic, news);
}

void Runtime::Impl::cpu_exited(unsigned cpu, const VcpuExit& exit, const CpuState& state) {
  if (exit.kind == VcpuExit::Kind::TripleFault) {
    report(RuntimeEvent::Kind::TripleFault, 0, cpu, runtime::debug_dump(cpu, state, pc_->memory()));
  } else {
    report(RuntimeEvent::Kind::EngineFailed, 0, cpu, exit.error);
  }
}

void Runtime::Impl::flush_serial() {
  for (auto& link : serial_) link->flush();
}

RuntimeStats Runtime::Impl::stats() const {
  RuntimeStats stats;
  {
    const std::lock_guard lock(state_mutex_);
    stats.state = state_;
    stats.running_ns = running_ns_;
    if (stats.state == RuntimeState::Running)
      stats.running_ns += static_cast<std::uint64_t>(
          std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - running_since_).count());
  }
  stats.engine = engine_->name();
  stats.memory_bytes = pc_->memory().size();
  stats.resident_bytes = resident(pc_->memory());
  stats.resets = resets_;
  const EngineStats engine = engine_->stats();
  stats.translated_blocks = engine.translated_blocks;
  stats.translated_instructions = engine.translated_instructions;
  stats.invalidated_blocks = engine.invalidated_blocks;
  stats.code_bytes = engine.code_bytes;
  stats.console_out_bytes = serial_[0]->out_bytes();
  stats.console_in_bytes = serial_[0]->in_bytes();
  for (unsigned i = 0; i < cpus_->count(); ++i) {
    const VcpuStats cpu = cpus_->vcpu(i).stats();
    stats.cpus.push_back(
        {cpu.exits, cpu.port_accesses, cpu.mmio_accesses, cpu.interrupts, cpu.exceptions, cpu.halts, cpu.guest_ns});
  }
  return stats;
}

// --- the public face ------------------------------------------------------------------------------------------------

Runtime::Runtime(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Runtime::~Runtime() = default;

Result<std::unique_ptr<Runtime>> Runtime::create(RuntimeConfig config) {
  try {
    return Impl::create(std::move(config), create_soft_engine);
  } catch (const std::exception& error) {  // no memory, no thread: exceptions do not cross a public function
    return fail(VmError(ErrorCode::OutOfMemory, "create guest", "", error.what())
                    .with_hint("give it less memory or fewer CPUs, or end other programs"));
  }
}
Result<void> Runtime::start() { return impl_->start(); }
Result<void> Runtime::pause() { return impl_->pause(); }
Result<void> Runtime::resume() { return impl_->resume(); }
Result<void> Runtime::stop() { return impl_->stop(RuntimeState::Stopped); }
Result<void> Runtime::fail_guest() { return impl_->stop(RuntimeState::Failed); }
Result<void> Runtime::reset() { return impl_->reset(); }
Result<void> Runtime::press_power_button() { return impl_->press_power_button(); }
Result<void> Runtime::inject_nmi() { return impl_->inject_nmi(); }
RuntimeState Runtime::state() const noexcept { return impl_->state_; }
RuntimeStats Runtime::stats() const { return impl_->stats(); }
const RuntimeConfig& Runtime::config() const noexcept { return impl_->config_; }
const BootStatus& Runtime::boot_status() const noexcept { return impl_->boot_->status(); }
RuntimeSerial& Runtime::serial(unsigned index) noexcept { return *impl_->serial_[index]; }
void Runtime::set_event_handler(std::function<void(const RuntimeEvent&)> handler) {
  const std::lock_guard lock(impl_->state_mutex_);
  impl_->on_event_ = std::move(handler);
}

}  // namespace vm_platform
