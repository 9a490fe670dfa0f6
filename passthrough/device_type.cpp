#include <algorithm>
#include <vm_platform/npu.hpp>
#include <vm_platform/passthrough.hpp>

namespace vm_platform {
namespace {

class PassthroughCategory final : public std::error_category {
 public:
  const char* name() const noexcept override { return "passthrough"; }
  std::string message(int value) const override {
    switch (static_cast<PassthroughError>(value)) {
      case PassthroughError::NoIommu: return "no IOMMU";
      case PassthroughError::NoVfio: return "no VFIO";
      case PassthroughError::InUse: return "in use by the host";
      case PassthroughError::NotTaken: return "not taken";
      case PassthroughError::KernelIgnored: return "the kernel did not do it";
      case PassthroughError::RolledBack: return "everything was put back";
      case PassthroughError::RollbackFailed: return "not everything could be put back";
      case PassthroughError::Stuck: return "the kernel has not finished in time";
    }
    return "unknown";
  }
};

}  // namespace

std::error_code make_error_code(PassthroughError error) noexcept {
  static const PassthroughCategory category;
  return {static_cast<int>(error), category};
}

std::string_view to_string(DeviceType type) noexcept {
  switch (type) {
    case DeviceType::Bridge: return "bridge";
    case DeviceType::Gpu: return "gpu";
    case DeviceType::Npu: return "npu";
    case DeviceType::Network: return "network";
    case DeviceType::Storage: return "storage";
    case DeviceType::Usb: return "usb";
    case DeviceType::Audio: return "audio";
    case DeviceType::Serial: return "serial";
    case DeviceType::Accelerator: return "accelerator";
    case DeviceType::Other: return "other";
  }
  return "other";
}

std::string_view to_string(TakenSet::State state) noexcept {
  switch (state) {
    case TakenSet::State::Taking: return "taking";
    case TakenSet::State::Taken: return "taken";
    case TakenSet::State::Releasing: return "releasing";
  }
  return "taken";
}

DeviceType classify(const PciDeviceInfo& device) noexcept {
  if (device.is_bridge() && device.base_class() == 0x06) return DeviceType::Bridge;
  if (find_npu(device) != nullptr) return DeviceType::Npu;
  switch (device.base_class()) {  // PCI Code and ID Assignment Specification 1.14, section 1
    case 0x01: return DeviceType::Storage;
    case 0x02: return DeviceType::Network;
    case 0x03: return DeviceType::Gpu;
    case 0x04: return device.class_and_subclass() == 0x0400 ? DeviceType::Other : DeviceType::Audio;
    case 0x06: return DeviceType::Bridge;
    case 0x07: return DeviceType::Serial;
    case 0x0b: return DeviceType::Accelerator;
    case 0x0c: return device.class_and_subclass() == 0x0c03 ? DeviceType::Usb : DeviceType::Other;
    case 0x12: return DeviceType::Npu;
    default: return DeviceType::Other;
  }
}

}  // namespace vm_platform
