#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <vm_platform/passthrough.hpp>
#include <vm_platform/sriov.hpp>

#include "passthrough/devlink.hpp"
#include "passthrough/in_use.hpp"
#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"
#include "passthrough/vf_config.hpp"
#include "passthrough/vf_netlink.hpp"

namespace vm_platform {
namespace {

std::optional<std::uint32_t> read_number(const std::filesystem::path& path) {
  const auto content = read_kernel_file(path);
  return content ? text::number<std::uint32_t>(text::trim(*content)) : std::nullopt;
}

/// The physical function's own interface: in switchdev mode those that stand for its functions (named pf0vf3 and so on)
/// are beside it.
std::string uplink_of(const std::filesystem::path& device) {
  for (const std::string& interface : list_directory(device / "net")) {
    const auto port = read_kernel_file(device / "net" / interface / "phys_port_name");
    if (!port || (port->find("vf") == std::string::npos && port->find("sf") == std::string::npos)) return interface;
  }
  return {};
}

}  // namespace

Result<VfManager> VfManager::open(std::string_view name, const std::filesystem::path& sysfs,
                                  const std::filesystem::path& root) {
  VfManager manager;
  manager.sysfs_ = sysfs;
  manager.root_ = root;
  std::error_code error;
  if (const auto address = PciAddress::parse(name)) {
    manager.address_ = *address;
    manager.name_ = address->to_string();
    manager.device_ = sysfs / "bus/pci/devices" / manager.name_;
    manager.interface_ = uplink_of(manager.device_);
  } else {
    if (name.empty() || name.find('/') != std::string_view::npos)
      return fail(ErrorCode::InvalidArgument, "find physical function", std::string(name),
                  "neither a PCI address nor an interface");
    manager.name_ = manager.interface_ = name;
    manager.device_ = std::filesystem::canonical(sysfs / "class/net" / manager.interface_ / "device", error);
    if (const auto behind = PciAddress::parse(manager.device_.filename().string())) manager.address_ = *behind;
  }
  if (error || !std::filesystem::exists(manager.device_, error)) {
    return fail(VmError(ErrorCode::NotFound, "find physical function", std::string(name), "no such device")
                    .with_hint("`vmp sriov list` shows those that are there"));
  }
  if (!std::filesystem::exists(manager.device_ / "sriov_numvfs", error)) {
    return fail(VmError(ErrorCode::Unsupported, "find physical function", std::string(name),
                        "it has no virtual functions to give")
                    .with_hint("SR-IOV may be off in the firmware setup or in the card's own"));
  }
  manager.driver_ = link_name(manager.device_ / "driver").value_or("");
  if (sysfs == "/sys") {  // devlink is the running kernel's, whatever tree is looked at
    const auto place = std::filesystem::canonical(manager.device_, error);
    if (const auto bus = link_name(manager.device_ / "subsystem"); bus && !error)
      manager.devlink_ = std::make_shared<const DevlinkHandle>(DevlinkHandle{*bus, place.filename().string()});
  }
  return manager;
}

std::optional<PciDeviceInfo> VfManager::device() const {
  if (!address_) return std::nullopt;
  auto info = read_pci_device(*address_, sysfs_);
  return info ? std::optional(std::move(*info)) : std::nullopt;
}

std::optional<std::uint32_t> VfManager::limit() const { return read_number(device_ / "sriov_totalvfs"); }
std::uint32_t VfManager::count() const { return read_number(device_ / "sriov_numvfs").value_or(0); }

std::optional<bool> VfManager::autoprobe() const {
  const auto value = read_number(device_ / "sriov_drivers_autoprobe");
  return value ? std::optional(*value != 0) : std::nullopt;
}

Result<void> VfManager::set_autoprobe(bool on) {
  const std::string operation = "set driver probing of the virtual functions of";
  auto written = write_kernel_file(device_ / "sriov_drivers_autoprobe", on ? "1" : "0", operation + " " + name_);
  if (!written) return written;
  if (autoprobe() != on) return fail(ErrorCode::Io, operation, name_, "the kernel did not change it");
  return {};
}

Result<void> VfManager::resize(std::uint32_t wanted, std::optional<bool> autoprobe, HostUse use) {
  const auto most = limit();
  const std::string subject = fmt::format("{} to {}", name_, wanted);
  if (most && wanted > *most) {
    return fail(VmError(ErrorCode::InvalidArgument, "set virtual functions of", subject,
                        fmt::format("it can have {} at most", *most)));
  }
  const std::uint32_t before = count();
  if (before != 0 && before != wanted) {
    if (auto unused = check_unused(use); !unused) return unused;
  }
  const auto former_autoprobe = this->autoprobe();
  const bool other_autoprobe = autoprobe && former_autoprobe && autoprobe != former_autoprobe;
  if (other_autoprobe) {
    if (auto set = set_autoprobe(*autoprobe); !set) return set;
  }
  if (before == wanted) return {};
  const auto write = [&](std::uint32_t number) {
    return write_kernel_file(device_ / "sriov_numvfs", std::to_string(number), "set virtual functions of " + name_);
  };
  Result<void> made;
  if (before != 0) made = write(0);  // from one number to another only through 0: the kernel says EBUSY otherwise
  if (made && wanted != 0) made = write(wanted);
  if (!made) {
    if (other_autoprobe) (void)set_autoprobe(*former_autoprobe);  // first, for the drivers of those made anew
    if (count() != before) (void)write(before);
    if (made.error().os_error() == ENOENT || made.error().os_error() == EOPNOTSUPP) {
      return fail(ErrorCode::Unsupported, "set virtual functions of", subject,
                  fmt::format("the driver {} cannot", driver_.empty() ? "(none)" : driver_));
    }
    return made;
  }
  if (const std::uint32_t now = count(); now != wanted) {
    return fail(ErrorCode::Io, "set virtual functions of", subject, fmt::format("the kernel made {}", now));
  }
  return {};
}

Result<void> VfManager::check_unused(HostUse use) const {
  const std::uint32_t functions = count();
  for (std::uint32_t i = 0; i < functions; ++i) {
    const VfState function = locate(i);
    if (!function.address) continue;  // on another bus, where no driver of the host binds to it
    const auto busy = [&](const std::string& how, std::string hint) {
      return fail(VmError(ErrorCode::Busy, "delete virtual functions of", name_,
                          fmt::format("vf {} ({}) is {}", i, function.address->to_string(), how))
                      .with_detail(PassthroughError::InUse)
                      .with_hint(std::move(hint)));
    };
    // A guest that uses it would block the kernel, with this process in it, until it lets go.
    if (is_vfio_driver(function.driver)) {
      return busy(fmt::format("taken for a guest (its driver is {})", function.driver),
                  "give it back first: vmp passthrough release " + function.address->to_string());
    }
    if (use == HostUse::Ignore) continue;
    const auto info = read_pci_device(*function.address, sysfs_);
    if (!info && info.error().code() == ErrorCode::NotFound) continue;
    if (!info) return fail(info.error());
    if (const auto uses = find_uses(*info, sysfs_, root_); !uses.empty())
      return busy("in use: " + list_of(uses), "end that use first");
  }
  return {};
}

VfState VfManager::locate(std::uint32_t index) const {
  VfState function;
  function.id = {name_, index};
  const auto place = device_ / fmt::format("virtfn{}", index);
  if (const auto name = link_name(place)) {
    if (const auto address = PciAddress::parse(*name)) function.address = *address;
    function.driver = link_name(place / "driver").value_or("");
    if (const auto group = link_name(place / "iommu_group")) function.iommu_group = text::number<int>(*group);
  }
  return function;
}

Result<std::vector<VfState>> VfManager::list() const {
  std::vector<VfState> functions;
  const std::uint32_t number = count();
  for (std::uint32_t i = 0; i < number; ++i) functions.push_back(locate(i));
  if (interface_.empty() || functions.empty()) return functions;
  const auto without = query_vfs(interface_, false);
  if (!without) return fail(without.error());
  if (without->functions.size() == without->count)
    for (const VfLinkInfo& info : without->functions)
      if (info.index < functions.size()) functions[info.index].config = info.config;
  // Statistics make the list longer than its 16-bit length can say: then it wraps, and they are left out.
  if (const auto with = query_vfs(interface_, true); with && with->functions.size() == with->count)
    for (const VfLinkInfo& info : with->functions)
      if (info.index < functions.size()) functions[info.index].stats = info.stats;
  if (auto leaves = devlink_leaves(); !leaves.empty()) {
    for (const auto& [index, leaf] : leaves) {
      if (index >= functions.size()) continue;
      functions[index].config.rate = leaf.rate;
      functions[index].config.rate_group = leaf.parent;
    }
  }
  return functions;
}

Result<void> VfManager::set(std::uint32_t index, const VfConfig& config) {
  VfConfig over_link = config;
  if ((config.rate || config.rate_group) && switchdev() == true) {
    over_link.rate.reset();
    over_link.rate_group.reset();
    const auto leaves = devlink_leaves();
    const auto leaf = leaves.find(index);
    if (leaf == leaves.end()) {
      return fail(ErrorCode::Unsupported, "set rate of", fmt::format("{} vf {}", name_, index),
                  fmt::format("the driver {} has no rate object for it", driver_));
    }
    DevlinkRate wanted = leaf->second;
    if (config.rate) wanted.rate = *config.rate;
    if (config.rate_group) wanted.parent = *config.rate_group;
    auto changed = change_devlink_rate(*devlink_, DevlinkRateChange::Set, wanted, config.rate.has_value(),
                                       config.rate_group.has_value());
    if (!changed) return changed;
  } else if (config.rate_group) {
    return fail(VmError(ErrorCode::Unsupported, "set rate group of", fmt::format("{} vf {}", name_, index),
                        "the device is not in switchdev mode")
                    .with_hint("vmp sriov set " + name_ + " --switchdev true"));
  }
  return over_link.empty() ? Result<void>{} : set_vf(interface_, driver_, index, over_link);
}

Result<void> VfManager::set_and_compare(std::uint32_t index, const VfConfig& config) {
  const std::string subject = fmt::format("{} vf {}", name_, index);
  if (auto done = set(index, config); !done) return done;
  const auto now = list();
  if (!now) return fail(now.error());
  if (index >= now->size()) return fail(ErrorCode::Io, "read back", subject, "the kernel did not tell of it");
  const VfConfig& actual = (*now)[index].config;
  if (actual.empty()) return {};  // more functions than the kernel's list has room for
  if (const auto differences = compare(config, actual); !differences.empty()) {
    const VfDifference& first = differences.front();
    return fail(VmError(ErrorCode::Io, "set " + first.name + " of", subject,
                        fmt::format("asked for {}, the driver {} made it {}", first.wanted, driver_, first.actual))
                    .with_hint("ask for what the hardware can do"));
  }
  return {};
}

Result<void> VfManager::apply(std::uint32_t index, const VfConfig& config) {
  const std::string subject = fmt::format("{} vf {}", name_, index);
  if (index >= count()) {
    return fail(VmError(ErrorCode::InvalidArgument, "set up", subject, fmt::format("it has {}", count()))
                    .with_hint("make more: vmp sriov set " + name_ + " --count N"));
  }
  if (config.empty()) return {};
  if (interface_.empty()) {
    return fail(VmError(ErrorCode::Unsupported, "set up", subject, "it has no network interface on this host")
                    .with_hint("the physical function needs its network driver"));
  }
  const auto before = list();
  if (!before) return fail(before.error());
  auto done = set_and_compare(index, config);
  if (done) return done;
  const VfConfig put_back = former(config, (*before)[index].config);
  if (put_back.empty()) return done;  // nothing is known of the state before
  const bool restored = set_and_compare(index, put_back).has_value();
  return fail(
      std::move(done.error())
          .with_detail(make_error_code(restored ? PassthroughError::RolledBack : PassthroughError::RollbackFailed)));
}

std::map<std::uint32_t, DevlinkRate> VfManager::devlink_leaves() const {
  std::map<std::uint32_t, DevlinkRate> leaves;
  if (switchdev() != true) return leaves;
  const auto ports = devlink_vf_ports(*devlink_);
  const auto rates = devlink_rates(*devlink_);
  if (!ports || !rates) return leaves;
  std::map<std::uint32_t, std::uint32_t> vf_of_port;
  for (const DevlinkVfPort& port : *ports) vf_of_port.emplace(port.port, port.vf);
  for (const DevlinkRate& rate : *rates) {
    const auto vf = rate.port ? vf_of_port.find(*rate.port) : vf_of_port.end();
    if (vf != vf_of_port.end()) leaves.emplace(vf->second, rate);
  }
  return leaves;
}

std::optional<bool> VfManager::switchdev() const { return devlink_ ? devlink_switchdev(*devlink_) : std::nullopt; }

Result<void> VfManager::set_switchdev(bool on) {
  const auto now = switchdev();
  if (now == on) return {};
  if (!now) {
    return fail(ErrorCode::Unsupported, "set switchdev mode of", name_,
                fmt::format("the driver {} has no eswitch", driver_.empty() ? "(none)" : driver_));
  }
  if (!on) {  // the kernel keeps the mode while there are groups, and a group while it has members
    for (const auto& [index, leaf] : devlink_leaves()) {
      if (leaf.parent.empty()) continue;
      VfConfig leave;
      leave.rate_group = "";
      if (auto left = set(index, leave); !left) return left;
    }
    const auto groups = rate_groups();
    if (!groups) return fail(groups.error());
    for (const RateGroup& group : *groups)
      if (auto deleted = delete_rate_group(group.name); !deleted) return deleted;
  }
  if (auto set = set_devlink_switchdev(*devlink_, on); !set) return set;
  if (switchdev() != on) return fail(ErrorCode::Io, "set switchdev mode of", name_, "the driver did not change it");
  return {};
}

Result<std::vector<RateGroup>> VfManager::rate_groups() const {
  std::vector<RateGroup> groups;
  if (switchdev() != true) return groups;
  const auto rates = devlink_rates(*devlink_);
  if (!rates) return fail(rates.error());
  for (const DevlinkRate& rate : *rates)
    if (!rate.node.empty()) groups.push_back({rate.node, rate.rate});
  return groups;
}

Result<void> VfManager::set_rate_group(const RateGroup& group) {
  const std::string subject = fmt::format("{} of {}", group.name, name_);
  if (switchdev() != true) {
    return fail(VmError(ErrorCode::Unsupported, "set rate group", subject, "the device is not in switchdev mode")
                    .with_hint("vmp sriov set " + name_ + " --switchdev true"));
  }
  const auto find = [&]() -> Result<std::optional<RateGroup>> {
    const auto groups = rate_groups();
    if (!groups) return fail(groups.error());
    const auto found = std::ranges::find(*groups, group.name, &RateGroup::name);
    return found == groups->end() ? std::nullopt : std::optional(*found);
  };
  const auto found = find();
  if (!found) return fail(found.error());
  const std::optional<RateGroup>& before = *found;
  if (before == group) return {};
  const DevlinkRate object{std::nullopt, group.name, {}, group.rate};
  // The kernel refuses a new node with rates that the driver rounds, so it is made first and then set.
  if (!before) {
    if (auto made = change_devlink_rate(*devlink_, DevlinkRateChange::New, object, false, false); !made) return made;
  }
  auto set = change_devlink_rate(*devlink_, DevlinkRateChange::Set, object, true, false);
  const auto after = find();
  if (set && after && *after == group) return {};
  if (!before) {
    (void)change_devlink_rate(*devlink_, DevlinkRateChange::Delete, object, false, false);
  } else {
    (void)change_devlink_rate(*devlink_, DevlinkRateChange::Set, {std::nullopt, group.name, {}, before->rate}, true,
                              false);
  }
  if (!set) return set;
  return fail(ErrorCode::Io, "set rate group", subject,
              fmt::format("asked for {} to {} Mbit/s, the driver {} made it something else", group.rate.min_rate,
                          group.rate.max_rate, driver_));
}

Result<void> VfManager::delete_rate_group(const std::string& name) {
  if (switchdev() != true)
    return fail(ErrorCode::NotFound, "delete rate group", name, "the device is not in switchdev mode");
  return change_devlink_rate(*devlink_, DevlinkRateChange::Delete, {std::nullopt, name, {}, {}}, false, false);
}

Result<std::vector<VfManager>> SriovVfManager::physical_functions() const {
  std::vector<VfManager> found;
  std::error_code error;
  for (const std::string& name : list_directory(sysfs_ / "bus/pci/devices")) {
    const auto device = sysfs_ / "bus/pci/devices" / name;
    if (!std::filesystem::exists(device / "sriov_totalvfs", error)) continue;
    if (auto manager = VfManager::open(name, sysfs_)) found.push_back(std::move(*manager));
  }
  for (const std::string& name : list_directory(sysfs_ / "class/net")) {  // those that are not on PCI
    const auto device = sysfs_ / "class/net" / name / "device";
    if (std::filesystem::exists(device / "sriov_totalvfs", error) ||
        !std::filesystem::exists(device / "sriov_numvfs", error))
      continue;
    if (auto manager = VfManager::open(name, sysfs_)) found.push_back(std::move(*manager));
  }
  return found;
}

}  // namespace vm_platform
