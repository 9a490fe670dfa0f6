// Processing accelerators: NPUs, AI and vector engines.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// A family of accelerators and what handing one to a guest needs.
struct NpuFamily {
  std::uint16_t vendor = 0;
  std::uint16_t first_device = 0, last_device = 0;  ///< Range of device IDs, both included.
  std::string_view name;
  std::string_view driver;  ///< The Linux driver.
  std::string_view needs;   ///< What a guest needs beside the device; empty where nothing.
  std::string_view source;  ///< Where the IDs are from.
};

/// The family of a function, whatever class it uses; null for others.
[[nodiscard]] const NpuFamily* find_npu(const PciDeviceInfo& device) noexcept;

/// One accelerator of this host.
struct NpuConfig {
  PciDeviceInfo device;
  std::string family;  ///< "Processing accelerator" where only the class tells.
  std::string needs;
  std::vector<std::string> accel_nodes;  ///< "accel0": the accel subsystem's nodes, Linux 6.2 and later.
};

/// Finds and describes accelerators. Taking one is `PassthroughManager`'s work, as for any device.
class NpuPassthrough {
 public:
  /// Accelerators among `functions`.
  [[nodiscard]] static std::vector<NpuConfig> select(const std::vector<PciDeviceInfo>& functions);
  /// Accelerators of the host.
  [[nodiscard]] static Result<std::vector<NpuConfig>> list(const std::filesystem::path& sysfs = "/sys");
};

}  // namespace vm_platform
