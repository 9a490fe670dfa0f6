// PCI functions as JSON documents, with the keys that docs/passthrough.md lists.
#pragma once

#include <nlohmann/json.hpp>
#include <vm_platform/pci_device.hpp>

namespace vm_platform::vmp {

/// Identity, class, driver, group; what `list` and `groups` print.
nlohmann::ordered_json summary_json(const PciDeviceInfo& device, const PciNames& names);
/// Everything known; what `show` prints.
nlohmann::ordered_json detail_json(const PciDeviceInfo& device, const PciNames& names);
/// "8086:10d3"
std::string id_text(std::uint16_t vendor, std::uint16_t device);

}  // namespace vm_platform::vmp
