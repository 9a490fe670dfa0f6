#include <fmt/format.h>

#include <algorithm>
#include <vector>
#include <vm_platform/pci_identity.hpp>

#include "passthrough/text.hpp"

namespace vm_platform {

std::string stable_path(std::string_view device_path) {
  std::string path;
  while (!device_path.empty()) {
    const std::string_view part = text::take(device_path, '/');
    if (part == "devices") continue;
    if (!path.empty()) path += '/';
    const auto address = PciAddress::parse(part);
    if (address)
      path += fmt::format("{:02x}.{}", address->device, address->function);
    else
      path += part;
  }
  return path;
}

PciIdentity identity_of(const PciDeviceInfo& info) {
  return {info.vendor, info.device, stable_path(info.device_path), info.acpi_index, info.serial_number};
}

Result<PciAddress> find_by_identity(std::span<const PciDeviceInfo> all, const PciIdentity& identity) {
  std::vector<const PciDeviceInfo*> left;
  for (const PciDeviceInfo& info : all) {
    const bool another = identity.serial_number && info.serial_number && identity.serial_number != info.serial_number;
    if (info.vendor == identity.vendor && info.device == identity.device && !another) left.push_back(&info);
  }
  const std::string name = fmt::format("{:04x}:{:04x} at {}", identity.vendor, identity.device, identity.path);
  // Functions of one card share its serial number, so each mark only narrows the choice; one that nobody has any more
  // (a serial number that cannot be read without privileges) does not narrow it to nothing.
  const auto narrow = [&](bool known, auto fits) {
    if (!known || std::ranges::none_of(left, fits)) return false;
    std::erase_if(left, [&](const PciDeviceInfo* info) { return !fits(info); });
    return true;
  };
  bool marked = narrow(identity.serial_number.has_value(),
                       [&](const PciDeviceInfo* info) { return info->serial_number == identity.serial_number; });
  marked |= narrow(identity.acpi_index.has_value(),
                   [&](const PciDeviceInfo* info) { return info->acpi_index == identity.acpi_index; });
  marked |= narrow(true, [&](const PciDeviceInfo* info) { return stable_path(info->device_path) == identity.path; });
  if (left.empty() || !marked) {
    return fail(VmError(ErrorCode::NotFound, "find PCI device", name, "no such device")
                    .with_hint("it may have been taken out, or moved to another slot: vmp pci list"));
  }
  if (left.size() > 1) {
    return fail(VmError(ErrorCode::Status, "find PCI device", name, fmt::format("{} devices fit", left.size()))
                    .with_hint("name it by its address"));
  }
  return left.front()->address;
}

}  // namespace vm_platform
