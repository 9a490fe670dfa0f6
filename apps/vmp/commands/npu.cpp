// vmp npu list
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <vm_platform/npu.hpp>

#include "apps/vmp/command.hpp"
#include "apps/vmp/pci_json.hpp"
#include "apps/vmp/table.hpp"

namespace vm_platform::vmp {
namespace {

int list(const std::string& sysfs, bool as_json) {
  const auto found = NpuPassthrough::list(sysfs);
  if (!found) return report(found.error());
  const auto names = PciNames::load();
  auto json = nlohmann::ordered_json::array();
  Table table({"ADDRESS", "GROUP", "ID", "DRIVER", "NODES", "FAMILY", "NEEDS"});
  for (const NpuConfig& npu : *found) {
    auto entry = summary_json(npu.device, names);
    entry["family"] = npu.family;
    entry["needs"] = npu.needs;
    entry["accel_nodes"] = npu.accel_nodes;
    json.push_back(std::move(entry));
    table.add({npu.device.address.to_string(), npu.device.iommu_group ? std::to_string(*npu.device.iommu_group) : "-",
               id_text(npu.device.vendor, npu.device.device), npu.device.driver.empty() ? "-" : npu.device.driver,
               npu.accel_nodes.empty() ? "-" : fmt::format("{}", fmt::join(npu.accel_nodes, ",")), npu.family,
               npu.needs});
  }
  if (as_json)
    fmt::print("{}\n", json.dump(2));
  else if (table.has_rows())
    table.print();
  else
    fmt::print("This host has no accelerators that are known.\n");
  return kDone;
}

}  // namespace

void add_npu(CLI::App& app, Action& action) {
  struct Options {
    std::string sysfs = "/sys";
    bool json = false;
  };
  auto options = std::make_shared<Options>();
  auto* npu = app.add_subcommand("npu", "See NPUs and other processing accelerators");
  npu->require_subcommand(1);
  auto* command = npu->add_subcommand("list", "List accelerators and what handing them to a guest needs");
  command->add_flag("--json", options->json, "Print one JSON document");
  command->add_option("--sysfs", options->sysfs, "Another sysfs tree than /sys");
  command->footer("Example:\n  vmp npu list");
  command->callback([&action, options] { action = [options] { return list(options->sysfs, options->json); }; });
}

}  // namespace vm_platform::vmp
