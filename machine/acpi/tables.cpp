#include "machine/acpi/tables.hpp"

#include <numeric>
#include <string_view>
#include <utility>

#include "machine/devices/acpi_pm.hpp"
#include "machine/devices/platform_ports.hpp"
#include "machine/devices/rtc_cmos.hpp"
#include "machine/interrupt/io_apic.hpp"
#include "machine/interrupt/local_apic.hpp"
#include "machine/memory_map.hpp"

namespace vm_platform::acpi {
namespace {

/// A table that grows field by field; the header (ACPI 6.4, 5.2.6) comes first, length and checksum last.
class Table {
 public:
  Table() = default;
  Table(std::string_view signature, std::uint8_t revision) {
    text(signature, 4).u32(0).u8(revision).u8(0);
    text("VMPLAT", 6).text("VMPC", 8).u32(1).text("VMPL", 4).u32(1);
  }
  Table& u8(std::uint64_t v) { return put(v, 1); }
  Table& u16(std::uint64_t v) { return put(v, 2); }
  Table& u32(std::uint64_t v) { return put(v, 4); }
  Table& u64(std::uint64_t v) { return put(v, 8); }
  Table& text(std::string_view value, std::size_t width) {
    for (std::size_t i = 0; i < width; ++i)
      u8(i < value.size() ? static_cast<std::uint8_t>(value[i]) : std::uint8_t{' '});
    return *this;
  }
  Table& zeros(std::size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  Table& append(const std::vector<std::uint8_t>& more) {
    bytes_.insert(bytes_.end(), more.begin(), more.end());
    return *this;
  }
  /// Generic address structure (5.2.3.2) of an I/O port; `access` 1 to 3: byte, word, double word.
  Table& port(std::uint16_t address, unsigned bits, unsigned access) {
    return u8(1).u8(bits).u8(0).u8(access).u64(address);
  }
  Table& no_address() { return zeros(12); }

  void checksum(std::size_t at, std::size_t length) {
    bytes_[at] = 0;
    const auto sum = std::accumulate(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(length), 0u);
    bytes_[at] = static_cast<std::uint8_t>(0u - sum);
  }
  std::vector<std::uint8_t> finish() {
    for (unsigned i = 0; i < 4; ++i) bytes_[4 + i] = static_cast<std::uint8_t>(bytes_.size() >> (i * 8));
    checksum(9, bytes_.size());
    return std::move(bytes_);
  }
  std::vector<std::uint8_t> raw() { return std::move(bytes_); }

 private:
  Table& put(std::uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; ++i) bytes_.push_back(static_cast<std::uint8_t>(value >> (i * 8)));
    return *this;
  }
  std::vector<std::uint8_t> bytes_;
};

// FADT flags (5.2.9, table 5.10). The power button is fixed hardware (its flag is clear); there is no sleep button.
constexpr std::uint32_t kWbinvd = 1 << 0, kC1Everywhere = 1 << 2, kNoFixedSleepButton = 1 << 5, kRtcNotFixed = 1 << 6,
                        kTimer32 = 1 << 8, kResetRegister = 1 << 10, kPlatformClock = 1 << 15;
// IA-PC boot architecture flags (table 5.11): devices on the ISA bus, no 8042, no VGA, no ASPM.
constexpr std::uint16_t kLegacyDevices = 1 << 0, kNoVga = 1 << 2, kNoAspm = 1 << 4;

std::vector<std::uint8_t> fadt(std::uint64_t facs, std::uint64_t dsdt) {
  Table t("FACP", 6);
  t.u32(facs).u32(dsdt).u8(0).u8(4).u16(map::kSciIrq);  // preferred profile: enterprise server
  t.u32(0).u8(0).u8(0).u8(0).u8(0);                     // no SMI command: ACPI mode is always on
  t.u32(AcpiPm::kEventBlock).u32(0).u32(AcpiPm::kControlBlock).u32(0).u32(0).u32(AcpiPm::kTimerBlock).u32(0).u32(0);
  t.u8(4).u8(2).u8(0).u8(4).u8(0).u8(0).u8(0).u8(0);  // lengths: event, control, control 2, timer, no GPE blocks
  t.u16(0xffff).u16(0xffff);                          // no C2, no C3
  t.u16(0).u16(0).u8(0).u8(0);                        // no flushing by reading, no duty cycle
  t.u8(0).u8(0).u8(RtcCmos::kCentury);                // no day and month alarm
  t.u16(kLegacyDevices | kNoVga | kNoAspm).u8(0);
  t.u32(kWbinvd | kC1Everywhere | kNoFixedSleepButton | kRtcNotFixed | kTimer32 | kResetRegister | kPlatformClock);
  t.port(ResetControl::kPort, 8, 1).u8(ResetControl::kResetValue).u16(0).u8(5);  // minor version: 6.5
  t.u64(facs).u64(dsdt);
  t.port(AcpiPm::kEventBlock, 32, 2).no_address().port(AcpiPm::kControlBlock, 16, 2).no_address().no_address();
  t.port(AcpiPm::kTimerBlock, 32, 3).no_address().no_address();
  t.no_address().no_address();  // sleep control and status: hardware-reduced only
  t.u64(0);                     // hypervisor vendor identity
  return t.finish();
}

std::vector<std::uint8_t> facs() {
  Table t;
  t.text("FACS", 4).u32(64).u32(0).u32(0).u32(0).u32(0).u64(0).u8(2).zeros(3).u32(0).zeros(24);
  return t.raw();
}

/// 5.2.12. CPUs past what eight bits can name have x2APIC entries.
std::vector<std::uint8_t> madt(unsigned cpus) {
  constexpr std::uint16_t kActiveHigh = 1, kLevel = 3 << 2, kConforms = 0;
  Table t("APIC", 5);
  t.u32(LocalApic::kDefaultBase).u32(1);  // PC-AT compatible: there are two 8259s as well
  for (unsigned id = 0; id < cpus; ++id) {
    if (id < 255) {
      t.u8(0).u8(8).u8(id).u8(id).u32(1);
    } else {
      t.u8(9).u8(16).u16(0).u32(id).u32(1).u32(id);
    }
  }
  t.u8(1).u8(12).u8(0).u8(0).u32(IoApic::kBase).u32(0);
  t.u8(2).u8(10).u8(0).u8(0).u32(2).u16(kConforms);                                   // the timer is on input 2
  t.u8(2).u8(10).u8(0).u8(map::kSciIrq).u32(map::kSciIrq).u16(kActiveHigh | kLevel);  // the SCI is a level
  t.u8(4).u8(6).u8(0xff).u16(kConforms).u8(1);                                        // NMI: LINT1 of every CPU
  if (cpus > 255) t.u8(10).u8(12).u16(kConforms).u32(0xffffffff).u8(1).zeros(3);
  return t.finish();
}

std::vector<std::uint8_t> mcfg() {
  Table t("MCFG", 1);
  t.zeros(8).u64(map::kEcam).u16(0).u8(0).u8(255).zeros(4);
  return t.finish();
}

std::vector<std::uint8_t> rsdp(std::uint64_t xsdt) {
  Table t;
  t.text("RSD PTR ", 8).u8(0).text("VMPLAT", 6).u8(2).u32(0).u32(36).u64(xsdt).u8(0).zeros(3);
  t.checksum(8, 20);
  t.checksum(32, 36);
  return t.raw();
}

}  // namespace

std::vector<PlacedTable> build_tables(const MachineDescription& machine) {
  std::vector<PlacedTable> tables;
  const Gpa facs_at(map::kBiosArea + 64);  // aligned to 64 bytes, and in memory that the system never takes
  Gpa next(map::kAcpiTables);
  const auto place = [&](std::vector<std::uint8_t> bytes) {
    const Gpa at = next;
    next = Gpa(round_up(next.value + bytes.size(), 16));
    tables.push_back({at, std::move(bytes)});
    return at.value;
  };
  Table dsdt("DSDT", 2);
  dsdt.append(dsdt_body(machine.pci_window64));
  tables.push_back({facs_at, facs()});
  const std::uint64_t dsdt_at = place(dsdt.finish());
  const std::uint64_t fadt_at = place(fadt(facs_at.value, dsdt_at));
  const std::uint64_t madt_at = place(madt(machine.cpus));
  const std::uint64_t mcfg_at = place(mcfg());
  Table xsdt("XSDT", 1);
  xsdt.u64(fadt_at).u64(madt_at).u64(mcfg_at);
  const std::uint64_t xsdt_at = place(xsdt.finish());
  tables.insert(tables.begin(), {Gpa(map::kBiosArea), rsdp(xsdt_at)});
  return tables;
}

}  // namespace vm_platform::acpi
