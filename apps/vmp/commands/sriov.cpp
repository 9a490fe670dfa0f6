// vmp sriov list | set | apply | delete; store and restore are in sriov_boot.cpp
#include <fmt/core.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <vm_platform/sriov.hpp>

#include "apps/vmp/command.hpp"
#include "apps/vmp/commands/sriov_boot.hpp"
#include "apps/vmp/table.hpp"

namespace vm_platform::vmp {
namespace {

struct Options {
  std::string name, file, mac, protocol, link, node_guid, port_guid, group, sysfs = "/sys";
  bool json = false, dry_run = false;
  std::optional<std::uint32_t> count, vf, vlan, qos, min_rate, max_rate;
  std::optional<bool> autoprobe, trust, spoof_check, rss_query, switchdev;
  std::optional<std::string> rate_group;  // of a virtual function
};

const char* on_off(const std::optional<bool>& value) { return !value ? "-" : *value ? "on" : "off"; }
constexpr const char* kLinks[] = {"auto", "enable", "disable"};

nlohmann::ordered_json config_json(const VfConfig& config) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (config.mac) json["mac"] = config.mac->to_string();
  if (config.vlan) {
    json["vlan"] = config.vlan->id;
    json["qos"] = config.vlan->qos;
    json["protocol"] = config.vlan->protocol == VlanConfig::Protocol::Dot1ad ? "802.1ad" : "802.1Q";
  }
  if (config.rate) json["min_rate"] = config.rate->min_rate, json["max_rate"] = config.rate->max_rate;
  if (config.trust) json["trust"] = *config.trust;
  if (config.spoof_check) json["spoof_check"] = *config.spoof_check;
  if (config.rss_query) json["rss_query"] = *config.rss_query;
  if (config.node_guid) json["node_guid"] = config.node_guid->to_string();
  if (config.port_guid) json["port_guid"] = config.port_guid->to_string();
  if (config.rate_group) json["rate_group"] = *config.rate_group;
  if (config.link) json["link"] = kLinks[static_cast<std::size_t>(*config.link)];
  return json;
}

nlohmann::ordered_json function_json(const VfState& vf) {
  nlohmann::ordered_json json{{"index", vf.id.index}, {"driver", vf.driver}};
  if (vf.address) json["address"] = vf.address->to_string();
  if (vf.iommu_group) json["iommu_group"] = *vf.iommu_group;
  json["config"] = config_json(vf.config);
  if (vf.stats) {
    json["stats"] = {{"rx_packets", vf.stats->rx_packets}, {"tx_packets", vf.stats->tx_packets},
                     {"rx_bytes", vf.stats->rx_bytes},     {"tx_bytes", vf.stats->tx_bytes},
                     {"broadcast", vf.stats->broadcast},   {"multicast", vf.stats->multicast},
                     {"rx_dropped", vf.stats->rx_dropped}, {"tx_dropped", vf.stats->tx_dropped}};
  }
  return json;
}

int list_functions(const VfManager& manager, bool as_json) {
  const auto functions = manager.list();
  if (!functions) return report(functions.error());
  auto json = nlohmann::ordered_json::array();
  Table table({"VF", "ADDRESS", "GROUP", "DRIVER", "MAC", "VLAN", "RATE", "TRUST", "SPOOF CHECK", "LINK"});
  for (const VfState& vf : *functions) {
    json.push_back(function_json(vf));
    const VfConfig& config = vf.config;
    table.add({std::to_string(vf.id.index), vf.address ? vf.address->to_string() : "-",
               vf.iommu_group ? std::to_string(*vf.iommu_group) : "-", vf.driver.empty() ? "-" : vf.driver,
               config.mac ? config.mac->to_string() : "-",
               config.vlan ? fmt::format("{}/{}", config.vlan->id, config.vlan->qos) : "-",
               config.rate ? fmt::format("{}-{}", config.rate->min_rate, config.rate->max_rate) : "-",
               on_off(config.trust), on_off(config.spoof_check),
               config.link ? kLinks[static_cast<std::size_t>(*config.link)] : "-"});
  }
  if (as_json) {
    fmt::print("{}\n", json.dump(2));
    return kDone;
  }
  if (table.has_rows())
    table.print();
  else
    fmt::print("{} has no virtual functions now.\n", manager.name());
  const auto groups = manager.rate_groups();
  if (!groups) return report(groups.error());
  for (const RateGroup& group : *groups)
    fmt::print("rate group {}: {} to {} Mbit/s\n", group.name, group.rate.min_rate, group.rate.max_rate);
  return kDone;
}

int list(const Options& options) {
  if (!options.name.empty()) {
    const auto manager = VfManager::open(options.name, options.sysfs);
    return manager ? list_functions(*manager, options.json) : report(manager.error());
  }
  const auto managers = SriovVfManager(options.sysfs).physical_functions();
  if (!managers) return report(managers.error());
  auto json = nlohmann::ordered_json::array();
  Table table({"DEVICE", "INTERFACE", "DRIVER", "VFS", "MOST", "OFFSET", "STRIDE", "VF DEVICE"});
  for (const VfManager& manager : *managers) {
    const auto device = manager.device();
    PciSriovInfo sriov;
    bool known = false;
    if (device) {
      if (const auto decoded = decode_sriov(device->config, device->capabilities)) sriov = *decoded, known = true;
    }
    const auto most = manager.limit();
    nlohmann::ordered_json entry{{"device", manager.name()},
                                 {"interface", manager.interface()},
                                 {"driver", manager.driver()},
                                 {"vfs", manager.count()}};
    if (most) entry["total_vfs"] = *most;
    if (const auto switchdev = manager.switchdev()) entry["switchdev"] = *switchdev;
    if (known) {
      entry["vf_offset"] = sriov.offset;
      entry["vf_stride"] = sriov.stride;
      entry["vf_device"] = fmt::format("{:04x}", sriov.device_id);
    }
    json.push_back(std::move(entry));
    table.add({manager.name(), manager.interface().empty() ? "-" : manager.interface(),
               manager.driver().empty() ? "-" : manager.driver(), std::to_string(manager.count()),
               most ? std::to_string(*most) : "-", known ? std::to_string(sriov.offset) : "-",
               known ? std::to_string(sriov.stride) : "-", known ? fmt::format("{:04x}", sriov.device_id) : "-"});
  }
  if (options.json)
    fmt::print("{}\n", json.dump(2));
  else if (table.has_rows())
    table.print();
  else
    fmt::print("No device of this host can have virtual functions.\n");
  return kDone;
}

Result<SriovDeclaration> declaration(const Options& options, const VfManager& manager) {
  SriovDeclaration wanted;
  wanted.physical_function = manager.name();
  wanted.count = options.count.value_or(manager.count());
  wanted.autoprobe = options.autoprobe;
  wanted.switchdev = options.switchdev;
  const QosConfig rate{options.min_rate.value_or(0), options.max_rate.value_or(0)};
  if (!options.group.empty() && options.vf)
    return fail(ErrorCode::InvalidArgument, "set up", manager.name(), "--group and --vf are two things to set up");
  if (!options.group.empty()) wanted.rate_groups.push_back({options.group, rate});
  VfConfig config;
  if (!options.mac.empty()) {
    const auto mac = VfMacConfig::parse(options.mac);
    if (!mac) return fail(mac.error());
    config.mac = *mac;
  }
  if (options.vlan || options.qos || !options.protocol.empty()) {
    config.vlan = VlanConfig{
        static_cast<std::uint16_t>(options.vlan.value_or(0)), static_cast<std::uint8_t>(options.qos.value_or(0)),
        options.protocol == "802.1ad" ? VlanConfig::Protocol::Dot1ad : VlanConfig::Protocol::Dot1q};
  }
  if (options.group.empty() && (options.min_rate || options.max_rate)) config.rate = rate;
  for (const auto& [text, member] :
       {std::pair(&options.node_guid, &VfConfig::node_guid), std::pair(&options.port_guid, &VfConfig::port_guid)}) {
    if (text->empty()) continue;
    const auto guid = VfGuid::parse(*text);
    if (!guid) return fail(guid.error());
    config.*member = *guid;
  }
  config.rate_group = options.rate_group;
  config.trust = options.trust;
  config.spoof_check = options.spoof_check;
  config.rss_query = options.rss_query;
  for (std::uint8_t i = 0; i < 3; ++i)
    if (options.link == kLinks[i]) config.link = static_cast<VfLinkState>(i);
  if (!config.empty() && !options.vf)
    return fail(
        VmError(ErrorCode::InvalidArgument, "set up", manager.name(), "which virtual function?").with_hint("--vf N"));
  if (options.vf && *options.vf >= wanted.count)
    return fail(ErrorCode::InvalidArgument, "set up", fmt::format("{} vf {}", manager.name(), *options.vf),
                fmt::format("it has {}", wanted.count));
  if (!config.empty()) wanted.functions.emplace_back(*options.vf, config);
  return wanted;
}

int converge(const std::vector<SriovDeclaration>& wanted, const Options& options) {
  const auto changes = diff_sriov(wanted, options.sysfs);
  if (!changes) return report(changes.error());
  auto json = nlohmann::ordered_json::array();
  for (const SriovChange& change : *changes) {
    json.push_back(change.what);
    if (!options.json) fmt::print("{}\n", change.what);
  }
  if (!options.dry_run) {
    const auto made = converge_sriov(wanted, options.sysfs);
    if (!made) return report(made.error());
  }
  if (options.json)
    fmt::print("{}\n", json.dump(2));
  else if (changes->empty())
    fmt::print("Nothing to do: all is as asked for.\n");
  return kDone;
}

int set(const Options& options) {
  const auto manager = VfManager::open(options.name, options.sysfs);
  if (!manager) return report(manager.error());
  const auto wanted = declaration(options, *manager);
  if (!wanted) return report(wanted.error());
  return converge({*wanted}, options);
}

int apply(const Options& options) {
  std::ifstream file(options.file, std::ios::binary);
  if (!file) return report(VmError::from_os(errno, "open", options.file));
  const auto wanted = parse_sriov_file(std::string(std::istreambuf_iterator<char>(file), {}));
  if (!wanted) return report(wanted.error());
  return converge(*wanted, options);
}

int remove(const Options& options) {
  const auto manager = VfManager::open(options.name, options.sysfs);
  if (!manager) return report(manager.error());
  SriovDeclaration none;
  none.physical_function = manager->name();
  return converge({none}, options);
}

}  // namespace

void add_sriov(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  auto* sriov = app.add_subcommand("sriov", "Make, set up and delete virtual functions (SR-IOV)");
  sriov->require_subcommand(1);
  const auto command = [&](const char* name, const char* text, int (*run)(const Options&)) {
    auto* added = sriov->add_subcommand(name, text);
    added->add_flag("--json", options->json, "Print one JSON document");
    added->add_option("--sysfs", options->sysfs, "Another sysfs tree than /sys");
    added->callback([&action, options, run] { action = [options, run] { return run(*options); }; });
    return added;
  };
  auto* list_command = command("list", "List physical functions, or the virtual functions of one", list);
  list_command->add_option("DEVICE", options->name, "PCI address or network interface");
  list_command->footer("Examples:\n  vmp sriov list\n  vmp sriov list eth0");

  auto* set_command = command("set", "Change the number of virtual functions, or set one up", set);
  set_command->add_option("DEVICE", options->name, "PCI address or network interface")->required();
  set_command->add_option("--count", options->count, "How many virtual functions");
  set_command->add_option("--autoprobe", options->autoprobe,
                          "Whether drivers of the host bind to new ones: true or false");
  set_command->add_option("--vf", options->vf, "The one that the following settings are for");
  set_command->add_option("--mac", options->mac, "MAC address");
  set_command->add_option("--vlan", options->vlan, "VLAN, 0 for none")->check(CLI::Range(0, 4094));
  set_command->add_option("--qos", options->qos, "Priority in the VLAN")->check(CLI::Range(0, 7))->needs("--vlan");
  set_command->add_option("--protocol", options->protocol, "Of the VLAN")
      ->check(CLI::IsMember({"802.1Q", "802.1ad"}))
      ->needs("--vlan");
  set_command->add_option("--min-rate", options->min_rate,
                          "Mbit/s, 0 for no limit; set together with --max-rate: the one not given becomes 0");
  set_command->add_option("--max-rate", options->max_rate, "Mbit/s, 0 for no limit; see --min-rate");
  set_command->add_option("--trust", options->trust, "true or false");
  set_command->add_option("--spoof-check", options->spoof_check, "true or false");
  set_command->add_option("--rss-query", options->rss_query, "true or false");
  set_command->add_option("--link", options->link, "Link state")->check(CLI::IsMember({"auto", "enable", "disable"}));
  set_command->add_option("--node-guid", options->node_guid, "InfiniBand node GUID");
  set_command->add_option("--port-guid", options->port_guid, "InfiniBand port GUID");
  set_command->add_option("--rate-group", options->rate_group, "Rate group to be in (switchdev mode), \"\" for none");
  set_command->add_option("--switchdev", options->switchdev, "Mode of the device's eswitch: true or false");
  set_command->add_option("--group", options->group, "Make or change this rate group, by --min-rate and --max-rate");
  set_command->add_flag("--dry-run", options->dry_run, "Only say what would change");
  set_command->footer(
      "Each setting is read back and compared.\n\nExamples:\n  sudo vmp sriov set 3b:00.0 --count 4\n"
      "  sudo vmp sriov set eth0 --vf 2 --mac 52:54:00:12:34:56 --vlan 100\n"
      "  sudo vmp sriov set eth0 --switchdev true --group guests --max-rate 1000");

  auto* apply_command = command("apply", "Make the host as a file says", apply);
  apply_command->add_option("FILE", options->file, "YAML, as docs/passthrough.md shows")->required();
  apply_command->add_flag("--dry-run", options->dry_run, "Only say what would change");
  apply_command->footer("Examples:\n  vmp sriov apply --dry-run sriov.yaml\n  sudo vmp sriov apply sriov.yaml");

  auto* delete_command = command("delete", "Delete all virtual functions of a device", remove);
  delete_command->add_option("DEVICE", options->name, "PCI address or network interface")->required();
  delete_command->add_flag("--dry-run", options->dry_run, "Only say what would change");
  delete_command->footer("Example:\n  sudo vmp sriov delete 3b:00.0");
  add_sriov_boot(*sriov, action);
}

}  // namespace vm_platform::vmp
