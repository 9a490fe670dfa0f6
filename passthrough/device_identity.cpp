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
  return {device.address,          topology_of(device.device_path), device.vendor,        device.device,
          device.subsystem_vendor, device.subsystem_device,         device.serial_number, device.acpi_index};
}

Result<PciAddress> find_device(const DeviceIdentity& identity, std::span<const PciDeviceInfo> functions) {
  const auto another_serial = [&](const PciDeviceInfo& device) {
    return identity.serial_number && device.serial_number && identity.serial_number != device.serial_number;
  };
  const auto may_be = [&](const PciDeviceInfo& device) {
    return device.vendor == identity.vendor && device.device == identity.device &&
           device.subsystem_vendor == identity.subsystem_vendor &&
           device.subsystem_device == identity.subsystem_device && !another_serial(device);
  };
  // A mark that several have (two cards with one serial number) is none that can be trusted.
  const auto only_one = [&](auto fits) -> const PciDeviceInfo* {
    const auto matches = [&](const PciDeviceInfo& device) { return may_be(device) && fits(device); };
    return std::ranges::count_if(functions, matches) == 1 ? &*std::ranges::find_if(functions, matches) : nullptr;
  };
  if (identity.serial_number && *identity.serial_number != 0) {  // all functions of a card have the same
    const auto* found = only_one([&](const PciDeviceInfo& device) {
      return device.serial_number == identity.serial_number && device.address.function == identity.address.function;
    });
    if (found != nullptr) return found->address;
  }
  if (identity.acpi_index) {
    const auto* found = only_one([&](const PciDeviceInfo& device) { return device.acpi_index == identity.acpi_index; });
    if (found != nullptr) return found->address;
  }
  const auto subject = fmt::format("{:04x}:{:04x} at {}", identity.vendor, identity.device,
                                   identity.topology.empty() ? identity.address.to_string() : identity.topology);
  for (const PciDeviceInfo& device : functions) {
    const bool here = identity.topology.empty() ? device.address == identity.address
                                                : topology_of(device.device_path) == identity.topology;
    if (!here) continue;
    if (may_be(device)) return device.address;
    return fail(ErrorCode::NotFound, "find device", subject,
                fmt::format("{} is there now, {} {:04x}:{:04x}", device.address.to_string(),
                            another_serial(device) ? "another" : "a", device.vendor, device.device));
  }
  return fail(ErrorCode::NotFound, "find device", subject, "nothing is there");
}

}  // namespace vm_platform
