// IOMMU groups: what can be isolated from what, and why a group cannot be given away.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// A range of I/O virtual addresses that the platform keeps for itself.
struct ReservedRegion {
  std::uint64_t first = 0, last = 0;
  std::string type;  ///< "direct", "direct-relaxable", "msi", "reserved".
};

/// The smallest set of functions that the IOMMU can tell from the rest, so the smallest that can be given away.
struct IommuGroup {
  int number = -1;
  std::string type;  ///< Default domain: "DMA", "DMA-FQ", "identity"; empty where not readable.
  std::vector<PciDeviceInfo> devices;
  std::vector<ReservedRegion> reserved;
};

/// Whether a group can be opened by VFIO now, and what stands in the way.
struct GroupViability {
  bool viable = false;
  std::vector<std::string> reasons;  ///< One sentence per member that is in the way.
  /// Members whose driver must be changed for the group to become viable (bridges need not be touched).
  std::vector<PciAddress> to_move;
  /// Why these functions share a group: the ACS bits missing on bridges and between functions.
  std::vector<std::string> isolation;
};

/// Whether this host can isolate devices, and what to change where it cannot.
struct IommuStatus {
  bool present = false;         ///< The firmware describes an IOMMU (DMAR or IVRS table).
  bool active = false;          ///< The kernel makes groups.
  bool vfio_available = false;  ///< vfio-pci is loaded, built in, or can be loaded.
  bool interrupt_remapping = false;
  std::vector<std::string> problems;  ///< What is missing, each with the fix: parameter, firmware setting, module.
};

/// Groups as the kernel made them. Paths are injectable for tests: `sysfs` and the root under which /proc, /boot
/// and /lib are looked up.
class IommuManager {
 public:
  explicit IommuManager(std::filesystem::path sysfs = "/sys", std::filesystem::path root = "/");

  /// All groups in number order; `Unsupported` with the fix where the host has none.
  [[nodiscard]] Result<std::vector<IommuGroup>> groups() const;
  /// The group of one function.
  [[nodiscard]] Result<IommuGroup> group_of(PciAddress address) const;
  [[nodiscard]] IommuStatus status() const;
  /// `all` are the functions of the host (bridges above the group are looked up in it).
  [[nodiscard]] static GroupViability viability(const IommuGroup& group, std::span<const PciDeviceInfo> all);

 private:
  std::filesystem::path sysfs_, root_;
};

/// VFIO's own driver of PCI functions, in both spellings, and the variants of vendors ("mlx5_vfio_pci").
[[nodiscard]] bool is_vfio_driver(std::string_view driver);
/// Drivers that VFIO accepts on a member of a group in use: VFIO's own and those known not to do DMA.
[[nodiscard]] bool driver_is_harmless(std::string_view driver);

}  // namespace vm_platform
