// What a PCI function is recognized by after bus numbers have changed.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// Firmware and hot-plugged bridges renumber buses, so an address is good for one boot. This is good for longer.
struct PciIdentity {
  std::uint16_t vendor = 0xffff, device = 0xffff;
  /// The way through the bridges, by slot and function alone: "pci0000:00/1c.0/00.0". Changes when the card is moved.
  std::string path;
  std::optional<std::uint32_t> acpi_index;     ///< Firmware's number of the device (PCI Firmware 3.1, section 4.6.7).
  std::optional<std::uint64_t> serial_number;  ///< Stays also when the card is moved.

  bool operator==(const PciIdentity&) const = default;
};

/// `info` should come from a full scan: serial number and index are missing otherwise.
[[nodiscard]] PciIdentity identity_of(const PciDeviceInfo& info);

/// The function of `all` that `identity` means. Serial number decides before ACPI index, and that before the path;
/// vendor and device must be the same. `NotFound` where there is none, `Status` where several fit equally well.
[[nodiscard]] Result<PciAddress> find_by_identity(std::span<const PciDeviceInfo> all, const PciIdentity& identity);

/// `PciDeviceInfo::device_path` without the numbers of buses below the root's.
[[nodiscard]] std::string stable_path(std::string_view device_path);

}  // namespace vm_platform
