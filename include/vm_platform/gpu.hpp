// GPUs: what belongs to one, its option ROM, and what is known of how it takes being passed on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
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

/// What is known of one family of devices that does not behave as its capabilities say.
struct DeviceQuirk {
  std::uint16_t vendor = 0;
  std::uint16_t first_device = 0, last_device = 0;  ///< Range of device IDs, both included.
  std::string_view what;                            ///< What goes wrong.
  std::string_view advice;                          ///< What to do.
  std::string_view avoid;                           ///< A reset method that it does not survive; empty: none.
  std::string_view source;                          ///< Where this is from.
};
/// Known troubles of one device.
[[nodiscard]] std::vector<const DeviceQuirk*> device_quirks(const PciDeviceInfo& device);

/// How to reset a device: what the kernel offers, less what the device is known not to survive.
struct ResetChoice {
  std::vector<std::string> methods;  ///< In the order to try, as `reset_method` of sysfs takes them; empty: no way.
  bool differs = false;              ///< The kernel has another list, so this one should be written.
  std::vector<std::string> avoided;  ///< "bus (…why…)": those left out.
};
[[nodiscard]] ResetChoice choose_reset(const PciDeviceInfo& device);

/// A GPU with everything that belongs to it, and what the guest is to see of it.
struct GpuConfig {
  PciDeviceInfo device;
  std::vector<PciDeviceInfo> companions;  ///< Audio, USB and UCSI functions of the same slot: they go along.
  bool boot_display = false;              ///< The firmware's console is on it.
  bool needs_vga = false;                 ///< VGA class: it answers to legacy VGA addresses, which are arbitrated.
  std::uint64_t largest_bar = 0;          ///< Bytes: what the guest's 64-bit window must hold.
  std::vector<PciResizableBar> resizable;
  std::vector<const DeviceQuirk*> quirks;
  ResetChoice reset;
  std::optional<std::filesystem::path> rom_file;  ///< Given to the guest instead of the device's own ROM.
  /// The guest is not told that it runs on a hypervisor. Set for NVIDIA's display GPUs, whose drivers before 465.89
  /// refuse to start (code 43) where they notice one; nothing else needs it, and it makes a guest slower.
  bool hide_hypervisor = false;
};

class VfioDevice;

/// The option ROM that the guest sees at the device's ROM BAR.
struct GuestRom {
  std::vector<std::uint8_t> bytes;    ///< Trimmed to whole images; empty: the guest sees no ROM.
  std::vector<std::string> problems;  ///< What a guest's firmware may stumble over.
};
/// The ROM for a guest from `rom_file` where one is set, else from `read_own`. What comes from a file must be a ROM for
/// this device (`Corrupt` or `InvalidArgument` where not); a vendor's header in front of it is cut off. A device's own
/// ROM that cannot be read, or is none, gives no bytes and a problem: many devices work without.
[[nodiscard]] Result<GuestRom> guest_rom(const GpuConfig& gpu,
                                         const std::function<Result<std::vector<std::uint8_t>>()>& read_own);
/// The same for an opened device: its own ROM is read through VFIO's ROM region.
[[nodiscard]] Result<GuestRom> guest_rom(const GpuConfig& gpu, const VfioDevice& device);

/// Changes the size of a resizable BAR (PCIe 6.0 section 7.8.6) through `resourceN_resize` of sysfs, Linux 6.1 and
/// later. `bytes` is a power of two that the device offers (`InvalidArgument` names those it does). No driver may be
/// bound
/// (`Busy` names it), and the bridges above must have room (`Io`; then the BAR has its former size). The new size is
/// read back.
Result<void> resize_bar(PciAddress address, std::uint8_t bar, std::uint64_t bytes,
                        const std::filesystem::path& sysfs = "/sys");

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
/// Intel's alone.
class IntelGpuPassthrough {
 public:
  static constexpr std::uint16_t kVendor = 0x8086;
  [[nodiscard]] static Result<std::vector<GpuConfig>> list(const std::filesystem::path& sysfs = "/sys");
};

}  // namespace vm_platform
