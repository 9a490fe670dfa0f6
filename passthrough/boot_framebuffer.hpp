// The framebuffer that the firmware left on a GPU, and the console the kernel draws into it.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// A platform device (of efifb, vesafb or simpledrm) whose memory is a BAR of a GPU: it draws there although the GPU's
/// own driver, if any, knows nothing of it.
struct BootFramebuffer {
  std::string device;                 ///< "simple-framebuffer.0"
  std::string driver;                 ///< "simple-framebuffer", "efi-framebuffer" or "vesa-framebuffer".
  std::string node;                   ///< "fb0", where there is one.
  std::vector<std::string> consoles;  ///< "vtcon1": text consoles drawn on framebuffers.
};

/// The one on this GPU, by where the kernel hangs the platform device, or by /proc/iomem, which nests the framebuffer's
/// memory in the BAR that it is part of.
[[nodiscard]] std::optional<BootFramebuffer> find_boot_framebuffer(PciAddress gpu, const std::filesystem::path& sysfs,
                                                                   const std::filesystem::path& root);

/// Text consoles that draw on framebuffers and are bound.
[[nodiscard]] std::vector<std::string> framebuffer_consoles(const std::filesystem::path& sysfs);
/// Binds or unbinds a text console, and reads back.
Result<void> bind_console(const std::string& console, bool bound, const std::filesystem::path& sysfs);
/// Takes the platform device from its driver, and reads back.
Result<void> unbind_framebuffer(const std::string& device, const std::string& driver,
                                const std::filesystem::path& sysfs);
/// Gives it back. Does nothing where the platform device is gone: a GPU's driver has then taken its place.
Result<void> rebind_framebuffer(const std::string& device, const std::string& driver,
                                const std::filesystem::path& sysfs);

}  // namespace vm_platform
