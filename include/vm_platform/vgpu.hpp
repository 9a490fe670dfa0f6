// Parts of a GPU (and of other devices) that a driver of the host hands out: mediated devices, or virtual functions
// that are given a type. Plain virtual functions are sriov.hpp's.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// How a parent hands out parts of itself.
enum class VgpuStyle : std::uint8_t {
  Mediated,         ///< /sys/class/mdev_bus (Linux Documentation/driver-api/vfio-mediated-device.rst).
  VirtualFunction,  ///< NVIDIA's: a virtual function with `nvidia/current_vgpu_type`.
};
[[nodiscard]] std::string_view to_string(VgpuStyle style) noexcept;

/// A kind of part that can be made of a parent.
struct VgpuType {
  VgpuStyle style = VgpuStyle::Mediated;
  std::string parent;      ///< A PCI address, or what the driver calls it ("mtty").
  std::string id;          ///< "nvidia-35", "mtty-2"; of virtual functions a number.
  std::string name;        ///< For people.
  std::string device_api;  ///< "vfio-pci"; empty where not told.
  std::string description;
  std::uint32_t available = 0;  ///< How many more can be made.
};

/// A part that was made.
struct VgpuDevice {
  VgpuStyle style = VgpuStyle::Mediated;
  std::string parent;
  std::string type;
  std::string id;  ///< The UUID; of a virtual function its PCI address.
  std::optional<int> iommu_group;
};

/// Lists, makes and removes parts. Each change is read back. Not thread-safe.
class VgpuManager {
 public:
  explicit VgpuManager(std::filesystem::path sysfs = "/sys") : sysfs_(std::move(sysfs)) {}

  /// By parent and type; empty where no driver of this host hands out parts.
  [[nodiscard]] std::vector<VgpuType> types() const;
  [[nodiscard]] std::vector<VgpuDevice> devices() const;
  /// Makes one. `uuid` is for mediated devices; empty: a new one. `NotFound` for an unknown parent or type, naming
  /// those that are there, `OutOfMemory` where no more of the type fit, `Status` for a UUID that is taken.
  Result<VgpuDevice> create(const std::string& parent, const std::string& type, const std::string& uuid = {});
  /// Removes one by its `id`. `Busy` while a guest has it open.
  Result<void> remove(const std::string& id);

 private:
  std::filesystem::path sysfs_;
};

/// Whether it has the form of a UUID (RFC 9562 section 4).
[[nodiscard]] bool is_uuid(std::string_view text) noexcept;

}  // namespace vm_platform
