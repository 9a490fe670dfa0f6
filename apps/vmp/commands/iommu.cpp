// vmp iommu groups
#include <fmt/core.h>

#include <memory>
#include <vm_platform/iommu.hpp>

#include "apps/vmp/command.hpp"
#include "apps/vmp/pci_json.hpp"
#include "apps/vmp/table.hpp"

namespace vm_platform::vmp {
namespace {

struct Options {
  std::string sysfs = "/sys", root = "/", address;
  bool json = false;
};

nlohmann::ordered_json group_json(const IommuGroup& group, const GroupViability& viability, const PciNames& names) {
  nlohmann::ordered_json json{{"group", group.number}, {"type", group.type}, {"viable", viability.viable}};
  json["reasons"] = viability.reasons;
  json["isolation"] = viability.isolation;
  json["devices"] = nlohmann::ordered_json::array();
  for (const PciDeviceInfo& device : group.devices) json["devices"].push_back(summary_json(device, names));
  json["reserved"] = nlohmann::ordered_json::array();
  for (const ReservedRegion& region : group.reserved)
    json["reserved"].push_back({{"first", fmt::format("{:#x}", region.first)},
                                {"last", fmt::format("{:#x}", region.last)},
                                {"type", region.type}});
  return json;
}

void print_group(const IommuGroup& group, const GroupViability& viability, const PciNames& names) {
  fmt::print("{}{}  {}\n", bold(fmt::format("group {}", group.number)),
             group.type.empty() ? "" : dim(" (" + group.type + ")"),
             viability.viable ? "can be given away" : "in use by the host");
  for (std::size_t i = 0; i < group.devices.size(); ++i) {
    const PciDeviceInfo& device = group.devices[i];
    fmt::print("{} {}  [{}] {}  {}\n", i + 1 == group.devices.size() ? "└─" : "├─", device.address.to_string(),
               id_text(device.vendor, device.device), names.describe(device),
               dim(device.driver.empty() ? "no driver" : device.driver));
  }
  for (const std::string& reason : viability.reasons) fmt::print("   - {}\n", reason);
  for (const std::string& reason : viability.isolation) fmt::print("   {}\n", dim("joined because " + reason));
  for (const ReservedRegion& region : group.reserved)
    fmt::print("   {}\n", dim(fmt::format("reserved {:#x}-{:#x} {}", region.first, region.last, region.type)));
}

int groups(const Options& options) {
  const IommuManager manager(options.sysfs, options.root);
  Result<std::vector<IommuGroup>> found = std::vector<IommuGroup>{};
  if (options.address.empty()) {
    found = manager.groups();
  } else {
    const auto address = PciAddress::parse(options.address);
    if (!address) return report(address.error());
    auto group = manager.group_of(*address);
    if (!group) return report(group.error());
    found->push_back(std::move(*group));
  }
  if (!found) return report(found.error());
  const auto all = scan_pci(options.sysfs);
  if (!all) return report(all.error());
  const auto names = PciNames::load();
  auto json = nlohmann::ordered_json::array();
  for (const IommuGroup& group : *found) {
    const auto viability = IommuManager::viability(group, *all);
    if (options.json)
      json.push_back(group_json(group, viability, names));
    else
      print_group(group, viability, names);
  }
  if (options.json) fmt::print("{}\n", json.dump(2));
  return kDone;
}

}  // namespace

void add_iommu(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  auto* iommu = app.add_subcommand("iommu", "See what the IOMMU can isolate");
  iommu->require_subcommand(1);
  auto* command = iommu->add_subcommand("groups", "List IOMMU groups, whether each can be given away, and why not");
  command->add_option("ADDRESS", options->address, "Only the group of this device");
  command->add_flag("--json", options->json, "Print one JSON document");
  command->add_option("--sysfs", options->sysfs, "Another sysfs tree than /sys");
  command->add_option("--root", options->root, "Where /proc, /boot and /lib are looked up");
  command->footer(
      "A group is the smallest set of devices that can be handed to a guest. Bridges in it do not matter; other\n"
      "devices must have vfio-pci, pci-stub or no driver.\n\nExamples:\n  vmp iommu groups\n  vmp iommu groups "
      "3b:00.0");
  command->callback([&action, options] { action = [options] { return groups(*options); }; });
}

}  // namespace vm_platform::vmp
