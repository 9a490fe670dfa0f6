// Whether a group can be given away, and what joins its members: decided from what was read, without touching the host.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vm_platform/iommu.hpp>

namespace vm_platform {

bool is_vfio_driver(std::string_view driver) { return driver.ends_with("vfio-pci") || driver.ends_with("vfio_pci"); }

bool driver_is_harmless(std::string_view driver) {
  // VFIO's own drivers, the stub, and what vfio.c lets stay in a group in use (it does no DMA on its own behalf).
  return driver.empty() || driver == "pci-stub" || driver == "pcieport" || is_vfio_driver(driver);
}

namespace {

constexpr std::uint16_t kIsolating =
    kAcsSourceValidation | kAcsRequestRedirect | kAcsCompletionRedirect | kAcsUpstreamForwarding;

std::string bit_names(std::uint16_t bits) {
  constexpr std::pair<AcsBit, std::string_view> kNames[] = {{kAcsSourceValidation, "source validation"},
                                                            {kAcsRequestRedirect, "request redirect"},
                                                            {kAcsCompletionRedirect, "completion redirect"},
                                                            {kAcsUpstreamForwarding, "upstream forwarding"}};
  std::string text;
  for (const auto& [bit, name] : kNames)
    if ((bits & bit) != 0) text += (text.empty() ? "" : ", ") + std::string(name);
  return text;
}

/// What is missing on one port for what is below it to be told apart; empty where nothing is.
std::string missing_acs(const PciDeviceInfo& port) {
  const auto express = decode_express(port.config, port.capabilities);
  if (!express) return "is conventional PCI, where all devices share one requester ID";
  if (express->port == PciExpressInfo::Port::PcieToPciBridge)
    return "is a bridge to conventional PCI, where all devices share one requester ID";
  if (express->port == PciExpressInfo::Port::UpstreamPort) return {};  // the downstream ports decide
  if (port.config.size() <= 256) return {};  // extended space was not readable: say nothing rather than guess
  const auto acs = decode_acs(port.config, port.capabilities);
  if (!acs) return "has no Access Control Services";
  // As the kernel judges (pci_acs_flags_enabled in drivers/pci/pci.c): what is not capable is hard-wired to be safe.
  const auto off = static_cast<std::uint16_t>(kIsolating & acs->capable & ~acs->enabled);
  return off == 0 ? std::string{} : "has ACS " + bit_names(off) + " turned off";
}

}  // namespace

GroupViability IommuManager::viability(const IommuGroup& group, std::span<const PciDeviceInfo> all) {
  GroupViability result;
  result.viable = true;
  for (const PciDeviceInfo& device : group.devices) {
    if (device.is_bridge()) continue;  // ports and bridges do no DMA for others than their subordinates
    if (driver_is_harmless(device.driver)) continue;
    result.viable = false;
    result.to_move.push_back(device.address);
    result.reasons.push_back(fmt::format("{} is driven by {}; its driver must be vfio-pci, pci-stub or none",
                                         device.address.to_string(), device.driver));
  }
  if (group.devices.empty()) result.viable = false, result.reasons.emplace_back("the group has no PCI device");
  if (group.devices.size() < 2) return result;

  // What joins the members: ports above them that let peers talk past the IOMMU, and functions of one slot that do.
  std::map<PciAddress, const PciDeviceInfo*> by_address;
  for (const PciDeviceInfo& device : all) by_address.emplace(device.address, &device);
  for (const PciDeviceInfo& device : group.devices) by_address[device.address] = &device;
  std::vector<PciAddress> told;
  const auto tell = [&](const PciDeviceInfo& device, const std::string& missing) {
    if (missing.empty() || std::ranges::find(told, device.address) != told.end()) return;
    told.push_back(device.address);
    result.isolation.push_back(device.address.to_string() + " " + missing);
  };
  for (const PciDeviceInfo& device : group.devices) {
    for (auto parent = device.parent; parent;) {
      const auto found = by_address.find(*parent);
      if (found == by_address.end()) break;
      tell(*found->second, missing_acs(*found->second));
      parent = found->second->parent;
    }
    const bool shares_slot = std::ranges::any_of(group.devices, [&](const PciDeviceInfo& other) {
      return other.address != device.address && other.address.same_slot(device.address);
    });
    if (!shares_slot || device.is_bridge() || device.config.size() <= 256) continue;
    const auto acs = decode_acs(device.config, device.capabilities);
    if (!acs) {
      tell(device, "shares its slot and has no Access Control Services between functions");
    } else if (const auto off = static_cast<std::uint16_t>(kIsolating & acs->capable & ~acs->enabled); off != 0) {
      tell(device, "shares its slot and has ACS " + bit_names(off) + " turned off");
    }
  }
  return result;
}

}  // namespace vm_platform
