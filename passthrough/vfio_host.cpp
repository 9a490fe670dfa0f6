// VFIO by groups: /dev/vfio/vfio, /dev/vfio/GROUP, and the devices that a group gives.
#include <fmt/format.h>
#include <linux/vfio.h>

#include <cerrno>
#include <map>
#include <vm_platform/iommu.hpp>
#include <vm_platform/vfio.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"
#include "passthrough/vf_token.hpp"
#include "passthrough/vfio_container.hpp"
#include "passthrough/vfio_device.hpp"
#include "passthrough/vfio_host.hpp"

namespace vm_platform {
namespace {

class GroupVfioHost final : public VfioHost, public GroupOwner {
 public:
  GroupVfioHost(VfioSystem& system, VfioOptions options, std::unique_ptr<Type1Container> container)
      : system_(system), options_(std::move(options)), container_(std::move(container)) {}

  VfioContainer& container() override { return *container_; }
  [[nodiscard]] VfioBackend backend() const override { return VfioBackend::Container; }

  Result<std::unique_ptr<VfioDevice>> open_device(PciAddress address) override {
    const std::string name = address.to_string();
    if (auto bound = require_vfio_driver(options_, name); !bound) return fail(bound.error());
    if (options_.vf_token) {
      if (const auto token = parse_vf_token(*options_.vf_token); !token) return fail(token.error());
    }
    std::string request = name;
    if (options_.vf_token) request += " vf_token=" + *options_.vf_token;
    return open(options_.sysfs / "bus/pci/devices" / name, name, request);
  }

  Result<std::unique_ptr<VfioDevice>> open_mediated(const std::string& uuid) override {
    return open(options_.sysfs / "bus/mdev/devices" / uuid, uuid, uuid);
  }

  int group_descriptor(std::uint32_t group) const override {
    const auto found = groups_.find(static_cast<int>(group));
    return found == groups_.end() ? -1 : found->second.get();
  }

 private:
  Result<std::unique_ptr<VfioDevice>> open(const std::filesystem::path& path, const std::string& name,
                                           const std::string& request) {
    const auto group_name = link_name(path / "iommu_group");
    const auto number = group_name ? text::number<int>(*group_name) : std::nullopt;
    if (!number) {
      std::error_code ignored;
      if (!std::filesystem::exists(path, ignored))
        return fail(ErrorCode::NotFound, "open device", name, "no such device");
      return fail(VmError(ErrorCode::Unsupported, "open device", name, "it has no IOMMU group")
                      .with_hint("`vmp iommu groups` says what the host lacks"));
    }
    const auto group = attach(*number, name);
    if (!group) return fail(group.error());
    std::string text = request;  // the kernel only reads it
    const int device = system_.ioctl(*group, VFIO_GROUP_GET_DEVICE_FD, text.data());
    if (device < 0) return fail(open_failure(errno, name));
    auto opened = KernelVfioDevice::create(system_, Descriptor(device), name, this);
    if (!opened) return fail(opened.error());
    return std::move(*opened);
  }

  /// Opens the group and attaches it to the container, once.
  Result<int> attach(int number, const std::string& device) {
    if (const auto found = groups_.find(number); found != groups_.end()) return found->second.get();
    const auto path = options_.dev / std::to_string(number);
    Descriptor group(system_.open(path.c_str()));
    if (!group.valid()) {
      auto error = VmError::from_os(errno, "open IOMMU group of " + device + " through", path.string());
      const char* hint = "bind the device to vfio-pci first: vmp passthrough take";
      if (error.os_error() == EACCES) hint = "run as root, or let `vmp passthrough setup` give your group access";
      if (error.os_error() == EBUSY) hint = "another process has it open: `vmp passthrough status` names it";
      return fail(std::move(error).with_hint(hint));
    }
    vfio_group_status status{};
    status.argsz = sizeof status;
    if (system_.ioctl(group.get(), VFIO_GROUP_GET_STATUS, &status) < 0)
      return fail(VmError::from_os(errno, "ask about IOMMU group", std::to_string(number)));
    if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) == 0) return fail(not_viable(device));
    int container = container_->descriptor();
    if (system_.ioctl(group.get(), VFIO_GROUP_SET_CONTAINER, &container) < 0)
      return fail(VmError::from_os(errno, "attach IOMMU group", std::to_string(number)));
    if (auto set = container_->set_iommu(); !set) return fail(set.error());
    const int descriptor = group.get();
    groups_.emplace(number, std::move(group));
    return descriptor;
  }

  VmError not_viable(const std::string& device) const {
    std::string reasons;
    const IommuManager manager(options_.sysfs);
    if (const auto address = PciAddress::parse(device)) {
      const auto group = manager.group_of(*address);
      if (group)
        for (const std::string& reason : IommuManager::viability(*group, group->devices).reasons)
          reasons += (reasons.empty() ? "" : "; ") + reason;
    }
    return VmError(ErrorCode::Busy, "open device", device,
                   reasons.empty() ? "its IOMMU group is not viable" : "its IOMMU group is not viable: " + reasons)
        .with_hint("`vmp passthrough plan` says what has to move along");
  }

  VfioSystem& system_;
  VfioOptions options_;
  std::unique_ptr<Type1Container> container_;
  std::map<int, Descriptor> groups_;
};

}  // namespace

Result<void> require_vfio_driver(const VfioOptions& options, const std::string& name) {
  const auto driver = link_name(options.sysfs / "bus/pci/devices" / name / "driver");
  if (!driver || is_vfio_driver(*driver)) return {};
  return fail(VmError(ErrorCode::Busy, "open device", name, "it is driven by " + *driver)
                  .with_hint("take it first: vmp passthrough take " + name));
}

VmError open_failure(int os_error, const std::string& name) {
  auto error = VmError::from_os(os_error, "open device", name);
  if (os_error == EACCES) {
    return std::move(error).with_hint(
        "its physical function is driven by vfio-pci, so it needs the VF token that was set there");
  }
  if (os_error == EBUSY) {
    return std::move(error).with_hint(
        "virtual functions of it exist, or somebody holds it: `vmp passthrough status` names who");
  }
  return error;
}

Result<std::unique_ptr<VfioHost>> open_vfio_host(VfioSystem& system, VfioOptions options) {
  std::error_code ignored;
  const bool has_iommufd =
      std::filesystem::exists(options.iommu, ignored) && std::filesystem::exists(options.dev / "devices", ignored);
  if (options.backend == VfioBackend::Iommufd || (options.backend == VfioBackend::Auto && has_iommufd))
    return open_iommufd_host(system, std::move(options));
  auto container = Type1Container::open(system, options.dev);
  if (!container) return fail(container.error());
  return std::make_unique<GroupVfioHost>(system, std::move(options), std::move(*container));
}

Result<std::unique_ptr<VfioHost>> VfioHost::open(VfioOptions options) {
  return open_vfio_host(VfioSystem::kernel(), std::move(options));
}

}  // namespace vm_platform
