// How interrupts travel: devices raise lines, a CPU's local controller decides, the CPU takes them.
#pragma once

#include <cstdint>
#include <optional>

namespace vm_platform {

/// An interrupt input of a controller, as a device sees it. Thread-safe.
class InterruptLine {
 public:
  virtual ~InterruptLine() = default;
  /// Level of the wire. An edge-triggered input reacts to false → true.
  virtual void set_level(bool high) = 0;
};

/// A CPU as its local interrupt controller sees it; implemented by an engine's vCPU. Thread-safe, and callable while
/// the controller holds its own lock: none of these calls back.
class CpuSignals {
 public:
  virtual ~CpuSignals() = default;
  /// An interrupt may have become deliverable: look at the controller again soon; leaves HLT if so.
  virtual void interrupt_pending() noexcept = 0;
  virtual void raise_nmi() noexcept = 0;
  /// INIT: the CPU waits for a start-up IPI afterwards (Intel SDM vol. 3, 9.4.4).
  virtual void raise_init() noexcept = 0;
  /// Start-up IPI: begins at `vector << 12` in real mode if the CPU waits for it.
  virtual void raise_startup(std::uint8_t vector) noexcept = 0;
};

/// A CPU's local interrupt controller (local APIC, with the PIC behind LINT0) as an engine without one of its own sees
/// it. Called on the CPU's thread only.
class CpuInterruptController {
 public:
  enum class MsrAccess : std::uint8_t { NotMine, Done, Fault };

  virtual ~CpuInterruptController() = default;
  /// Whether a maskable interrupt is waiting with a priority above the processor's. Cheap.
  virtual bool has_interrupt() noexcept = 0;
  /// Takes that interrupt: its vector moves from requested to in service. Nothing if it went away.
  virtual std::optional<std::uint8_t> acknowledge() noexcept = 0;
  /// CR8, the task priority class, 0 to 15.
  virtual std::uint8_t task_priority() noexcept = 0;
  virtual void set_task_priority(std::uint8_t value) noexcept = 0;
  /// IA32_APIC_BASE (1Bh), IA32_TSC_DEADLINE (6E0h) and the x2APIC registers (800h to 8FFh).
  virtual MsrAccess read_msr(std::uint32_t index, std::uint64_t& value) noexcept = 0;
  virtual MsrAccess write_msr(std::uint32_t index, std::uint64_t value) noexcept = 0;
};

}  // namespace vm_platform
