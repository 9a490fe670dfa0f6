#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <vm_platform/sriov.hpp>

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

}  // namespace

Result<VfManager> VfManager::open(std::string_view name, const std::filesystem::path& sysfs) {
  VfManager manager;
  manager.sysfs_ = sysfs;
  std::error_code error;
  if (const auto address = PciAddress::parse(name)) {
    manager.address_ = *address;
    manager.name_ = address->to_string();
    manager.device_ = sysfs / "bus/pci/devices" / manager.name_;
    const auto interfaces = list_directory(manager.device_ / "net");
    if (!interfaces.empty()) manager.interface_ = interfaces.front();
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
  return manager;
}

std::optional<PciDeviceInfo> VfManager::device() const {
  if (!address_) return std::nullopt;
  auto info = read_pci_device(*address_, sysfs_);
  return info ? std::optional(std::move(*info)) : std::nullopt;
}

std::optional<std::uint32_t> VfManager::limit() const { return read_number(device_ / "sriov_totalvfs"); }
std::uint32_t VfManager::count() const { return read_number(device_ / "sriov_numvfs").value_or(0); }

Result<void> VfManager::resize(std::uint32_t wanted, std::optional<bool> autoprobe) {
  const auto most = limit();
  const std::string subject = fmt::format("{} to {}", name_, wanted);
  if (most && wanted > *most) {
    return fail(VmError(ErrorCode::InvalidArgument, "set virtual functions of", subject,
                        fmt::format("it can have {} at most", *most)));
  }
  const std::uint32_t before = count();
  if (autoprobe && std::filesystem::exists(device_ / "sriov_drivers_autoprobe")) {
    auto written = write_kernel_file(device_ / "sriov_drivers_autoprobe", *autoprobe ? "1" : "0",
                                     "set driver probing of the virtual functions of " + name_);
    if (!written) return written;
  }
  if (before == wanted) return {};
  // A guest that uses one would block the kernel, with this process in it, until it lets go.
  if (before != 0) {
    const auto functions = list();
    for (const VfState& function : functions ? *functions : std::vector<VfState>{}) {
      if (!function.driver.ends_with("vfio-pci")) continue;
      return fail(VmError(ErrorCode::Busy, "set virtual functions of", subject,
                          fmt::format("vf {} ({}) is taken for a guest", function.id.index,
                                      function.address ? function.address->to_string() : "?"))
                      .with_hint("give it back first: vmp passthrough release"));
    }
  }
  const auto write = [&](std::uint32_t number) {
    return write_kernel_file(device_ / "sriov_numvfs", std::to_string(number), "set virtual functions of " + name_);
  };
  if (before != 0) {  // from one number to another only through 0: the kernel says EBUSY otherwise
    if (auto cleared = write(0); !cleared) return cleared;
  }
  if (wanted != 0) {
    if (auto made = write(wanted); !made) {
      if (before != 0) (void)write(before);
      auto failure = made.error();
      if (failure.os_error() == ENOENT || failure.os_error() == EOPNOTSUPP) {
        failure = VmError(ErrorCode::Unsupported, "set virtual functions of", subject,
                          fmt::format("the driver {} cannot", driver_.empty() ? "(none)" : driver_));
      }
      return fail(std::move(failure));
    }
  }
  if (const std::uint32_t now = count(); now != wanted) {
    return fail(ErrorCode::Io, "set virtual functions of", subject, fmt::format("the kernel made {}", now));
  }
  return {};
}

Result<std::vector<VfState>> VfManager::list() const {
  std::vector<VfState> functions(count());
  for (std::uint32_t i = 0; i < functions.size(); ++i) {
    VfState& function = functions[i];
    function.id = {name_, i};
    const auto place = device_ / fmt::format("virtfn{}", i);
    if (const auto name = link_name(place)) {
      if (const auto address = PciAddress::parse(*name)) function.address = *address;
      function.driver = link_name(place / "driver").value_or("");
      if (const auto group = link_name(place / "iommu_group")) function.iommu_group = text::number<int>(*group);
    }
  }
  if (interface_.empty() || functions.empty()) return functions;
  const auto without = query_vfs(interface_, false);
  if (!without) return fail(without.error());
  if (without->functions.size() != without->count) {
    return fail(ErrorCode::Io, "ask for the virtual functions of", interface_,
                fmt::format("the kernel has {} and told of {}", without->count, without->functions.size()));
  }
  for (const VfLinkInfo& info : without->functions)
    if (info.index < functions.size()) functions[info.index].config = info.config;
  // Statistics make the list longer than its 16-bit length can say: then it wraps, and they are left out.
  if (const auto with = query_vfs(interface_, true); with && with->functions.size() == with->count)
    for (const VfLinkInfo& info : with->functions)
      if (info.index < functions.size()) functions[info.index].stats = info.stats;
  return functions;
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
  if (auto set = set_vf(interface_, driver_, index, config); !set) return set;
  const auto now = query_vfs(interface_, false);
  if (!now) return fail(now.error());
  const auto found = std::ranges::find(now->functions, index, &VfLinkInfo::index);
  if (found == now->functions.end()) return fail(ErrorCode::Io, "read back", subject, "the kernel did not tell of it");
  if (const auto differences = compare(config, found->config); !differences.empty()) {
    const VfDifference& first = differences.front();
    return fail(ErrorCode::Io, "set " + first.name + " of", subject,
                fmt::format("asked for {}, the driver {} made it {}", first.wanted, driver_, first.actual));
  }
  return {};
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

namespace {

Result<std::vector<SriovChange>> walk(const std::vector<SriovDeclaration>& wanted, const std::filesystem::path& sysfs,
                                      bool change) {
  std::vector<SriovChange> changes;
  for (const SriovDeclaration& declaration : wanted) {
    auto manager = VfManager::open(declaration.physical_function, sysfs);
    if (!manager) return fail(manager.error());
    const std::uint32_t before = manager->count();
    if (before != declaration.count) {
      changes.push_back({fmt::format("{}: virtual functions {} -> {}", manager->name(), before, declaration.count)});
    }
    if (change) {
      if (auto resized = manager->resize(declaration.count, declaration.autoprobe); !resized)
        return fail(resized.error());
    }
    std::map<std::uint32_t, VfConfig> now;
    if (before == declaration.count || change) {
      const auto functions = manager->list();
      if (!functions) return fail(functions.error());
      for (const VfState& function : *functions) now.emplace(function.id.index, function.config);
    }
    for (const auto& [index, config] : declaration.functions) {
      const auto differences = compare(config, now[index]);
      for (const VfDifference& difference : differences)
        changes.push_back({fmt::format("{} vf {}: {} {} -> {}", manager->name(), index, difference.name,
                                       difference.actual, difference.wanted)});
      if (change && !differences.empty()) {
        if (auto applied = manager->apply(index, config); !applied) return fail(applied.error());
      }
    }
  }
  return changes;
}

}  // namespace

Result<std::vector<SriovChange>> diff_sriov(const std::vector<SriovDeclaration>& wanted,
                                            const std::filesystem::path& sysfs) {
  return walk(wanted, sysfs, false);
}

Result<std::vector<SriovChange>> converge_sriov(const std::vector<SriovDeclaration>& wanted,
                                                const std::filesystem::path& sysfs) {
  return walk(wanted, sysfs, true);
}

}  // namespace vm_platform
