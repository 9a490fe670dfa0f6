// What runs a guest's CPUs. Two engines implement this: soft/ (same-ISA translation) and, later, KVM.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vm_platform/core.hpp>
#include <vm_platform/jit_memory.hpp>
#include <vm_platform/platform.hpp>

#include "engine/cpu_state.hpp"
#include "guest/bus.hpp"
#include "guest/clock.hpp"
#include "guest/guest_memory.hpp"
#include "guest/interrupt.hpp"

namespace vm_platform {

/// Why `Vcpu::run` came back. Port, MMIO, HLT, CPUID and MSRs never come this far: the engine asks the buses and the
/// interrupt controller itself.
struct VcpuExit {
  enum class Kind : std::uint8_t {
    Kicked,       ///< `kick()` was called.
    TripleFault,  ///< The guest faulted while a double fault was delivered; the state is as it was at the fault.
    Failed,       ///< The engine cannot go on; `error` says why. The guest is not to blame.
  };
  Kind kind = Kind::Kicked;
  std::string error = {};
};

struct VcpuStats {
  std::uint64_t exits = 0;  ///< From guest code to the engine.
  std::uint64_t port_accesses = 0, mmio_accesses = 0;
  std::uint64_t interrupts = 0, exceptions = 0, halts = 0;
  std::uint64_t guest_ns = 0;  ///< Host CPU time of the vCPU's thread.
};

/// One CPU. All calls from the thread that runs it, except those of CpuSignals, `kick` and `stats`, which are
/// thread-safe.
class Vcpu : public CpuSignals {
 public:
  /// Runs guest code until something needs the caller. Sleeps while the CPU is halted or waits for a start-up IPI.
  virtual VcpuExit run() = 0;
  /// Makes the current or next `run` return `Kicked` soon.
  virtual void kick() noexcept = 0;
  /// Forgets an NMI, INIT or start-up IPI that has not been acted on, as a reset does. While it does not run.
  virtual void forget_signals() noexcept = 0;

  virtual CpuState state() const = 0;
  /// Fails with `InvalidArgument` when the state is one the CPU cannot be in.
  virtual Result<void> set_state(const CpuState& state) = 0;
  [[nodiscard]] virtual VcpuStats stats() const noexcept = 0;
};

/// What an engine needs from the machine around it. Everything outlives the engine.
struct EngineEnvironment {
  GuestMemory* memory = nullptr;
  PortBus* ports = nullptr;
  MmioBus* mmio = nullptr;
  TscClock tsc;
};

struct EngineStats {
  std::uint64_t translated_instructions = 0, translated_blocks = 0, code_bytes = 0, invalidated_blocks = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  /// CPU number `index`, in its reset state; number 0 runs, the others wait for INIT and a start-up IPI.
  /// `controller` is this CPU's local APIC; it outlives the vCPU.
  virtual Result<std::unique_ptr<Vcpu>> create_vcpu(unsigned index, CpuInterruptController& controller) = 0;
  [[nodiscard]] virtual EngineStats stats() const noexcept = 0;
};

struct EngineOptions {
  unsigned cpus = 1;  ///< How many CPUs CPUID and the topology leaves speak of.
  /// Offers LA57. Off unless it is wanted: a kernel that finds it goes through 32-bit code to switch it on.
  bool five_level_paging = false;
  /// Forces how the software engine writes its code, where the best way that the host allows is not wanted.
  std::optional<JitMode> code_memory = {};
  /// Makes less use of the host's CPU than could be made, as it is done where there is less: generated code and CPUID.
  HostCpuUse host_cpu = HostCpuUse::All;
  /// The software engine's memory for translated code, kMinCodeBytes to kMaxCodeBytes. When it is full, translation
  /// begins anew.
  std::uint64_t code_bytes = kMaxCodeBytes;

  static constexpr std::uint64_t kMinCodeBytes = 1 * kMiB, kMaxCodeBytes = 48 * kMiB;
};

/// Fails with `Unsupported`, naming what is missing, on a host that cannot run it.
Result<std::unique_ptr<Engine>> create_soft_engine(const EngineEnvironment& environment, const EngineOptions& options);

}  // namespace vm_platform
