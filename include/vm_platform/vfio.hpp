// VFIO: a device in the hands of this process, with its registers, memory access and interrupts.
//
// `VfioContainer` is what a DMA address space is, `VfioDevice` what a device is, whoever implements them: here the
// kernel's container and group files, or iommufd and device files where the kernel has them. Everything that uses a
// device (the guest's PCI bus, tests) uses these interfaces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

class GuestMemory;

/// Which accesses by devices a DMA mapping allows.
enum class DmaAccess : std::uint8_t { Read = 1, Write = 2, ReadWrite = 3 };

/// A range of I/O virtual addresses, both ends included.
struct IovaRange {
  std::uint64_t first = 0, last = 0;
};

/// What the IOMMU behind a container can do.
struct DmaLimits {
  std::uint64_t page_sizes = 0;                ///< Bit mask of supported page sizes in bytes.
  std::vector<IovaRange> valid;                ///< Where mappings may lie; empty where the kernel does not tell.
  std::optional<std::uint32_t> free_mappings;  ///< How many more mappings fit.
  bool dirty_tracking = false;
};

/// One DMA address space: every device attached sees the same mappings. Not thread-safe; calls may block.
class VfioContainer {
 public:
  virtual ~VfioContainer() = default;

  /// Lets attached devices reach `memory` at `iova`. The pages are pinned and count against RLIMIT_MEMLOCK: past it the
  /// error is `OutOfMemory` and says how to raise it. Both ends must be page-aligned. `InvalidArgument` for a range
  /// that the platform reserves (such as the MSI window) or that is mapped already (`Status`).
  virtual Result<void> map(Iova iova, std::span<std::byte> memory, DmaAccess access) = 0;
  /// Ends all mappings that lie in the range; fails where one lies only partly in it. Gives the bytes unmapped.
  virtual Result<std::uint64_t> unmap(Iova iova, std::uint64_t size) = 0;
  /// Starts or stops recording which pages devices write. `Unsupported` where the IOMMU driver cannot.
  virtual Result<void> track_dirty(bool on) = 0;
  /// Pages of `page_size` bytes written since tracking began, one bit each, and forgets them.
  virtual Result<std::vector<std::uint64_t>> take_dirty(Iova iova, std::uint64_t size, std::uint64_t page_size) = 0;
  [[nodiscard]] virtual DmaLimits limits() const = 0;
};

/// Maps all of the guest's RAM at its guest-physical addresses; on failure what was mapped is unmapped again.
Result<void> map_guest_memory(VfioContainer& container, const GuestMemory& memory);

/// A region of a device: BARs 0 to 5, the ROM (6), configuration space (7), legacy VGA (8), and what drivers add (9 and
/// on).
struct VfioRegion {
  static constexpr std::uint32_t kRom = 6, kConfig = 7, kVga = 8;

  std::uint32_t index = 0;
  std::uint64_t size = 0;  ///< Bytes; 0 where the device does not have it.
  bool readable = false, writable = false;
  bool mappable = false;                ///< At least part of it can be mapped.
  bool msix_mappable = false;           ///< The page with the MSI-X table may be mapped too.
  std::vector<IovaRange> sparse;        ///< If not empty, only these parts (offsets in the region) can be mapped.
  std::uint32_t type = 0, subtype = 0;  ///< Of driver-specific regions.
};

/// Part of a region mapped into this process; unmapped by the destructor.
class RegionMapping {
 public:
  RegionMapping() = default;
  RegionMapping(std::byte* data, std::uint64_t size) : data_(data), size_(size) {}
  RegionMapping(RegionMapping&& other) noexcept;
  RegionMapping& operator=(RegionMapping&& other) noexcept;
  ~RegionMapping();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  /// Device registers: each access is one bus access of exactly this width. `offset` must be aligned and inside.
  template <typename T>
  [[nodiscard]] T load(std::uint64_t offset) const {
    return *reinterpret_cast<const volatile T*>(data_ + offset);
  }
  template <typename T>
  void store(std::uint64_t offset, T value) const {
    *reinterpret_cast<volatile T*>(data_ + offset) = value;
  }

 private:
  std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
};

/// Kinds of interrupt of a PCI device (VFIO_PCI_*_IRQ_INDEX).
enum class VfioIrq : std::uint8_t {
  Intx = 0,
  Msi = 1,
  Msix = 2,
  Error = 3,    ///< The device reported an uncorrectable error.
  Request = 4,  ///< The host wants the device back: close it soon.
};

struct VfioIrqInfo {
  std::uint32_t count = 0;  ///< 0 where the device has none of this kind.
  bool eventfd = false, maskable = false, automasked = false;
  bool resizable = false;  ///< Vectors can be added while others are in use.
};

/// A device that a bus reset would reset along.
struct HotResetMember {
  PciAddress address;
  std::optional<std::uint32_t> group;  ///< Its IOMMU group; none where the kernel goes by devices (iommufd).
  bool owned = false;                  ///< This process holds it and may reset it.
};

/// A device opened through VFIO. Its destructor turns interrupts off and gives it back to the kernel, which resets it.
/// Register access and interrupts may be used from several threads; the rest needs one thread at a time.
class VfioDevice {
 public:
  virtual ~VfioDevice() = default;

  [[nodiscard]] virtual const std::string& name() const = 0;
  [[nodiscard]] virtual bool can_reset() const = 0;
  [[nodiscard]] virtual std::uint32_t region_count() const = 0;
  /// `NotFound` where the device has no such region.
  [[nodiscard]] virtual Result<VfioRegion> region(std::uint32_t index) const = 0;
  /// Reads or writes through the kernel, which splits it into naturally aligned accesses. Fails past the region's end.
  virtual Result<void> read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> out) const = 0;
  virtual Result<void> write(std::uint32_t region, std::uint64_t offset, std::span<const std::byte> in) = 0;
  /// Maps `[offset, offset + size)` of a mappable region (one of its sparse parts, where it has some).
  virtual Result<RegionMapping> map(std::uint32_t region, std::uint64_t offset, std::uint64_t size) const = 0;

  [[nodiscard]] virtual Result<VfioIrqInfo> irq_info(VfioIrq irq) const = 0;
  /// Signals one eventfd per vector, from vector 0 on; -1 leaves a vector out. Only one of INTx, MSI and MSI-X can be
  /// on.
  virtual Result<void> enable_irq(VfioIrq irq, std::span<const int> eventfds) = 0;
  virtual Result<void> disable_irq(VfioIrq irq) = 0;
  /// INTx masks itself when it fires; unmask once the device has been served.
  virtual Result<void> mask_intx() = 0;
  virtual Result<void> unmask_intx() = 0;
  /// Has the kernel signal the vector as if the device had raised it.
  virtual Result<void> trigger_irq(VfioIrq irq, std::uint32_t vector) = 0;

  /// Resets this function alone (FLR, power management, or the slot or bus where it is alone on it).
  virtual Result<void> reset() = 0;
  /// What a reset of the slot or bus takes along, this device included.
  [[nodiscard]] virtual Result<std::vector<HotResetMember>> hot_reset_members() const = 0;
  /// Resets slot or bus. Fails with `PermissionDenied` naming the members that this container does not own.
  virtual Result<void> hot_reset() = 0;
  /// Lets the device sleep while the guest does not use it; any access wakes it. `Unsupported` on older kernels.
  virtual Result<void> set_low_power(bool on) = 0;
  /// Of a physical function: the secret that opening its virtual functions needs from now on, a UUID. `Unsupported`
  /// where it can have none (vfio-pci without enable_sriov), `Busy` while one of them is open.
  virtual Result<void> set_vf_token(std::string_view uuid) = 0;

  // Shorthands.
  [[nodiscard]] Result<std::uint32_t> config_read(std::uint32_t offset, unsigned width) const;
  Result<void> config_write(std::uint32_t offset, unsigned width, std::uint32_t value);
  /// A copy of configuration space as the kernel virtualizes it.
  [[nodiscard]] Result<ConfigSpace> config_space() const;
};

/// Which of the kernel's two interfaces is used.
enum class VfioBackend : std::uint8_t {
  Auto,       ///< iommufd where the kernel has it and its device files, else the container.
  Container,  ///< /dev/vfio/vfio and group files.
  Iommufd,    ///< /dev/iommu and device files (Linux 6.6).
};

/// How to open devices.
struct VfioOptions {
  std::filesystem::path dev = "/dev/vfio";
  std::filesystem::path iommu = "/dev/iommu";
  std::filesystem::path sysfs = "/sys";
  VfioBackend backend = VfioBackend::Auto;
  /// Shared secret for virtual functions whose physical function is driven by vfio-pci too: a UUID.
  std::optional<std::string> vf_token;
};

/// The kernel's VFIO: one DMA address space, and the devices opened into it.
class VfioHost {
 public:
  /// Opens the container. Fails with the module to load or the permission to give where it cannot.
  static Result<std::unique_ptr<VfioHost>> open(VfioOptions options = {});
  virtual ~VfioHost() = default;

  [[nodiscard]] virtual VfioContainer& container() = 0;
  /// What was chosen: `Container` or `Iommufd`.
  [[nodiscard]] virtual VfioBackend backend() const = 0;
  /// Opens a device bound to vfio-pci (or a mediated device by UUID), attaching its group if need be. The device must
  /// not outlive this object. A group that is not viable is `Busy`, naming who is in the way.
  virtual Result<std::unique_ptr<VfioDevice>> open_device(PciAddress address) = 0;
  virtual Result<std::unique_ptr<VfioDevice>> open_mediated(const std::string& uuid) = 0;
};

}  // namespace vm_platform
