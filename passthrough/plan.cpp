#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <vm_platform/passthrough.hpp>

#include "passthrough/sysfs.hpp"

namespace vm_platform {
namespace {

constexpr const char* kDriver = "vfio-pci";

bool is_vfio_driver(std::string_view driver) { return driver_is_harmless(driver) && driver.ends_with("vfio-pci"); }

void add_risks(const PassthroughDevice& device, std::vector<std::string>& risks) {
  const PciDeviceInfo& info = device.info;
  const std::string name = info.address.to_string();
  if (info.reset_methods.empty()) {
    risks.push_back(name + " has no way to be reset: what one guest leaves in it, the next one (or the host) finds");
  } else if (info.reset_methods.front() == "bus") {
    risks.push_back(name + " can only be reset with its whole bus");
  }
  if (info.physical_function && device.type == DeviceType::Network)
    risks.push_back(name + " is a virtual function: its address and VLAN are set on the host (vmp sriov set)");
  if (device.type == DeviceType::Usb && device.requested)
    risks.push_back(name + " is a USB controller: all that is plugged into it goes along");
  if (!info.capabilities.anomalies.empty())
    risks.push_back(name + " has a broken capability list: " + info.capabilities.anomalies.front());
}

void add_steps(const PassthroughDevice& device, std::vector<PlanStep>& steps) {
  const std::string name = device.info.address.to_string();
  const PciAddress address = device.info.address;
  if (is_vfio_driver(device.info.driver)) return;
  steps.push_back({PlanStep::Kind::SetOverride, address, kDriver, fmt::format("let only {} bind {}", kDriver, name)});
  if (!device.info.driver.empty()) {
    steps.push_back({PlanStep::Kind::Unbind, address, device.info.driver,
                     fmt::format("take {} away from {}", name, device.info.driver)});
  }
  steps.push_back({PlanStep::Kind::Bind, address, kDriver, fmt::format("bind {} to {}", name, kDriver)});
}

}  // namespace

Result<PassthroughPlan> PassthroughManager::plan(std::span<const PciAddress> addresses) const {
  if (addresses.empty()) return fail(VmError(ErrorCode::InvalidArgument, "plan passthrough", {}, "no device named"));
  const IommuManager iommu(options_.sysfs, options_.root);
  std::map<PciAddress, PassthroughDevice> chosen;
  const auto add = [&](PciDeviceInfo info, bool requested, std::string reason) {
    const PciAddress address = info.address;
    const DeviceType type = classify(info);
    auto& device =
        chosen.try_emplace(address, PassthroughDevice{std::move(info), type, false, std::move(reason)}).first->second;
    device.requested |= requested;
  };
  for (const PciAddress& address : addresses) {
    auto info = read_pci_device(address, options_.sysfs);
    if (!info) return fail(info.error());
    if (info->is_bridge()) {
      return fail(VmError(ErrorCode::InvalidArgument, "plan passthrough of", address.to_string(), "it is a bridge")
                      .with_hint("name the devices below it: vmp pci tree"));
    }
    auto group = iommu.group_of(address);
    if (!group) return fail(VmError(group.error()).with_detail(PassthroughError::NoIommu));
    for (PciDeviceInfo& member : group->devices) {
      if (member.is_bridge()) continue;
      const bool asked = std::ranges::find(addresses, member.address) != addresses.end();
      // Members without a driver do no harm; those of the same slot come along so that the slot can be reset.
      const bool must = !driver_is_harmless(member.driver);
      const bool companion = member.address.same_slot(address);
      if (!asked && !must && !companion && !is_vfio_driver(member.driver)) continue;
      std::string reason = fmt::format("{} shares IOMMU group {}{}", member.address.to_string(), group->number,
                                       companion ? " and the slot" : "");
      add(std::move(member), asked, std::move(reason));
    }
  }
  const IommuStatus status = iommu.status();
  PassthroughPlan plan;
  if (!status.vfio_available) {
    return fail(VmError(ErrorCode::Unsupported, "plan passthrough of", addresses.front().to_string(), "no vfio-pci")
                    .with_detail(PassthroughError::NoVfio)
                    .with_hint(status.problems.empty() ? "" : status.problems.back()));
  }
  for (auto& [address, device] : chosen) {
    if (device.requested) device.reason.clear();
    if (!is_vfio_driver(device.info.driver)) {
      auto uses = find_uses(device.info, options_.sysfs, options_.root);
      std::ranges::move(uses, std::back_inserter(plan.in_use));
    }
    add_risks(device, plan.risks);
    add_steps(device, plan.steps);
    plan.devices.push_back(std::move(device));
  }
  std::error_code ignored;
  const bool loaded = std::filesystem::exists(options_.sysfs / "bus/pci/drivers" / kDriver, ignored);
  if (!plan.steps.empty() && !loaded)
    plan.steps.insert(plan.steps.begin(), {PlanStep::Kind::LoadModule, {}, kDriver, "load the module vfio-pci"});
  return plan;
}

}  // namespace vm_platform
