// The single changes that taking and giving back consist of, each checked by reading back what the kernel made of it.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

class DriverBinding {
 public:
  DriverBinding(std::filesystem::path sysfs, std::filesystem::path root, std::chrono::milliseconds unbind_timeout)
      : sysfs_(std::move(sysfs)), root_(std::move(root)), unbind_timeout_(unbind_timeout) {}

  /// The driver bound now; empty where there is none.
  [[nodiscard]] std::string driver(PciAddress device) const;
  [[nodiscard]] bool present(PciAddress device) const;
  [[nodiscard]] bool driver_present(const std::string& driver) const;

  /// `driver` empty: no override.
  Result<void> set_override(PciAddress device, const std::string& driver) const;
  /// Waits for the driver to let go, up to the time limit; then the error names who holds the device.
  Result<void> unbind(PciAddress device) const;
  /// Has the kernel look for a driver, and checks that it is `driver` that was found.
  Result<void> bind(PciAddress device, const std::string& driver) const;
  Result<void> load_module(const std::string& module) const;

 private:
  [[nodiscard]] std::filesystem::path path(PciAddress device) const {
    return sysfs_ / "bus/pci/devices" / device.to_string();
  }
  std::filesystem::path sysfs_, root_;
  std::chrono::milliseconds unbind_timeout_;
};

}  // namespace vm_platform
