#include "apps/vmp/pci_json.hpp"

#include <fmt/compile.h>
#include <fmt/format.h>

namespace vm_platform::vmp {

std::string id_text(std::uint16_t vendor, std::uint16_t device) {
  return fmt::format(FMT_COMPILE("{:04x}:{:04x}"), vendor, device);
}

nlohmann::ordered_json summary_json(const PciDeviceInfo& device, const PciNames& names) {
  nlohmann::ordered_json json;
  json["address"] = device.address.to_string();
  json["id"] = id_text(device.vendor, device.device);
  json["class"] = fmt::format("{:06x}", device.class_code);
  json["class_name"] = names.class_name(device.class_code);
  json["name"] = names.describe(device);
  json["revision"] = device.revision;
  json["driver"] = device.driver.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(device.driver);
  json["iommu_group"] =
      device.iommu_group ? nlohmann::ordered_json(*device.iommu_group) : nlohmann::ordered_json(nullptr);
  json["path"] = device.device_path;
  json["parent"] = device.parent ? nlohmann::ordered_json(device.parent->to_string()) : nlohmann::ordered_json(nullptr);
  return json;
}

nlohmann::ordered_json detail_json(const PciDeviceInfo& device, const PciNames& names) {
  auto json = summary_json(device, names);
  json["subsystem_id"] = id_text(device.subsystem_vendor, device.subsystem_device);
  json["subsystem_name"] =
      names.subsystem(device.vendor, device.device, device.subsystem_vendor, device.subsystem_device);
  json["header_type"] = device.header_type;
  json["multifunction"] = device.multifunction;
  json["driver_override"] = device.driver_override;
  json["reset_methods"] = device.reset_methods;
  json["numa_node"] = device.numa_node;
  json["irq"] = device.irq;
  json["power_state"] = device.power_state;
  json["children"] = device.children;
  if (device.label) json["label"] = *device.label;
  if (device.acpi_index) json["acpi_index"] = *device.acpi_index;
  if (device.serial_number) json["serial_number"] = fmt::format("{:016x}", *device.serial_number);
  if (device.physical_function) json["physical_function"] = device.physical_function->to_string();
  if (device.sriov_total != 0) json["sriov"] = {{"total_vfs", device.sriov_total}, {"vfs", device.sriov_num}};
  json["bars"] = nlohmann::ordered_json::array();
  for (const PciBar& bar : device.bars) {
    json["bars"].push_back({{"index", bar.index},
                            {"kind", bar.io ? "io" : "memory"},
                            {"base", fmt::format("{:#x}", bar.base)},
                            {"size", bar.size},
                            {"64bit", bar.is_64bit},
                            {"prefetchable", bar.prefetchable}});
  }
  json["config_bytes"] = device.config.size();
  if (device.config.contains(4, 4)) {
    json["command"] = fmt::format("{:04x}", device.config.u16(4));
    json["status"] = fmt::format("{:04x}", device.config.u16(6));
  }
  json["capabilities"] = nlohmann::ordered_json::array();
  for (const PciCapability& capability : device.capabilities.list) {
    nlohmann::ordered_json entry{{"id", capability.id},
                                 {"extended", capability.extended},
                                 {"offset", capability.offset},
                                 {"name", capability_name(capability)}};
    if (capability.extended) entry["version"] = capability.version;
    auto fields = nlohmann::ordered_json::object();
    for (const PciField& field : describe_capability(device.config, capability)) fields[field.name] = field.value;
    entry["fields"] = std::move(fields);
    json["capabilities"].push_back(std::move(entry));
  }
  json["anomalies"] = device.capabilities.anomalies;
  return json;
}

}  // namespace vm_platform::vmp
