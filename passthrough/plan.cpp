#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <vm_platform/gpu.hpp>
#include <vm_platform/passthrough.hpp>
#include <vm_platform/vga_arbiter.hpp>

#include "passthrough/boot_framebuffer.hpp"
#include "passthrough/host_changes.hpp"
#include "passthrough/sysfs.hpp"

namespace vm_platform {
namespace {

constexpr const char* kDriver = "vfio-pci";

std::vector<PciAddress> gpu_companions(const PciDeviceInfo& device, const std::filesystem::path& sysfs) {
  std::vector<PciAddress> found;
  if (device.base_class() != 0x03) return found;
  const auto functions = scan_pci(sysfs);
  for (const GpuConfig& gpu : functions ? GpuPassthrough::select(*functions) : std::vector<GpuConfig>{})
    if (gpu.device.address == device.address)
      for (const PciDeviceInfo& companion : gpu.companions) found.push_back(companion.address);
  return found;
}

/// Turns the devices that were chosen into steps and risks, one device after the other.
class Planner {
 public:
  Planner(const PassthroughOptions& options, const TakeOptions& take) : options_(options), take_(take) {}

  Result<void> add(PassthroughDevice device) {
    if (device.requested) device.guest = take_.guest;
    device.give_back_to = device.info.driver;
    add_risks(device);
    if (!is_vfio_driver(device.info.driver)) {
      auto uses = find_uses(device.info, options_.sysfs, options_.root);
      std::ranges::move(uses, std::back_inserter(plan_.in_use));
      if (auto added = add_steps(device); !added) return added;
    }
    plan_.devices.push_back(std::move(device));
    return {};
  }

  PassthroughPlan finish() {
    std::error_code ignored;
    const bool loaded = std::filesystem::exists(options_.sysfs / "bus/pci/drivers" / kDriver, ignored);
    if (!plan_.steps.empty() && !loaded)
      plan_.steps.insert(plan_.steps.begin(), {PlanStep::Kind::LoadModule, {}, kDriver, "load the module vfio-pci"});
    return std::move(plan_);
  }

 private:
  void add_risks(const PassthroughDevice& device) {
    const PciDeviceInfo& info = device.info;
    const std::string name = info.address.to_string();
    const ResetChoice reset = choose_reset(info);
    if (reset.methods.empty()) {
      plan_.risks.push_back(name +
                            " has no way to be reset: what one guest leaves in it, the next one (or the host) finds");
    } else if (reset.methods.front() == "bus") {
      plan_.risks.push_back(name + " can only be reset with its whole bus");
    }
    for (const DeviceQuirk* quirk : device_quirks(info))
      plan_.risks.push_back(fmt::format("{}: {}; {} ({})", name, quirk->what, quirk->advice, quirk->source));
    if (info.physical_function && device.type == DeviceType::Network)
      plan_.risks.push_back(name + " is a virtual function: its address and VLAN are set on the host (vmp sriov set)");
    if (device.type == DeviceType::Usb && device.requested)
      plan_.risks.push_back(name + " is a USB controller: all that is plugged into it goes along");
    if (!info.capabilities.anomalies.empty())
      plan_.risks.push_back(name + " has a broken capability list: " + info.capabilities.anomalies.front());
    if (info.class_and_subclass() == 0x0300) {
      for (const std::string& other : other_displays(info.address))
        plan_.risks.push_back(
            fmt::format("{} and {} share the legacy VGA addresses: the kernel's arbiter switches "
                        "between guest and host on each use",
                        name, other));
    }
  }

  /// Other VGA cards of the host.
  [[nodiscard]] std::vector<std::string> other_displays(PciAddress address) const {
    std::vector<std::string> found;
    for (const std::string& name : list_directory(options_.sysfs / "bus/pci/devices")) {
      const auto class_code = read_kernel_file(options_.sysfs / "bus/pci/devices" / name / "class");
      if (class_code && class_code->starts_with("0x0300") && name != address.to_string()) found.push_back(name);
    }
    return found;
  }

  void step(PlanStep::Kind kind, PciAddress device, std::string argument, std::string text) {
    plan_.steps.push_back({kind, device, std::move(argument), std::move(text)});
  }

  Result<void> add_steps(const PassthroughDevice& device) {
    const std::string name = device.info.address.to_string();
    const PciAddress address = device.info.address;
    if (const auto framebuffer = find_boot_framebuffer(address, options_.sysfs, options_.root)) {
      for (const std::string& console : framebuffer->consoles)
        step(PlanStep::Kind::ReleaseConsole, address, console, fmt::format("take the text console {} off", console));
      step(PlanStep::Kind::ReleaseFramebuffer, address, framebuffer->device,
           fmt::format("take the boot framebuffer {} off {}", framebuffer->device, name));
      plan_.risks.push_back(
          fmt::format("{}: Linux 6.0 and later take the boot framebuffer down for good once vfio-pci has "
                      "the GPU: after release the screen stays dark until a driver of the GPU draws",
                      name));
    }
    step(PlanStep::Kind::SetOverride, address, kDriver, fmt::format("let only {} bind {}", kDriver, name));
    if (!device.info.driver.empty()) {
      step(PlanStep::Kind::Unbind, address, device.info.driver,
           fmt::format("take {} away from {}", name, device.info.driver));
    }
    if (const ResetChoice reset = choose_reset(device.info); reset.differs && !reset.methods.empty()) {
      const auto methods = fmt::format("{}", fmt::join(reset.methods, " "));
      step(PlanStep::Kind::SetResetMethods, address, methods,
           fmt::format("have {} reset by {} and not by {}", name, methods, fmt::join(reset.avoided, ", ")));
    }
    if (device.requested) {
      for (const auto& [bar, bytes] : take_.bar_sizes) {
        const auto now = std::ranges::find(device.info.bars, bar, &PciBar::index);
        if (now == device.info.bars.end())
          return fail(ErrorCode::InvalidArgument, "plan passthrough of", name, fmt::format("it has no BAR {}", bar));
        if (now->size == bytes) continue;
        step(PlanStep::Kind::ResizeBar, address, bar_size_text(bar, bytes),
             fmt::format("resize BAR {} of {} from {} to {} MiB", bar, name, now->size / kMiB, bytes / kMiB));
      }
    }
    if (device.info.class_and_subclass() == 0x0300) {
      auto arbiter = VgaArbiter::open(options_.root / "dev/vga_arbiter");
      const auto card = arbiter ? arbiter->status(address) : fail(arbiter.error());
      if (card && card->decodes != VgaResource::None)
        step(PlanStep::Kind::YieldVga, address, std::string(to_string(card->decodes)),
             fmt::format("have {} answer to legacy VGA addresses no more", name));
    }
    step(PlanStep::Kind::Bind, address, kDriver, fmt::format("bind {} to {}", name, kDriver));
    return {};
  }

  const PassthroughOptions& options_;
  const TakeOptions& take_;
  PassthroughPlan plan_;
};

}  // namespace

Result<PassthroughPlan> PassthroughManager::plan(std::span<const PciAddress> addresses,
                                                 const TakeOptions& options) const {
  if (addresses.empty()) return fail(VmError(ErrorCode::InvalidArgument, "plan passthrough", {}, "no device named"));
  const IommuManager iommu(options_.sysfs, options_.root);
  std::map<PciAddress, PassthroughDevice> chosen;
  const auto add = [&](PciDeviceInfo info, bool requested, std::string reason) {
    const PciAddress address = info.address;
    const DeviceType type = classify(info);
    auto& device = chosen.try_emplace(address, PassthroughDevice{std::move(info), type, false, std::move(reason), {}})
                       .first->second;
    device.requested |= requested;
  };
  // A GPU's audio and USB functions belong to it also where the IOMMU can tell them from it: they follow it here.
  std::vector<std::pair<PciAddress, std::string>> wanted;
  for (const PciAddress& address : addresses) wanted.emplace_back(address, "");
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const PciAddress address = wanted[i].first;
    auto info = read_pci_device(address, options_.sysfs);
    if (!info) return fail(info.error());
    if (info->is_bridge()) {
      return fail(VmError(ErrorCode::InvalidArgument, "plan passthrough of", address.to_string(), "it is a bridge")
                      .with_hint("name the devices below it: vmp pci tree"));
    }
    auto group = iommu.group_of(address);
    if (!group) return fail(group.error());
    for (PciDeviceInfo& member : group->devices) {
      if (member.is_bridge()) continue;
      const bool asked = std::ranges::find(addresses, member.address) != addresses.end();
      // Members without a driver do no harm; those of the same slot come along so that the slot can be reset.
      const bool must = !driver_is_harmless(member.driver);
      const bool companion = member.address.same_slot(address);
      if (!asked && !must && !companion && !is_vfio_driver(member.driver)) continue;
      std::string reason = fmt::format("{} shares IOMMU group {}{}", member.address.to_string(), group->number,
                                       companion ? " and the slot" : "");
      add(std::move(member), asked, wanted[i].second.empty() ? std::move(reason) : wanted[i].second);
    }
    for (const PciAddress& companion : gpu_companions(*info, options_.sysfs)) {
      if (std::ranges::find(wanted, companion, &std::pair<PciAddress, std::string>::first) == wanted.end())
        wanted.emplace_back(companion, "it belongs to the GPU " + address.to_string());
    }
  }
  const IommuStatus status = iommu.status();
  if (!status.vfio_available) {
    return fail(VmError(ErrorCode::Unsupported, "plan passthrough of", addresses.front().to_string(), "no vfio-pci")
                    .with_detail(PassthroughError::NoVfio)
                    .with_hint(status.problems.empty() ? "" : status.problems.back()));
  }
  Planner planner(options_, options);
  for (auto& [address, device] : chosen) {
    if (device.requested) device.reason.clear();
    if (auto added = planner.add(std::move(device)); !added) return fail(added.error());
  }
  return planner.finish();
}

}  // namespace vm_platform
