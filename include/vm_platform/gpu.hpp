// GPUs: what belongs to one, its option ROM, and what is known of how it takes being passed on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// One image of an option ROM (PCI Firmware Specification 3.3, section 5.1).
struct RomImage {
  enum class Kind : std::uint8_t { Legacy = 0, OpenFirmware = 1, HpPaRisc = 2, Uefi = 3, Other = 255 };
  Kind kind = Kind::Other;
  std::uint32_t offset = 0, size = 0;  ///< Bytes.
  std::uint16_t vendor = 0, device = 0;
  std::uint32_t class_code = 0;
  std::vector<std::uint16_t> device_list;  ///< More devices the image is for (PCIR revision 3).
  bool last = false;
  bool checksum_ok = true;         ///< Of legacy images; others have none.
  std::uint16_t uefi_machine = 0;  ///< Machine type of a UEFI image: 0x8664 is x86-64.
  bool uefi_compressed = false;
};

/// An option ROM as a whole.
struct OptionRom {
  std::vector<RomImage> images;
  std::vector<std::string> problems;  ///< What is wrong with it; empty for a good one.

  [[nodiscard]] bool has_uefi() const;
  [[nodiscard]] bool has_legacy() const;
  /// Whether an image names this device, or lists it.
  [[nodiscard]] bool matches(std::uint16_t vendor, std::uint16_t device) const;
};

/// Reads all images. `Corrupt` where not even the first one has its signatures. NVIDIA's files may have a header of
/// their own in front; it is skipped and counts as a problem, because a guest's firmware does not skip it.
[[nodiscard]] Result<OptionRom> parse_option_rom(std::span<const std::uint8_t> bytes);
/// The ROM of a device, through the `rom` file of sysfs, which has to be turned on for reading and is turned off again.
[[nodiscard]] Result<std::vector<std::uint8_t>> read_option_rom(PciAddress address,
                                                                const std::filesystem::path& sysfs = "/sys");

/// How a guest's firmware and driver can be given what they expect.
struct GpuQuirk {
  std::uint16_t vendor = 0;
  std::uint16_t first_device = 0, last_device = 0;
  std::string_view what;    ///< What goes wrong.
  std::string_view advice;  ///< What to do.
  std::string_view source;
};
/// Known troubles of one device.
[[nodiscard]] std::vector<const GpuQuirk*> gpu_quirks(const PciDeviceInfo& device);

/// A GPU with everything that belongs to it.
struct GpuConfig {
  PciDeviceInfo device;
  std::vector<PciDeviceInfo> companions;  ///< Audio, USB and UCSI functions of the same slot: they go along.
  bool boot_display = false;              ///< The firmware's console is on it.
  bool needs_vga = false;                 ///< VGA class: it answers to legacy VGA addresses, which are arbitrated.
  std::uint64_t largest_bar = 0;          ///< Bytes: what the guest's 64-bit window must hold.
  std::vector<PciResizableBar> resizable;
  std::vector<const GpuQuirk*> quirks;
  std::optional<std::filesystem::path> rom_file;  ///< Given to the guest instead of the device's own ROM.
};

/// Display devices of any maker.
class GpuPassthrough {
 public:
  [[nodiscard]] static std::vector<GpuConfig> select(const std::vector<PciDeviceInfo>& functions);
  [[nodiscard]] static Result<std::vector<GpuConfig>> list(const std::filesystem::path& sysfs = "/sys");
};
/// NVIDIA's alone.
class NvidiaGpuPassthrough {
 public:
  static constexpr std::uint16_t kVendor = 0x10de;
  [[nodiscard]] static Result<std::vector<GpuConfig>> list(const std::filesystem::path& sysfs = "/sys");
};
/// AMD's alone.
class AmdGpuPassthrough {
 public:
  static constexpr std::uint16_t kVendor = 0x1002;
  [[nodiscard]] static Result<std::vector<GpuConfig>> list(const std::filesystem::path& sysfs = "/sys");
};

}  // namespace vm_platform
