#include "machine/pc.hpp"

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>
#include <vector>

#include "machine/acpi/tables.hpp"
#include "machine/devices/acpi_pm.hpp"
#include "machine/devices/pit.hpp"
#include "machine/devices/platform_ports.hpp"
#include "machine/devices/rtc_cmos.hpp"
#include "machine/interrupt/io_apic.hpp"
#include "machine/interrupt/local_apic.hpp"
#include "machine/interrupt/pic.hpp"
#include "machine/memory_map.hpp"
#include "machine/pci/host_bridge.hpp"

namespace vm_platform {
namespace {

/// An ISA interrupt: the same wire at the PIC and at the I/O APIC, where the timer's is input 2 (as the MADT says).
class IsaLine final : public InterruptLine {
 public:
  IsaLine(PicPair& pic, IoApic& io_apic, unsigned irq) : pic_(pic), io_apic_(io_apic), irq_(irq) {}
  void set_level(bool high) override {
    // Each device calls under its own lock, so the two see the same order.
    if (std::exchange(level_, high) == high) return;
    pic_.set_level(irq_, high);
    io_apic_.set_level(irq_ == 0 ? 2 : irq_, high);
  }

 private:
  PicPair& pic_;
  IoApic& io_apic_;
  const unsigned irq_;
  bool level_ = false;
};

}  // namespace

// Members are in the order of who needs whom: timers go last, after every device that has one.
struct Pc::Parts {
  Parts(const PcConfig& with, PcEvents& tell, GuestMemory ram, std::unique_ptr<TimerService> service)
      : config(with),
        events(tell),
        memory(std::move(ram)),
        timers(std::move(service)),
        pic([this] { lint0_raised(); }),
        apics(with.cpus, pic, *timers, with.tsc, [this](std::uint8_t vector) { io_apic.end_of_interrupt(vector); }),
        io_apic(apics),
        pci(apics, [this](unsigned wire, bool high) { set_pci_wire(wire, high); }),
        pit(pit_line, *timers),
        rtc(rtc_line, *timers, std::min(memory.size(), GuestMemory::kLowRamEnd),
            memory.size() - std::min(memory.size(), GuestMemory::kLowRamEnd)),
        com1(com1_line, *timers),
        com2(com2_line, *timers),
        pm(sci_line, *timers, [this] { flush(), events.power_off(); }),
        reset_control([this] { flush(), events.reset_requested(); }),
        debug_exit([this](std::uint8_t value) { flush(), events.debug_exit(value); }),
        panic([this](std::uint8_t event) { flush(), events.guest_panicked(event); }) {}

  void lint0_raised() {
    for (unsigned i = 0; i < apics.size(); ++i) apics.apic(i).lint0_raised();
  }
  void set_pci_wire(unsigned wire, bool high) {
    io_apic.set_level(map::kPciGsi + wire, high);
    // Two wires share each IRQ of the PIC.
    pci_wires = high ? pci_wires | 1u << wire : pci_wires & ~(1u << wire);
    const unsigned irq = map::kPciIrq[wire];
    bool any = false;
    for (unsigned i = 0; i < 4; ++i) any = any || (map::kPciIrq[i] == irq && (pci_wires >> i & 1) != 0);
    pic.set_level(irq, any);
  }
  /// What the guest printed last is out before its owner hears of the end.
  void flush() {
    com1.flush();
    com2.flush();
  }
  [[nodiscard]] std::uint64_t window64() const { return map::pci_window64(memory.size()); }

  Result<void> attach();
  void describe_memory();
  Result<void> write_tables();

  PcConfig config;
  PcEvents& events;
  GuestMemory memory;
  PortBus ports;
  MmioBus mmio;
  std::unique_ptr<TimerService> timers;
  PicPair pic;
  ApicBus apics;
  IoApic io_apic;
  unsigned pci_wires = 0;
  PciHost pci;
  IsaLine pit_line{pic, io_apic, 0}, rtc_line{pic, io_apic, 8}, com1_line{pic, io_apic, 4}, com2_line{pic, io_apic, 3},
      sci_line{pic, io_apic, map::kSciIrq};
  Pit pit;
  RtcCmos rtc;
  SerialPort com1, com2;
  AcpiPm pm;
  ResetControl reset_control;
  DebugExit debug_exit;
  PvPanic panic;
  std::vector<E820Entry> e820;
  std::vector<acpi::PlacedTable> tables;
  Gpa rsdp;
};

Result<void> Pc::Parts::attach() {
  struct PortsOf {
    std::uint16_t first;
    std::uint32_t count;
    PortDevice& device;
    const char* name;
  };
  const PortsOf all[] = {
      {0x20, 2, pic, "PIC"},
      {0xa0, 2, pic, "PIC"},
      {0x4d0, 2, pic, "PIC edge / level"},
      {0x40, 4, pit, "PIT"},
      {0x61, 1, pit, "system control port B"},
      {0x70, 4, rtc, "RTC"},
      {0x3f8, 8, com1, "COM1"},
      {0x2f8, 8, com2, "COM2"},
      {AcpiPm::kBase, AcpiPm::kLength, pm, "ACPI power management"},
      {ResetControl::kPort, 1, reset_control, "reset control"},
      {ResetControl::kKeyboardPort, 1, reset_control, "keyboard controller reset"},
      {ResetControl::kSystemPort, 1, reset_control, "system control port A"},
      {DebugExit::kPort, 4, debug_exit, "debug exit"},
      {PvPanic::kPort, 1, panic, "pvpanic"},
  };
  for (const PortsOf& one : all) {
    if (auto attached = ports.attach(one.first, one.count, one.device, one.name); !attached) return attached;
  }
  if (auto attached = mmio.attach(Gpa(IoApic::kBase), 0x1000, io_apic, "I/O APIC"); !attached) return attached;
  if (auto attached = mmio.attach(Gpa(LocalApic::kDefaultBase), 0x1000, apics, "local APIC"); !attached)
    return attached;
  return pci.connect(ports, mmio, window64());
}

void Pc::Parts::describe_memory() {
  using Type = E820Entry::Type;
  e820 = {{Gpa(0), map::kLowRamEnd, Type::Ram},
          {Gpa(map::kLowRamEnd), map::kVideoHole - map::kLowRamEnd, Type::Reserved},
          {Gpa(map::kAcpiTables), map::kBiosArea - map::kAcpiTables, Type::AcpiReclaimable},
          {Gpa(map::kBiosArea), kMiB - map::kBiosArea, Type::Reserved}};
  const std::uint64_t low = std::min(memory.size(), GuestMemory::kLowRamEnd);
  if (low > kMiB) e820.push_back({Gpa(kMiB), low - kMiB, Type::Ram});
  e820.push_back({Gpa(map::kEcam), map::kEcamSize, Type::Reserved});
  if (memory.size() > low) e820.push_back({Gpa(GuestMemory::kHighRamStart), memory.size() - low, Type::Ram});
}

Result<void> Pc::Parts::write_tables() {
  if (tables.empty()) tables = acpi::build_tables({config.cpus, window64()});
  rsdp = tables.front().address;
  for (const auto& table : tables) {
    if (!memory.write(table.address, std::as_bytes(std::span(table.bytes))))
      return fail(ErrorCode::InvalidArgument, "write ACPI tables", "guest memory", "there is no RAM for them");
  }
  return {};
}

Pc::Pc(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Pc::~Pc() { parts_->flush(); }

Result<std::unique_ptr<Pc>> Pc::create(const PcConfig& config, PcEvents& events) {
  if (config.cpus < 1 || config.cpus > kMaxCpus)
    return fail(VmError(ErrorCode::InvalidArgument, "create machine", std::to_string(config.cpus) + " CPUs",
                        "outside of 1 to " + std::to_string(kMaxCpus))
                    .with_hint("give a number of CPUs such as 2"));
  if (config.tsc.frequency_hz == 0)
    return fail(ErrorCode::InvalidArgument, "create machine", "TSC frequency", "it is 0");
  auto memory = GuestMemory::create(config.memory_bytes);
  if (!memory) return fail(memory.error());
  auto timers = TimerService::create();
  if (!timers) return fail(timers.error());
  auto parts = std::make_unique<Parts>(config, events, std::move(*memory), std::move(*timers));
  if (auto attached = parts->attach(); !attached) return fail(attached.error());
  parts->describe_memory();
  if (auto written = parts->write_tables(); !written) return fail(written.error());
  return std::unique_ptr<Pc>(new Pc(std::move(parts)));
}

GuestMemory& Pc::memory() { return parts_->memory; }
PortBus& Pc::ports() { return parts_->ports; }
MmioBus& Pc::mmio() { return parts_->mmio; }
PciBus& Pc::pci() { return parts_->pci; }
CpuInterruptController& Pc::local_apic(unsigned cpu) { return parts_->apics.apic(cpu); }
void Pc::connect_cpu(unsigned cpu, CpuSignals& signals) { parts_->apics.apic(cpu).connect(&signals); }
void Pc::disconnect_cpu(unsigned cpu) { parts_->apics.apic(cpu).connect(nullptr); }
SerialPort& Pc::serial(unsigned index) { return index == 0 ? parts_->com1 : parts_->com2; }
std::span<const E820Entry> Pc::e820() const { return parts_->e820; }
Gpa Pc::rsdp() const { return parts_->rsdp; }
void Pc::press_power_button() { parts_->pm.press_power_button(); }

void Pc::inject_nmi() {
  for (unsigned i = 0; i < parts_->apics.size(); ++i) parts_->apics.apic(i).lint1_pulsed();
}

void Pc::reset() {
  Parts& p = *parts_;
  p.pit.reset();
  p.rtc.reset();
  p.com1.reset();
  p.com2.reset();
  p.pm.reset();
  p.reset_control.reset();
  p.pci.reset();
  p.pic.reset();
  p.io_apic.reset();
  for (unsigned i = 0; i < p.apics.size(); ++i) p.apics.apic(i).reset();
  // They were written when the machine was made, so there is RAM for them.
  [[maybe_unused]] const auto written = p.write_tables();
  assert(written.has_value());
}

}  // namespace vm_platform
