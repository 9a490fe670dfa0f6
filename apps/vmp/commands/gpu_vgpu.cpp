// vmp gpu vgpu list | create | remove
#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <vm_platform/vgpu.hpp>

#include "apps/vmp/commands/gpu.hpp"
#include "apps/vmp/table.hpp"

namespace vm_platform::vmp {
namespace {

struct Options {
  std::string parent, type, uuid, id, sysfs = "/sys";
  bool json = false, dry_run = false;
};

nlohmann::ordered_json device_json(const VgpuDevice& device) {
  return {{"id", device.id},
          {"parent", device.parent},
          {"type", device.type},
          {"style", to_string(device.style)},
          {"iommu_group",
           device.iommu_group ? nlohmann::ordered_json(*device.iommu_group) : nlohmann::ordered_json(nullptr)}};
}

int list(const Options& options) {
  const VgpuManager manager(options.sysfs);
  const auto types = manager.types();
  const auto devices = manager.devices();
  nlohmann::ordered_json json{{"types", nlohmann::ordered_json::array()}, {"devices", nlohmann::ordered_json::array()}};
  Table can({"PARENT", "TYPE", "MORE", "STYLE", "NAME"}), made({"ID", "PARENT", "TYPE", "GROUP"});
  for (const VgpuType& type : types) {
    json["types"].push_back({{"parent", type.parent},
                             {"type", type.id},
                             {"name", type.name},
                             {"style", to_string(type.style)},
                             {"device_api", type.device_api},
                             {"description", type.description},
                             {"available", type.available}});
    can.add({type.parent, type.id, std::to_string(type.available), std::string(to_string(type.style)), type.name});
  }
  for (const VgpuDevice& device : devices) {
    json["devices"].push_back(device_json(device));
    made.add({device.id, device.parent, device.type, device.iommu_group ? std::to_string(*device.iommu_group) : "-"});
  }
  if (options.json) {
    fmt::print("{}\n", json.dump(2));
  } else if (types.empty() && devices.empty()) {
    fmt::print("No driver of this host hands out parts of a device.\n");
  } else {
    if (can.has_rows()) can.print();
    if (made.has_rows()) {
      if (can.has_rows()) fmt::print("\n");
      made.print();
    }
  }
  return kDone;
}

int create(const Options& options) {
  if (options.dry_run) {
    fmt::print("would make {} of {}\n", options.type, options.parent);
    return kDone;
  }
  const auto device = VgpuManager(options.sysfs).create(options.parent, options.type, options.uuid);
  if (!device) return report(device.error());
  if (options.json)
    fmt::print("{}\n", device_json(*device).dump(2));
  else
    fmt::print("{}\n", device->id);
  return kDone;
}

int remove(const Options& options) {
  if (options.dry_run) {
    fmt::print("would remove {}\n", options.id);
    return kDone;
  }
  if (auto removed = VgpuManager(options.sysfs).remove(options.id); !removed) return report(removed.error());
  if (options.json) fmt::print("{}\n", nlohmann::ordered_json{{"id", options.id}}.dump(2));
  return kDone;
}

}  // namespace

void add_vgpu(CLI::App& gpu, Action& action) {
  auto options = std::make_shared<Options>();
  auto* vgpu = gpu.add_subcommand("vgpu", "Parts of a device that its driver hands out (mediated devices, typed VFs)");
  vgpu->require_subcommand(1);
  const auto command = [&](const char* name, const char* text, int (*run)(const Options&)) {
    auto* added = vgpu->add_subcommand(name, text);
    added->add_flag("--json", options->json, "Print one JSON document");
    added->add_option("--sysfs", options->sysfs, "Another sysfs tree than /sys");
    added->callback([&action, options, run] { action = [options, run] { return run(*options); }; });
    return added;
  };
  command("list", "List what can be made, and what is made", list)
      ->footer("Virtual functions without types are shown by `vmp sriov list`.\n\nExample:\n  vmp gpu vgpu list");
  auto* create_command = command("create", "Make one, and print its name", create);
  create_command->add_option("PARENT", options->parent, "As listed: a PCI address, or the driver's name")->required();
  create_command->add_option("TYPE", options->type, "As listed")->required();
  create_command->add_option("--uuid", options->uuid, "The name of a mediated device; made up where left out");
  create_command->add_flag("--dry-run", options->dry_run, "Only say what would be done");
  create_command->footer("Example:\n  sudo vmp gpu vgpu create 0000:01:00.0 nvidia-35");
  auto* remove_command = command("remove", "Remove one", remove);
  remove_command->add_option("ID", options->id, "As listed")->required();
  remove_command->add_flag("--dry-run", options->dry_run, "Only say what would be done");
  remove_command->footer("Example:\n  sudo vmp gpu vgpu remove 5c1a2f54-7d4b-4f3b-9d0e-0f6a5a2a1b3c");
}

}  // namespace vm_platform::vmp
