// The DSDT: what the fixed tables cannot say of this machine.
#include <array>

#include "machine/acpi/aml.hpp"
#include "machine/acpi/tables.hpp"
#include "machine/devices/acpi_pm.hpp"
#include "machine/devices/platform_ports.hpp"
#include "machine/memory_map.hpp"

namespace vm_platform::acpi {
namespace {

using namespace aml;

/// _PRT (6.2.13): each pin of each device on bus 0; by I/O APIC input, or by IRQ where the system uses the PIC.
Bytes routing(bool io_apic) {
  std::vector<Bytes> entries;
  for (unsigned device = 0; device < 32; ++device) {
    for (unsigned pin = 0; pin < 4; ++pin) {
      const unsigned wire = map::pci_wire(device, pin);
      const unsigned target = io_apic ? map::kPciGsi + wire : map::kPciIrq[wire];
      entries.push_back(
          package({integer(std::uint64_t{device} << 16 | 0xffff), integer(pin), integer(0), integer(target)}));
    }
  }
  return package(entries);
}

Bytes pci_root(std::uint64_t window64) {
  const Bytes windows = bus_range(0, 255) + io(0xcf8, 8) + io_window(0x0000, 0x0cf7) + io_window(0x0d00, 0xffff) +
                        memory_window(map::kPciWindow, map::kPciWindowEnd - 1) +
                        memory_window(map::kPciWindow2, map::kPciWindow2End - 1) +
                        memory_window64(window64, window64 + map::kPciWindow64Size - 1);
  return device("PCI0", name("_HID", eisa_id("PNP0A08")) + name("_CID", eisa_id("PNP0A03")) + name("_UID", integer(0)) +
                            name("_SEG", integer(0)) + name("_BBN", integer(0)) + name("_CRS", resources(windows)) +
                            name("PRTA", routing(true)) + name("PRTP", routing(false)) +
                            method("_PRT", 0,
                                   if_then(name_string("\\PICF"), return_value(name_string("PRTA"))) +
                                       return_value(name_string("PRTP"))));
}

Bytes serial(std::string_view path, unsigned number, std::uint16_t port, unsigned line) {
  return device(path, name("_HID", eisa_id("PNP0501")) + name("_UID", integer(number)) + name("_STA", integer(0xf)) +
                          name("_CRS", resources(io(port, 8) + irq(line))));
}

}  // namespace

std::vector<std::uint8_t> dsdt_body(std::uint64_t window64) {
  // What nothing else may be put on: ECAM (PCI Firmware 3.3, 4.1.2 wants it here) and the chip set's ports.
  const Bytes reserved =
      device("MBRD", name("_HID", eisa_id("PNP0C02")) + name("_UID", integer(1)) +
                         name("_CRS", resources(fixed_memory(map::kEcam, map::kEcamSize) +
                                                io(AcpiPm::kBase, AcpiPm::kLength) + io(0x4d0, 2) + io(0x92, 1))));
  const Bytes clock = device("RTC_", name("_HID", eisa_id("PNP0B00")) + name("_CRS", resources(io(0x70, 2) + irq(8))));
  const Bytes timer = device("TIMR", name("_HID", eisa_id("PNP0100")) + name("_CRS", resources(io(0x40, 4) + irq(0))));
  const Bytes panic = device("PEVT", name("_HID", string("QEMU0001")) + name("_STA", integer(0xf)) +
                                         name("_CRS", resources(io(PvPanic::kPort, 1))));
  return name("\\_S5_",
              package({integer(AcpiPm::kSleepTypeS5), integer(AcpiPm::kSleepTypeS5), integer(0), integer(0)})) +
         name("\\PICF", integer(0)) + method("\\_PIC", 1, store(argument(0), name_string("\\PICF"))) +
         scope("\\_SB_", pci_root(window64) + reserved + serial("COM1", 1, 0x3f8, 4) + serial("COM2", 2, 0x2f8, 3) +
                             clock + timer + panic);
}

}  // namespace vm_platform::acpi
