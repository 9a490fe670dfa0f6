// The PC that the guest sees: memory, buses, interrupt controllers, clocks, serial ports, ACPI. docs/machine.md has its
// memory map, port map and interrupt routing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vm_platform/core.hpp>

#include "guest/bus.hpp"
#include "guest/clock.hpp"
#include "guest/guest_memory.hpp"
#include "guest/interrupt.hpp"
#include "guest/pci.hpp"
#include "machine/devices/serial.hpp"

namespace vm_platform {

struct PcConfig {
  std::uint64_t memory_bytes = 0;
  unsigned cpus = 1;  ///< 1 to `Pc::kMaxCpus`.
  TscClock tsc;       ///< With a frequency; `TSC_DEADLINE` is compared with it.
};

/// What the machine tells its owner, on whatever thread it happens (usually a vCPU's). Must not block, and must not
/// call the Pc back; stopping the vCPUs is left to another thread.
class PcEvents {
 public:
  virtual ~PcEvents() = default;
  virtual void power_off() = 0;                                 ///< ACPI S5.
  virtual void reset_requested() = 0;                           ///< Port CF9h, ACPI reset register, ports 64h and 92h.
  virtual void debug_exit(std::uint8_t value) = 0;              ///< A write to port F4h.
  virtual void guest_panicked(std::uint8_t pvpanic_event) = 0;  ///< Bit 0: panicked; bit 1: crash kernel loaded.
};

/// A range of guest-physical memory as firmware reports it (ACPI 6.4, 15.1).
struct E820Entry {
  enum class Type : std::uint32_t { Ram = 1, Reserved = 2, AcpiReclaimable = 3 };
  Gpa base;
  std::uint64_t size = 0;
  Type type = Type::Ram;
};

class Pc {
 public:
  static constexpr unsigned kMaxCpus = 512;

  /// Fails with `InvalidArgument` for a memory size or CPU count that cannot be. `events` outlives the Pc.
  static Result<std::unique_ptr<Pc>> create(const PcConfig& config, PcEvents& events);
  ~Pc();
  Pc(const Pc&) = delete;
  Pc& operator=(const Pc&) = delete;

  GuestMemory& memory();
  PortBus& ports();
  MmioBus& mmio();
  /// What devices on the PCI bus are attached to, before the vCPUs run.
  PciBus& pci();

  CpuInterruptController& local_apic(unsigned cpu);
  /// Where this CPU's INIT, start-up, NMI and interrupts go. Before the vCPUs run; null takes the CPU off again.
  void connect_cpu(unsigned cpu, CpuSignals& signals);
  void disconnect_cpu(unsigned cpu);

  /// 0: COM1, the console; 1: COM2.
  SerialPort& serial(unsigned index);

  /// Sorted, without overlaps.
  [[nodiscard]] std::span<const E820Entry> e820() const;
  /// The ACPI root pointer; the tables are in memory.
  [[nodiscard]] Gpa rsdp() const;

  /// Thread-safe.
  void press_power_button();
  /// To every CPU whose LINT1 takes NMIs, as a front-panel button does. Thread-safe.
  void inject_nmi();
  /// Devices, interrupt controllers and ACPI tables to their power-on state. The caller stops the vCPUs first.
  void reset();

 private:
  struct Parts;
  explicit Pc(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace vm_platform
