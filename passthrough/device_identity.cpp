#include <fmt/format.h>

#include <algorithm>
#include <vm_platform/device_identity.hpp>

#include "passthrough/text.hpp"

namespace vm_platform {

std::string topology_of(std::string_view device_path) {
  std::string topology;
  while (!device_path.empty()) {
    const std::string_view part = text::take(device_path, '/');
    if (topology.empty()) {
      if (part.starts_with("pci")) topology = part;
    } else if (const auto address = PciAddress::parse(part)) {
      topology += fmt::format("/{:02x}.{}", address->device, address->function);
    } else {
      topology += fmt::format("/{}", part);
    }
  }
  return topology;
}

DeviceIdentity identify(const PciDeviceInfo& device) {
  return {device.address,          topology_of(device.device_path), device.vendor,       device.device,
          device.subsystem_vendor, device.subsystem_device,         device.serial_number};
}

Result<PciAddress> find_device(const DeviceIdentity& identity, std::span<const PciDeviceInfo> functions) {
  const auto same_model = [&](const PciDeviceInfo& device) {
    return device.vendor == identity.vendor && device.device == identity.device &&
           device.subsystem_vendor == identity.subsystem_vendor && device.subsystem_device == identity.subsystem_device;
  };
  if (identity.serial_number && *identity.serial_number != 0) {
    // All functions of a card have the same number; two cards with one number have none that can be trusted.
    const auto matches = [&](const PciDeviceInfo& device) {
      return same_model(device) && device.serial_number == identity.serial_number &&
             device.address.function == identity.address.function;
    };
    if (std::ranges::count_if(functions, matches) == 1) return std::ranges::find_if(functions, matches)->address;
  }
  const auto subject = fmt::format("{:04x}:{:04x} at {}", identity.vendor, identity.device,
                                   identity.topology.empty() ? identity.address.to_string() : identity.topology);
  for (const PciDeviceInfo& device : functions) {
    const bool here = identity.topology.empty() ? device.address == identity.address
                                                : topology_of(device.device_path) == identity.topology;
    if (!here) continue;
    if (same_model(device)) return device.address;
    return fail(
        ErrorCode::NotFound, "find device", subject,
        fmt::format("{} is there now, a {:04x}:{:04x}", device.address.to_string(), device.vendor, device.device));
  }
  return fail(ErrorCode::NotFound, "find device", subject, "nothing is there");
}

}  // namespace vm_platform
