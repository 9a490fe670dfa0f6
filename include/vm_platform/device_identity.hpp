// What a PCI function is, whatever its number is today.
//
// Bus numbers change when a card is added, and IOMMU group numbers with every boot. What stays is the way to the
// device: the slots from the root down, firmware's number of it, and its own serial number where it has one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

struct DeviceIdentity {
  PciAddress address;    ///< Where it was last; for people, and to find it where nothing else is known.
  std::string topology;  ///< "pci0000:00/1c.0/00.0": root bus, then device.function of each step down.
  std::uint16_t vendor = 0, device = 0, subsystem_vendor = 0, subsystem_device = 0;
  std::optional<std::uint64_t> serial_number;  ///< Device Serial Number capability; stays when the card is moved.
  std::optional<std::uint32_t> acpi_index;     ///< Firmware's number of it (PCI Firmware 3.1, section 4.6.7).
};

/// `device` should come from a full scan: serial number and index are missing otherwise.
[[nodiscard]] DeviceIdentity identify(const PciDeviceInfo& device);
/// "pci0000:00/1c.0/00.0" of "devices/pci0000:00/0000:00:1c.0/0000:3b:00.0"; empty where the path is none of PCI.
[[nodiscard]] std::string topology_of(std::string_view device_path);

/// Where the device is now: by serial number where it has one (it may have moved to another slot), else by firmware's
/// number, else by the way to it. Always the same model, and never one whose serial number is known to be another.
/// `NotFound` says what sits there instead, if anything.
[[nodiscard]] Result<PciAddress> find_device(const DeviceIdentity& identity, std::span<const PciDeviceInfo> functions);

}  // namespace vm_platform
