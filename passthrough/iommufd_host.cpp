// VFIO by devices: /dev/vfio/devices/vfioN (named in sysfs below the device), bound to /dev/iommu.
#include <cerrno>

#include "passthrough/iommufd_container.hpp"
#include "passthrough/sysfs.hpp"
#include "passthrough/vf_token.hpp"
#include "passthrough/vfio_abi.hpp"
#include "passthrough/vfio_device.hpp"
#include "passthrough/vfio_host.hpp"

namespace vm_platform {
namespace {

class IommufdHost final : public VfioHost {
 public:
  IommufdHost(VfioSystem& system, VfioOptions options, std::unique_ptr<IommufdContainer> container)
      : system_(system), options_(std::move(options)), container_(std::move(container)) {}

  VfioContainer& container() override { return *container_; }
  [[nodiscard]] VfioBackend backend() const override { return VfioBackend::Iommufd; }

  Result<std::unique_ptr<VfioDevice>> open_device(PciAddress address) override {
    const std::string name = address.to_string();
    if (auto bound = require_vfio_driver(options_, name); !bound) return fail(bound.error());
    return open(options_.sysfs / "bus/pci/devices" / name, name);
  }

  Result<std::unique_ptr<VfioDevice>> open_mediated(const std::string& uuid) override {
    return open(options_.sysfs / "bus/mdev/devices" / uuid, uuid);
  }

 private:
  Result<std::unique_ptr<VfioDevice>> open(const std::filesystem::path& path, const std::string& name) {
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored))
      return fail(ErrorCode::NotFound, "open device", name, "no such device");
    const auto names = list_directory(path / "vfio-dev");
    if (names.empty()) {
      return fail(VmError(ErrorCode::Unsupported, "open device", name, "it has no device file of VFIO")
                      .with_hint("bind it to vfio-pci first: vmp passthrough take"));
    }
    const auto file = options_.dev / "devices" / names.front();
    Descriptor device(system_.open(file.c_str()));
    if (!device.valid()) {
      auto error = VmError::from_os(errno, "open device " + name + " through", file.string());
      const char* hint = "somebody holds it: `vmp passthrough status` names who";
      if (error.os_error() == EACCES) hint = "run as root, or let `vmp passthrough setup` give your group access";
      return fail(std::move(error).with_hint(hint));
    }
    const auto id = bind(device.get(), name);
    if (!id) return fail(id.error());
    if (auto attached = container_->attach(device.get(), *id, name); !attached) return fail(attached.error());
    auto opened = KernelVfioDevice::create(system_, std::move(device), name, nullptr);
    if (!opened) return fail(opened.error());
    return std::move(*opened);
  }

  /// The device's number in the iommufd. Nothing else works on its file before.
  Result<std::uint32_t> bind(int device, const std::string& name) {
    VfioBindIommufd bind{kBindSize, 0, container_->descriptor(), 0, 0};
    std::array<std::uint8_t, 16> token{};
    if (options_.vf_token) {
      const auto parsed = parse_vf_token(*options_.vf_token);
      if (!parsed) return fail(parsed.error());
      token = *parsed;
      bind.argsz = sizeof bind;
      bind.flags = kBindToken;
      bind.token_uuid_ptr = reinterpret_cast<std::uintptr_t>(token.data());
    }
    if (system_.ioctl(device, kVfioBindIommufd, &bind) == 0) return bind.out_devid;
    if (errno == EINVAL && options_.vf_token) {
      return fail(VmError(ErrorCode::Unsupported, "open device", name, "device files take no VF token on this kernel")
                      .with_hint("use the container instead (VfioBackend::Container); Linux 6.17 has it"));
    }
    return fail(open_failure(errno, name));
  }

  VfioSystem& system_;
  VfioOptions options_;
  std::unique_ptr<IommufdContainer> container_;
};

}  // namespace

Result<std::unique_ptr<VfioHost>> open_iommufd_host(VfioSystem& system, VfioOptions options) {
  auto container = IommufdContainer::open(system, options.iommu);
  if (!container) return fail(container.error());
  return std::make_unique<IommufdHost>(system, std::move(options), std::move(*container));
}

}  // namespace vm_platform
