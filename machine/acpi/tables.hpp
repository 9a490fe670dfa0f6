// The ACPI tables that describe the machine to its operating system.
#pragma once

#include <cstdint>
#include <vector>
#include <vm_platform/core.hpp>

#include "guest/guest_memory.hpp"

namespace vm_platform::acpi {

struct MachineDescription {
  unsigned cpus = 1;
  std::uint64_t pci_window64 = 0;
};

/// One table, or block of them, and where it belongs.
struct PlacedTable {
  Gpa address;
  std::vector<std::uint8_t> bytes;
};

/// RSDP (in the BIOS area, where a scan finds it), XSDT, FADT, FACS, MADT, MCFG and DSDT; in this order, so that the
/// first is what the boot protocol hands over.
[[nodiscard]] std::vector<PlacedTable> build_tables(const MachineDescription& machine);

/// The DSDT's terms, without its header.
[[nodiscard]] std::vector<std::uint8_t> dsdt_body(std::uint64_t window64);

}  // namespace vm_platform::acpi
