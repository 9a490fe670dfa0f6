#include <pthread.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <new>
#include <optional>
#include <vm_platform/memory.hpp>

#include "engine/soft/mmu.hpp"
#include "engine/soft/native_fault.hpp"
#include "engine/soft/page_walk.hpp"
#include "engine/soft/semantics/control.hpp"
#include "engine/soft/semantics/msr.hpp"
#include "engine/soft/semantics/xsave_image.hpp"
#include "engine/soft/soft_cpu.hpp"
#include "engine/soft/translator.hpp"

namespace vm_platform {
namespace {

using namespace soft;

/// What generated code and the way out of it take for granted of the host.
Result<void> check_host(const HostCpu& host) {
  if (host.lahf) return {};
  return fail(VmError(ErrorCode::Unsupported, "start the software engine on", "this host",
                      "its CPU has no LAHF and SAHF in 64-bit mode")
                  .with_hint("use a host CPU of 2006 or later"));
}

class SoftVcpu final : public Vcpu {
 public:
  SoftVcpu(MappedMemory mapping, SoftCpu& cpu) : mapping_(std::move(mapping)), cpu_(cpu) {}
  ~SoftVcpu() override {
    std::erase(cpu_.world.cpus, &cpu_);
    cpu_.~SoftCpu();
  }
  SoftVcpu(const SoftVcpu&) = delete;
  SoftVcpu& operator=(const SoftVcpu&) = delete;

  VcpuExit run() override {
    clockid_t clock{};
    if (::pthread_getcpuclockid(::pthread_self(), &clock) == 0) clock_.store(clock, std::memory_order_release);
    cpu_.alone = cpu_.world.cpus.size() == 1;
    VcpuExit exit = cpu_.run();
    cpu_time_ = guest_ns();
    clock_.store(0, std::memory_order_release);
    return exit;
  }
  void kick() noexcept override {
    cpu_.kicked = true;
    cpu_.wake();
  }
  void interrupt_pending() noexcept override { cpu_.wake(); }
  void raise_nmi() noexcept override {
    cpu_.nmi = true;
    cpu_.wake();
  }
  void raise_init() noexcept override {
    cpu_.start_signals = SoftCpu::kInit;
    cpu_.wake();
  }
  void raise_startup(std::uint8_t vector) noexcept override {
    unsigned before = cpu_.start_signals;
    while (!cpu_.start_signals.compare_exchange_weak(before, (before & SoftCpu::kInit) | SoftCpu::kStartup | vector)) {
    }
    cpu_.wake();
  }
  void forget_signals() noexcept override {
    cpu_.start_signals = 0;
    cpu_.nmi = false;
  }

  CpuState state() const override;
  Result<void> set_state(const CpuState& state) override;
  [[nodiscard]] VcpuStats stats() const noexcept override {
    const auto& counters = cpu_.counters;
    return {.exits = counters.exits.value(),
            .port_accesses = counters.port_accesses.value(),
            .mmio_accesses = counters.mmio_accesses.value(),
            .interrupts = counters.interrupts.value(),
            .exceptions = counters.exceptions.value(),
            .halts = counters.halts.value(),
            .guest_ns = guest_ns()};
  }

 private:
  [[nodiscard]] std::uint64_t guest_ns() const noexcept {
    const clockid_t clock = clock_.load(std::memory_order_acquire);
    timespec time{};
    if (clock == 0 || ::clock_gettime(clock, &time) != 0) return cpu_time_;
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
  }

  MappedMemory mapping_;
  SoftCpu& cpu_;
  std::atomic<clockid_t> clock_ = 0;
  std::atomic<std::uint64_t> cpu_time_ = 0;
};

constexpr std::uint32_t kTsc = 0x10, kApicBase = 0x1b, kTscAdjust = 0x3b;

/// Nothing where this CPU has no such register (as where the interrupt controller keeps no APIC base).
std::optional<std::uint64_t> msr_value(SoftCpu& cpu, std::uint32_t index) {
  try {
    return read_msr(cpu, index);
  } catch (const GuestFault&) {
    return std::nullopt;
  }
}

std::unexpected<VmError> impossible(std::string reason) {
  return fail(ErrorCode::InvalidArgument, "set the state of", "a vCPU", std::move(reason));
}

Result<void> set_msr(SoftCpu& cpu, const MsrValue& msr) {
  // The machine's clock says what the counter is and TSC_ADJUST how far this CPU's is from it. A counter set to what it
  // was when somebody read it would set the CPUs apart, and the machine's timers.
  if (msr.index == kTsc) return {};
  if (msr.index == kTscAdjust) {
    cpu.tsc_adjust = msr.value;
    cpu.tsc_offset = cpu.environment.tsc.offset + msr.value;
    return {};
  }
  // The controller's modes may change in one direction only, but stay what they are.
  if (msr.index == kApicBase && msr_value(cpu, kApicBase) == msr.value) return {};
  try {
    write_msr(cpu, msr.index, msr.value);
    return {};
  } catch (const GuestFault&) {
    char text[64];
    std::snprintf(text, sizeof text, "MSR 0x%x cannot be 0x%llx", msr.index,
                  static_cast<unsigned long long>(msr.value));
    return impossible(text);
  }
}

CpuState SoftVcpu::state() const {
  CpuState state;
  std::memcpy(state.gpr.data(), cpu_.gpr, sizeof cpu_.gpr);
  state.rip = cpu_.rip;
  state.rflags = cpu_.flags();
  for (unsigned i = 0; i < 6; ++i) state.segments[i] = cpu_.segments[i];
  state.ldtr = cpu_.ldtr, state.tr = cpu_.tr, state.gdtr = cpu_.gdtr, state.idtr = cpu_.idtr;
  state.cr0 = cpu_.cr0, state.cr2 = cpu_.cr2, state.cr3 = cpu_.cr3, state.cr4 = cpu_.cr4;
  state.cr8 = cpu_.controller.task_priority();
  state.efer = cpu_.efer, state.xcr0 = cpu_.xcr0;
  for (unsigned i = 0; i < 4; ++i) state.debug_address[i] = cpu_.debug_address[i];
  state.dr6 = cpu_.dr6, state.dr7 = cpu_.dr7;
  std::memcpy(state.xsave.data(), cpu_.xsave, sizeof cpu_.xsave);
  for (const std::uint32_t index : state_msrs())
    if (const auto value = msr_value(cpu_, index)) state.msrs.push_back({index, *value});
  state.run_state = cpu_.halted ? RunState::Halted : cpu_.run_state.load();
  state.nmi_pending = cpu_.nmi, state.nmi_masked = cpu_.nmi_masked, state.interrupt_shadow = cpu_.interrupt_shadow;
  return state;
}

/// What no CPU like this one can be in, as far as the host could be hurt by it or the guest could never leave it.
Result<void> check_state(const SoftCpu& cpu, const CpuState& state) {
  if ((state.cr0 & cr0::kPaging) != 0 && (state.cr0 & cr0::kProtection) == 0)
    return impossible("CR0.PG without CR0.PE");
  if ((state.cr4 & ~offered_cr4(cpu)) != 0) return impossible("CR4 has bits this CPU does not have");
  if (!is_possible_xcr0(cpu, state.xcr0)) return impossible("XCR0 names state this host does not have");
  // The host's CPU loads the image, and faults for what it cannot load (Intel SDM vol. 1, 13.8.1).
  std::uint64_t header[8];
  std::memcpy(header, state.xsave.data() + xsave::kHeader, sizeof header);
  if ((header[0] & ~std::uint64_t{7}) != 0 || std::any_of(header + 1, std::end(header), std::identity()))
    return impossible("the XSAVE area is not in the standard format with x87, SSE and AVX state alone");
  std::uint32_t mxcsr = 0;
  std::memcpy(&mxcsr, state.xsave.data() + xsave::kMxcsr, sizeof mxcsr);
  if ((mxcsr & ~xsave::kMxcsrBits) != 0) return impossible("MXCSR has reserved bits");
  return {};
}

Result<void> SoftVcpu::set_state(const CpuState& state) {
  if (auto possible = check_state(cpu_, state); !possible) return possible;
  const World::Lock lock(cpu_.world);  // other CPUs may run, and change this one's links
  std::memcpy(cpu_.gpr, state.gpr.data(), sizeof cpu_.gpr);
  cpu_.rip = state.rip;
  cpu_.set_flags(state.rflags);
  for (unsigned i = 0; i < 6; ++i) cpu_.segments[i] = state.segments[i];
  cpu_.ldtr = state.ldtr, cpu_.tr = state.tr, cpu_.gdtr = state.gdtr, cpu_.idtr = state.idtr;
  cpu_.cr0 = state.cr0, cpu_.cr2 = state.cr2, cpu_.cr3 = state.cr3, cpu_.cr4 = state.cr4;
  cpu_.controller.set_task_priority(static_cast<std::uint8_t>(state.cr8));
  cpu_.efer = state.efer, cpu_.xcr0 = state.xcr0;
  for (unsigned i = 0; i < 4; ++i) cpu_.debug_address[i] = state.debug_address[i];
  cpu_.dr6 = state.dr6, cpu_.dr7 = state.dr7;
  std::memcpy(cpu_.xsave, state.xsave.data(), sizeof cpu_.xsave);
  cpu_.xsave[xsave::kHeader] = cpu_.all_components();
  cpu_.cpl = static_cast<std::uint8_t>(cpu_.real_mode() ? 0 : cpu_.virtual_8086() ? 3 : cpu_.segments[kSs].dpl());
  cpu_.halted = state.run_state == RunState::Halted;
  cpu_.run_state = cpu_.halted ? RunState::Running : state.run_state;
  cpu_.nmi = state.nmi_pending, cpu_.nmi_masked = state.nmi_masked, cpu_.interrupt_shadow = state.interrupt_shadow;
  flush_tlb(cpu_);
  for (const MsrValue& msr : state.msrs)
    if (auto set = set_msr(cpu_, msr); !set) return set;
  try {
    load_pdptes(cpu_, cpu_.cr0, cpu_.cr3, cpu_.cr4);
  } catch (const GuestFault&) {
    return impossible("CR3 points to reserved page-directory pointers");
  }
  return {};
}

class SoftEngine final : public Engine, private GuestWriteObserver {
 public:
  SoftEngine(const EngineEnvironment& environment, const EngineOptions& options, std::unique_ptr<CodeCache> cache,
             SignalHandler native_faults)
      : environment_(environment),
        options_(options),
        cache_(std::move(cache)),
        native_faults_(std::move(native_faults)) {
    environment_.memory->set_write_observer(this);
  }
  ~SoftEngine() override { environment_.memory->set_write_observer(nullptr); }
  SoftEngine(const SoftEngine&) = delete;
  SoftEngine& operator=(const SoftEngine&) = delete;

  Result<void> guard_memory() {
    const auto tell = [](void* world) noexcept {
      for (SoftCpu* cpu : static_cast<World*>(world)->cpus) cpu->request_poll();
    };
    auto guard = GuestMemoryGuard::create(*environment_.memory, tell, &world_);
    if (!guard) return fail(guard.error());
    world_.memory_guard = std::move(*guard);
    return {};
  }

  [[nodiscard]] std::string name() const override { return "soft"; }

  Result<std::unique_ptr<Vcpu>> create_vcpu(unsigned index, CpuInterruptController& controller) override {
    auto mapping = MappedMemory::create_private(kCpuMappingBytes);
    if (!mapping) return fail(mapping.error());
    static_assert(sizeof(SoftCpu) <= kJumpCacheOffset);
    auto* cpu = ::new (mapping->data()) SoftCpu(environment_, options_, controller, *cache_, world_, index);
    cpu->fpu_mask = cpu->host.components();
    cpu->tsc_offset = environment_.tsc.offset;
    cpu->reset();
    cpu->run_state = index == 0 ? RunState::Running : RunState::WaitForStartup;
    cpu->links.add_slots(0, world_.slots);
    world_.cpus.push_back(cpu);
    return std::unique_ptr<Vcpu>(new SoftVcpu(std::move(*mapping), *cpu));
  }

  [[nodiscard]] EngineStats stats() const noexcept override {
    return {cache_->translated_instructions.value(), cache_->translated_blocks.value(), cache_->code_bytes(),
            cache_->invalidated_blocks.value()};
  }

 private:
  void guest_memory_written(Gpa address, std::uint64_t size) override {
    for (std::uint64_t at = address.value; at < address.value + size; at = (at & ~std::uint64_t{4095}) + 4096) {
      if (!cache_->pages.has_code(at)) continue;
      const std::uint64_t bytes = std::min(address.value + size, (at & ~std::uint64_t{4095}) + 4096) - at;
      invalidate_code(world_, *cache_, at, bytes);
    }
  }

  EngineEnvironment environment_;
  EngineOptions options_;
  std::unique_ptr<CodeCache> cache_;
  SignalHandler native_faults_;
  World world_;
};

}  // namespace

Result<std::unique_ptr<Engine>> create_soft_engine(const EngineEnvironment& environment, const EngineOptions& options) {
  if (auto usable = check_host(HostCpu::as_used(options.host_cpu)); !usable) return fail(usable.error());
  const auto regions = environment.memory->regions();
  auto cache =
      soft::CodeCache::create(regions.back().base.value + regions.back().size, options.code_bytes, options.code_memory);
  if (!cache) return fail(cache.error());
  auto native_faults = handle_native_faults((*cache)->executable_bytes());
  if (!native_faults) return fail(native_faults.error());
  auto engine = std::make_unique<SoftEngine>(environment, options, std::move(*cache), std::move(*native_faults));
  if (auto guarded = engine->guard_memory(); !guarded) return fail(guarded.error());
  return engine;
}

}  // namespace vm_platform
