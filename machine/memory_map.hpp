// Where things are in the guest's physical address space and in its ports. docs/machine.md shows the same as tables.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vm_platform/core.hpp>

#include "guest/guest_memory.hpp"

namespace vm_platform::map {

// Below 1 MiB, as firmware lays it out.
inline constexpr std::uint64_t kLowRamEnd = 0x9fc00;  ///< From here an extended BIOS data area would be.
inline constexpr std::uint64_t kVideoHole = 0xa0000;
inline constexpr std::uint64_t kAcpiTables = 0xe0000;  ///< 64 KiB.
inline constexpr std::uint64_t kBiosArea = 0xf0000;    ///< 64 KiB; the root pointer is at its start.

// The hole below 4 GiB.
inline constexpr std::uint64_t kPciWindow = 0xc0000000, kPciWindowEnd = 0xe0000000;
inline constexpr std::uint64_t kEcam = 0xe0000000, kEcamSize = 0x10000000;  ///< 256 buses of 1 MiB.
inline constexpr std::uint64_t kPciWindow2 = 0xf0000000, kPciWindow2End = 0xfec00000;
static_assert(kPciWindow == GuestMemory::kLowRamEnd);

/// The window for 64-bit BARs: 64 GiB above all RAM, so that 40 address bits reach it in machines of usual size.
inline constexpr std::uint64_t kPciWindow64Size = 64 * kGiB;
[[nodiscard]] constexpr std::uint64_t pci_window64(std::uint64_t memory_bytes) {
  return round_up(std::max(memory_bytes + kGiB, kPciWindow64Size), kPciWindow64Size);
}

inline constexpr std::uint16_t kPciIo = 0xc000;  ///< To FFFFh: I/O BARs.

inline constexpr unsigned kSciIrq = 9;
/// INTA# to INTD# of the PCI bus: these inputs of the I/O APIC, and with the PIC these IRQs.
inline constexpr unsigned kPciGsi = 16;
inline constexpr unsigned kPciIrq[4] = {10, 11, 10, 11};
/// Device d's pin p is on wire (d + p) mod 4.
[[nodiscard]] constexpr unsigned pci_wire(unsigned device, unsigned pin) { return (device + pin) % 4; }

}  // namespace vm_platform::map
