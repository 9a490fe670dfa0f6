// vmp pci list | show | tree
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <span>
#include <vm_platform/pci_device.hpp>

#include "apps/vmp/command.hpp"
#include "apps/vmp/pci_json.hpp"
#include "apps/vmp/table.hpp"

namespace vm_platform::vmp {
namespace {

struct Options {
  std::string sysfs = "/sys", dump, filter, address;
  bool json = false;
};

/// From the host, from another sysfs tree, or from a dump ("-" is standard input).
Result<std::vector<PciDeviceInfo>> functions(const Options& options, PciScanDetail detail) {
  if (options.dump.empty()) return scan_pci(options.sysfs, detail);
  std::ifstream file;
  if (options.dump != "-") {
    file.open(options.dump, std::ios::binary);
    if (!file) return fail(VmError::from_os(errno, "open", options.dump));
  }
  std::istream& input = options.dump == "-" ? std::cin : file;
  return parse_pci_dump(std::string(std::istreambuf_iterator<char>(input), {}));
}

bool matches(const PciDeviceInfo& device, const PciNames& names, const std::string& filter) {
  if (filter.empty()) return true;
  const auto lower = [](std::string text) {
    std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
  };
  const std::string all = device.address.to_string() + " " + id_text(device.vendor, device.device) + " " +
                          device.driver + " " + names.describe(device) + " " +
                          std::string(names.class_name(device.class_code));
  return lower(all).find(lower(filter)) != std::string::npos;
}

/// Hands on all functions, one at a time, or the one asked for.
Result<void> each(const Options& options, PciScanDetail detail,
                  const std::function<void(const PciDeviceInfo&)>& visit) {
  if (options.address.empty() && options.dump.empty()) return visit_pci(visit, options.sysfs, detail);
  std::vector<PciAddress> wanted;
  if (!options.address.empty()) {
    const auto address = PciAddress::parse(options.address);
    if (!address) return fail(address.error());
    wanted.push_back(*address);
  }
  if (options.dump.empty()) {
    const auto device = read_pci_device(wanted.front(), options.sysfs);
    if (!device) return fail(device.error());
    visit(*device);
    return {};
  }
  const auto all = functions(options, detail);
  if (!all) return fail(all.error());
  bool found = wanted.empty();
  for (const PciDeviceInfo& device : *all) {
    if (!wanted.empty() && device.address != wanted.front()) continue;
    visit(device);
    found = true;
  }
  if (!found) return fail(ErrorCode::NotFound, "read PCI device", wanted.front().to_string(), "not in it");
  return {};
}

int list(const Options& options) {
  const auto names = PciNames::load();
  auto json = nlohmann::ordered_json::array();
  Table table({"ADDRESS", "GROUP", "ID", "DRIVER", "CLASS", "NAME"});
  const auto listed = each(options, PciScanDetail::Basic, [&](const PciDeviceInfo& device) {
    if (!matches(device, names, options.filter)) return;
    if (options.json) {
      json.push_back(summary_json(device, names));
      return;
    }
    const std::string revision = device.revision == 0 ? "" : fmt::format(" (rev {:02x})", device.revision);
    table.add({device.address.to_string(), device.iommu_group ? std::to_string(*device.iommu_group) : "-",
               id_text(device.vendor, device.device), device.driver.empty() ? "-" : device.driver,
               names.class_name(device.class_code), names.describe(device) + revision});
  });
  if (!listed) return report(listed.error());
  if (options.json)
    fmt::print("{}\n", json.dump(2));
  else if (!table.has_rows() && !options.filter.empty())
    fmt::print("No device has '{}' in its address, ID, driver, class or name.\n", options.filter);
  else
    table.print();
  return kDone;
}

std::string size_text(std::uint64_t bytes) {
  if (bytes == 0) return "size unknown";
  constexpr std::string_view kUnits[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes % 1024 == 0 && unit + 1 < std::size(kUnits)) bytes /= 1024, ++unit;
  return fmt::format("{} {}", bytes, kUnits[unit]);
}

/// The bits of the command register, or the errors in the status register (PCI Local Bus
/// Specification 3.0, 6.2.2, 6.2.3).
std::string set_bits(std::uint16_t value, std::span<const std::pair<unsigned, std::string_view>> names) {
  std::vector<std::string_view> set;
  for (const auto& [bit, name] : names)
    if ((value >> bit & 1) != 0) set.push_back(name);
  return fmt::format("{}", fmt::join(set, ", "));
}
constexpr std::pair<unsigned, std::string_view> kCommandBits[] = {{0, "I/O"},    {1, "memory"}, {2, "bus master"},
                                                                  {6, "parity"}, {8, "SERR"},   {10, "no INTx"}};
constexpr std::pair<unsigned, std::string_view> kErrorBits[] = {
    {8, "parity (master)"},        {11, "target abort signalled"}, {12, "target abort received"},
    {13, "master abort received"}, {14, "SERR signalled"},         {15, "parity detected"}};

std::string device_text(const PciDeviceInfo& device, const PciNames& names) {
  constexpr std::size_t kNameWidth = 14;
  std::string text = bold(device.address.to_string()) + "  " + names.describe(device) + "\n";
  const auto line = [&](std::string_view name, std::string_view value) {
    if (value.empty()) return;
    text.append("  ").append(name).append(std::max(name.size(), kNameWidth) - name.size() + 1, ' ');
    text.append(value).append("\n");
  };
  line("id", id_text(device.vendor, device.device) + fmt::format(" (rev {:02x})", device.revision));
  const auto subsystem =
      names.subsystem(device.vendor, device.device, device.subsystem_vendor, device.subsystem_device);
  line("subsystem", id_text(device.subsystem_vendor, device.subsystem_device) +
                        (subsystem.empty() ? "" : " " + std::string(subsystem)));
  line("class", fmt::format("{:06x} {}", device.class_code, names.class_name(device.class_code)));
  if (device.config.contains(4, 4)) {
    line("enabled", set_bits(device.config.u16(4), kCommandBits));
    line("errors", set_bits(device.config.u16(6), kErrorBits));
  }
  line("driver", device.driver.empty() ? "none" : device.driver);
  line("override", device.driver_override);
  line("made", fmt::format("{}", fmt::join(device.children, ", ")));
  line("IOMMU group", device.iommu_group ? std::to_string(*device.iommu_group) : "none");
  line("below", device.parent ? device.parent->to_string() : "");
  line("path", device.device_path);
  line("label", device.label.value_or(""));
  line("ACPI index", device.acpi_index ? std::to_string(*device.acpi_index) : "");
  line("serial", device.serial_number ? fmt::format("{:016x}", *device.serial_number) : "");
  line("NUMA node", device.numa_node < 0 ? "" : std::to_string(device.numa_node));
  line("interrupt", device.irq == 0 ? "" : std::to_string(device.irq));
  line("power", device.power_state);
  line("resets", fmt::format("{}", fmt::join(device.reset_methods, ", ")));
  line("VF of", device.physical_function ? device.physical_function->to_string() : "");
  if (device.sriov_total != 0) line("VFs", fmt::format("{} of {}", device.sriov_num, device.sriov_total));
  for (const PciBar& bar : device.bars) {
    const std::string name = bar.index == 6  ? "ROM"
                             : bar.index > 6 ? fmt::format("VF BAR {}", bar.index - 7)
                                             : fmt::format("BAR {}", bar.index);
    line(name, fmt::format("{} at {:#x}, {}{}{}", bar.io ? "I/O" : "memory", bar.base, size_text(bar.size),
                           bar.is_64bit ? ", 64-bit" : "", bar.prefetchable ? ", prefetchable" : ""));
  }
  for (const PciCapability& capability : device.capabilities.list) {
    text +=
        fmt::format("  [{:0{}x}] {}\n", capability.offset, capability.extended ? 3 : 2, capability_name(capability));
    for (const PciField& field : describe_capability(device.config, capability))
      text.append("         ").append(dim(field.name)).append(": ").append(field.value).append("\n");
  }
  if (device.config.size() == 64 && device.header_type == 0 && (device.config.u16(6) & 0x10) != 0)
    line("note", "only the header is readable: run as root to see capabilities");
  for (const std::string& anomaly : device.capabilities.anomalies) line("anomaly", anomaly);
  return text;
}

int show(const Options& options) {
  const auto names = PciNames::load();
  auto json = nlohmann::ordered_json::array();
  const auto shown = each(options, PciScanDetail::Full, [&](const PciDeviceInfo& device) {
    if (options.json) {
      json.push_back(detail_json(device, names));
      return;
    }
    const std::string text = device_text(device, names);
    std::fwrite(text.data(), 1, text.size(), stdout);
  });
  if (!shown) return report(shown.error());
  if (options.json) fmt::print("{}\n", (options.address.empty() ? json : json.front()).dump(2));
  return kDone;
}

using Children = std::multimap<std::optional<PciAddress>, const PciDeviceInfo*>;

void print_branch(const Children& children, const std::optional<PciAddress>& parent, const std::string& indent,
                  const PciNames& names) {
  const auto [first, last] = children.equal_range(parent);
  for (auto child = first; child != last; ++child) {
    const PciDeviceInfo& device = *child->second;
    const bool is_last = std::next(child) == last;
    fmt::print("{}{}{}  {}{}{}\n", indent, is_last ? "└─ " : "├─ ", bold(device.address.to_string()),
               names.describe(device), device.driver.empty() ? "" : dim("  " + device.driver),
               device.iommu_group ? dim(fmt::format("  group {}", *device.iommu_group)) : "");
    print_branch(children, device.address, indent + (is_last ? "   " : "│  "), names);
  }
}

nlohmann::ordered_json json_branch(const Children& children, const std::optional<PciAddress>& parent,
                                   const PciNames& names) {
  auto json = nlohmann::ordered_json::array();
  const auto [first, last] = children.equal_range(parent);
  for (auto child = first; child != last; ++child) {
    auto entry = summary_json(*child->second, names);
    entry["below"] = json_branch(children, child->second->address, names);
    json.push_back(std::move(entry));
  }
  return json;
}

int tree(const Options& options) {
  const auto found = functions(options, PciScanDetail::Basic);
  if (!found) return report(found.error());
  const auto names = PciNames::load();
  Children children;
  for (const PciDeviceInfo& device : *found) {
    const bool has_parent =
        device.parent && std::ranges::find(*found, *device.parent, &PciDeviceInfo::address) != found->end();
    children.emplace(has_parent ? device.parent : std::nullopt, &device);
  }
  if (options.json)
    fmt::print("{}\n", json_branch(children, std::nullopt, names).dump(2));
  else
    print_branch(children, std::nullopt, "", names);
  return kDone;
}

void common(CLI::App& command, Options& options) {
  command.add_flag("--json", options.json, "Print one JSON document");
  command.add_option("--sysfs", options.sysfs, "Another sysfs tree than /sys");
  command.add_option("--dump", options.dump,
                     "Read `lspci -D -xxxx` or `udevadm info --export-db` output from this file (- is standard input)");
}

}  // namespace

void add_pci(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  auto* pci = app.add_subcommand("pci", "See the host's PCI devices");
  pci->require_subcommand(1);

  auto* list_command = pci->add_subcommand("list", "List PCI devices");
  common(*list_command, *options);
  list_command->add_option("FILTER", options->filter,
                           "Only those whose address, id, class, driver or name has this in it");
  list_command->footer("Examples:\n  vmp pci list\n  vmp pci list nvme\n  vmp pci list --json | jq '.[].address'");
  list_command->callback([&action, options] { action = [options] { return list(*options); }; });

  auto* show_command = pci->add_subcommand("show", "Show all that is known of a device, or of each");
  common(*show_command, *options);
  show_command->add_option("ADDRESS", options->address, "Such as 0000:3b:00.0 or 3b:00.0; all without");
  show_command->footer(
      "Capabilities are readable for root only.\n\nExamples:\n  sudo vmp pci show 3b:00.0\n"
      "  vmp pci show 03:00.0 --dump lspci.txt");
  show_command->callback([&action, options] { action = [options] { return show(*options); }; });

  auto* tree_command = pci->add_subcommand("tree", "Show bridges and what is below them");
  common(*tree_command, *options);
  tree_command->footer("Example:\n  vmp pci tree");
  tree_command->callback([&action, options] { action = [options] { return tree(*options); }; });
}

}  // namespace vm_platform::vmp
