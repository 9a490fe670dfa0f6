// PCI functions as the host sees them: addresses, configuration space, capabilities, names, the scan.
//
// Everything here only reads. Taking a device away from the host is passthrough.hpp; using it is vfio.hpp.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// Where a PCI function sits: `domain:bus:device.function`, written as `0000:3b:00.1`.
///
/// The domain is 32 bits wide because some hosts (Intel VMD) number them from 0x10000.
struct PciAddress {
  std::uint32_t domain = 0;
  std::uint8_t bus = 0;
  std::uint8_t device = 0;    ///< 0 to 31.
  std::uint8_t function = 0;  ///< 0 to 7.

  /// `0000:3b:00.1`, or `3b:00.1` for domain 0. Fails with `InvalidArgument` on anything else.
  static Result<PciAddress> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  /// The same slot: the functions that one card usually carries.
  [[nodiscard]] bool same_slot(const PciAddress& other) const {
    return domain == other.domain && bus == other.bus && device == other.device;
  }
  /// Bus, device and function as they stand in a requester ID.
  [[nodiscard]] std::uint16_t requester_id() const {
    return static_cast<std::uint16_t>(bus << 8 | device << 3 | function);
  }
  auto operator<=>(const PciAddress&) const = default;
};

/// A copy of a function's configuration space. Reads past its end give all ones, as an absent device does.
///
/// Unprivileged readers get 64 bytes, conventional PCI has 256, PCI Express 4096.
class ConfigSpace {
 public:
  static constexpr std::size_t kMaxSize = 4096;

  ConfigSpace() = default;
  /// Takes the first 4096 bytes of `bytes`.
  explicit ConfigSpace(std::span<const std::uint8_t> bytes);

  [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }
  [[nodiscard]] std::span<const std::uint8_t> bytes() const noexcept { return bytes_; }
  /// Whether `[offset, offset + size)` is in the copy.
  [[nodiscard]] bool contains(std::size_t offset, std::size_t size) const noexcept {
    return offset <= bytes_.size() && size <= bytes_.size() - offset;
  }
  [[nodiscard]] std::uint8_t u8(std::size_t offset) const noexcept;
  [[nodiscard]] std::uint16_t u16(std::size_t offset) const noexcept;
  [[nodiscard]] std::uint32_t u32(std::size_t offset) const noexcept;
  [[nodiscard]] std::uint64_t u64(std::size_t offset) const noexcept;

 private:
  std::vector<std::uint8_t> bytes_;
};

/// Capability IDs (PCI Code and ID Assignment Specification 1.14, section 2).
enum class PciCapId : std::uint16_t {
  PowerManagement = 0x01,
  Agp = 0x02,
  Vpd = 0x03,
  SlotId = 0x04,
  Msi = 0x05,
  HotSwap = 0x06,
  PciX = 0x07,
  HyperTransport = 0x08,
  Vendor = 0x09,
  DebugPort = 0x0a,
  HotPlug = 0x0c,
  BridgeSubsystem = 0x0d,
  Agp8x = 0x0e,
  Express = 0x10,
  Msix = 0x11,
  Sata = 0x12,
  AdvancedFeatures = 0x13,
  EnhancedAllocation = 0x14,
};

/// Extended capability IDs (the same document, section 3).
enum class PciExtCapId : std::uint16_t {
  AdvancedErrorReporting = 0x01,
  VirtualChannel = 0x02,
  SerialNumber = 0x03,
  PowerBudgeting = 0x04,
  RootComplexLink = 0x05,
  EventCollector = 0x07,
  VirtualChannelMfvc = 0x09,
  Vendor = 0x0b,
  Acs = 0x0d,
  Ari = 0x0e,
  Ats = 0x0f,
  Sriov = 0x10,
  Multicast = 0x12,
  PageRequest = 0x13,
  ResizableBar = 0x15,
  DynamicPowerAllocation = 0x16,
  TphRequester = 0x17,
  Ltr = 0x18,
  SecondaryExpress = 0x19,
  Pasid = 0x1b,
  DownstreamPortContainment = 0x1d,
  L1Substates = 0x1e,
  PrecisionTime = 0x1f,
  DesignatedVendor = 0x23,
  VfResizableBar = 0x24,
  DataLinkFeature = 0x25,
  Physical16 = 0x26,
  LaneMargining = 0x27,
  Physical32 = 0x2a,
  Doe = 0x2e,
  Device3 = 0x2f,
  Ide = 0x30,
};

/// One entry of a capability list.
struct PciCapability {
  std::uint16_t id = 0;
  std::uint16_t offset = 0;  ///< Bytes from the start of configuration space.
  std::uint8_t version = 0;  ///< Of extended capabilities; 0 otherwise.
  bool extended = false;

  [[nodiscard]] bool is(PciCapId wanted) const { return !extended && id == static_cast<std::uint16_t>(wanted); }
  [[nodiscard]] bool is(PciExtCapId wanted) const { return extended && id == static_cast<std::uint16_t>(wanted); }
};

/// Both capability lists of a function, and what was wrong with them.
struct PciCapabilities {
  std::vector<PciCapability> list;     ///< In list order; conventional ones first.
  std::vector<std::string> anomalies;  ///< Cycles, pointers out of range, truncation: one sentence each.

  [[nodiscard]] const PciCapability* find(PciCapId id) const;
  [[nodiscard]] const PciCapability* find(PciExtCapId id) const;
};

/// Walks both lists (PCI 3.0 section 6.7, PCIe 6.0 section 7.6.3). Ends on cycles and garbage and says so.
[[nodiscard]] PciCapabilities walk_capabilities(const ConfigSpace& config);
/// The specification's name, such as "MSI-X" or "Access Control Services"; "unknown (0x99)" for others.
[[nodiscard]] std::string capability_name(const PciCapability& capability);

/// A decoded register field, for people and for JSON.
struct PciField {
  std::string name;
  std::string value;
};
/// The fields of one capability; empty for those that have no decoder or are cut off.
[[nodiscard]] std::vector<PciField> describe_capability(const ConfigSpace& config, const PciCapability& capability);

/// PCI Express (PCIe 6.0 section 7.5.3).
struct PciExpressInfo {
  /// Device/Port Type field.
  enum class Port : std::uint8_t {
    Endpoint = 0,
    LegacyEndpoint = 1,
    RootPort = 4,
    UpstreamPort = 5,
    DownstreamPort = 6,
    PcieToPciBridge = 7,
    PciToPcieBridge = 8,
    IntegratedEndpoint = 9,
    EventCollector = 10
  };
  Port port = Port::Endpoint;
  bool function_level_reset = false;
  bool slot_implemented = false;
  std::uint16_t max_payload = 0;  ///< Bytes, as programmed.
  std::uint16_t max_payload_supported = 0;
  std::uint8_t link_width = 0, max_link_width = 0;  ///< Lanes; 0 where there is no link.
  std::uint8_t link_speed = 0, max_link_speed = 0;  ///< Link speed code: 1 is 2.5 GT/s, 6 is 64 GT/s.
};
/// MSI (PCI 3.0 section 6.8.1).
struct PciMsiInfo {
  bool enabled = false, address64 = false, maskable = false;
  std::uint8_t vectors = 1, enabled_vectors = 1;
};
/// MSI-X (PCI 3.0 section 6.8.2).
struct PciMsixInfo {
  bool enabled = false, masked = false;
  std::uint16_t vectors = 1;
  std::uint8_t table_bar = 0, pba_bar = 0;
  std::uint32_t table_offset = 0, pba_offset = 0;
};
/// SR-IOV (PCIe 6.0 section 9.3.3).
struct PciSriovInfo {
  std::uint16_t initial_vfs = 0, total_vfs = 0, num_vfs = 0, offset = 0, stride = 0, device_id = 0;
  std::uint32_t supported_page_sizes = 0, page_size = 0;
  bool enabled = false, memory_enabled = false, ari_hierarchy = false;
};
/// Access Control Services (PCIe 6.0 section 7.7.11): bit masks of `AcsBit`.
struct PciAcsInfo {
  std::uint16_t capable = 0, enabled = 0;
};
enum AcsBit : std::uint16_t {
  kAcsSourceValidation = 1 << 0,
  kAcsTranslationBlocking = 1 << 1,
  kAcsRequestRedirect = 1 << 2,
  kAcsCompletionRedirect = 1 << 3,
  kAcsUpstreamForwarding = 1 << 4,
  kAcsEgressControl = 1 << 5,
  kAcsDirectTranslated = 1 << 6,
};
/// One resizable BAR (PCIe 6.0 section 7.8.6).
struct PciResizableBar {
  std::uint8_t bar = 0;
  std::uint64_t sizes = 0;    ///< Bit n: the BAR can be 2^(n + 20) bytes.
  std::uint64_t current = 0;  ///< Bytes.
};

[[nodiscard]] std::optional<PciExpressInfo> decode_express(const ConfigSpace&, const PciCapabilities&);
[[nodiscard]] std::optional<PciMsiInfo> decode_msi(const ConfigSpace&, const PciCapabilities&);
[[nodiscard]] std::optional<PciMsixInfo> decode_msix(const ConfigSpace&, const PciCapabilities&);
[[nodiscard]] std::optional<PciSriovInfo> decode_sriov(const ConfigSpace&, const PciCapabilities&);
[[nodiscard]] std::optional<PciAcsInfo> decode_acs(const ConfigSpace&, const PciCapabilities&);
[[nodiscard]] std::optional<std::uint64_t> decode_serial_number(const ConfigSpace&, const PciCapabilities&);
/// `id` is `ResizableBar` or `VfResizableBar`.
[[nodiscard]] std::vector<PciResizableBar> decode_resizable_bars(const ConfigSpace&, const PciCapabilities&,
                                                                 PciExtCapId id = PciExtCapId::ResizableBar);
/// "2.5 GT/s" for 1 and so on; "" for 0 and for codes not assigned yet.
[[nodiscard]] std::string_view link_speed_name(std::uint8_t code);

/// A base address register, or the expansion ROM.
struct PciBar {
  std::uint8_t index = 0;  ///< 0 to 5; 6 is the ROM; 7 to 12 are the VF BARs of an SR-IOV physical function.
  bool io = false, is_64bit = false, prefetchable = false;
  std::uint64_t base = 0;  ///< 0 where the firmware and the kernel assigned nothing.
  std::uint64_t size = 0;  ///< Bytes; 0 where the source does not tell (text dumps).
};

/// What is known of one function. Fields that the source does not tell keep their defaults.
struct PciDeviceInfo {
  PciAddress address;
  std::uint16_t vendor = 0xffff, device = 0xffff;
  std::uint16_t subsystem_vendor = 0, subsystem_device = 0;
  std::uint32_t class_code = 0;  ///< 24 bits: base class, subclass, programming interface.
  std::uint8_t revision = 0;
  std::uint8_t header_type = 0;  ///< 0 endpoint, 1 bridge, 2 CardBus; without the multi-function bit.
  bool multifunction = false;
  std::string driver;              ///< Empty where none is bound.
  std::optional<int> iommu_group;  ///< Changes over reboots: never store it.
  /// Path below the sysfs root, such as `devices/pci0000:00/0000:00:1c.0/0000:01:00.0`: stays over renumbering of buses
  /// below other bridges.
  std::string device_path;
  std::optional<PciAddress> parent;  ///< The bridge above.

  // Filled by a full scan only.
  ConfigSpace config;  ///< What of the header and the capabilities is decoded. Bytes between are 0, or left out.
  PciCapabilities capabilities;
  std::vector<PciBar> bars;
  std::string driver_override;  ///< Empty where unset.
  std::vector<std::string> reset_methods;
  std::optional<std::string> label;  ///< Firmware's name for the device (ACPI _DSM or SMBIOS).
  std::optional<std::uint32_t> acpi_index;
  std::optional<std::uint64_t> serial_number;  ///< Device Serial Number capability.
  int numa_node = -1;
  int irq = 0;  ///< The INTx line, or 0.
  std::uint16_t sriov_total = 0, sriov_num = 0;
  std::optional<PciAddress> physical_function;  ///< Of a virtual function.
  std::vector<PciAddress> virtual_functions;    ///< Of a physical function.
  bool boot_vga = false;
  std::string power_state;            ///< "D0", "D3hot", …; empty where the kernel does not tell.
  std::vector<std::string> children;  ///< What the driver made of it: "net/eth0", "block/nvme0n1", "drm/card0", …

  [[nodiscard]] std::uint8_t base_class() const { return static_cast<std::uint8_t>(class_code >> 16); }
  [[nodiscard]] std::uint16_t class_and_subclass() const { return static_cast<std::uint16_t>(class_code >> 8); }
  /// Host, PCI and CardBus bridges, by header or by class.
  [[nodiscard]] bool is_bridge() const {
    const auto kind = class_and_subclass();
    return header_type == 1 || header_type == 2 || kind == 0x0600 || kind == 0x0604 || kind == 0x0607;
  }
  [[nodiscard]] bool is_virtual_function() const { return physical_function.has_value(); }
};

enum class PciScanDetail : std::uint8_t {
  Basic,  ///< Identity, class, driver, group, place in the tree.
  Full,   ///< Also configuration space, BARs and the rest of sysfs.
};

/// The host's PCI functions, in address order. `sysfs` is where sysfs is mounted; tests and tools may pass a copy.
/// A function that vanishes during the scan is left out. Fails with `Unsupported` where there is no PCI bus.
[[nodiscard]] Result<std::vector<PciDeviceInfo>> scan_pci(const std::filesystem::path& sysfs = "/sys",
                                                          PciScanDetail detail = PciScanDetail::Full);
/// The same, one function at a time: a host with thousands of them need not hold them all.
[[nodiscard]] Result<void> visit_pci(const std::function<void(PciDeviceInfo)>& visit,
                                     const std::filesystem::path& sysfs = "/sys",
                                     PciScanDetail detail = PciScanDetail::Full);
/// One function; `NotFound` where it is not there.
[[nodiscard]] Result<PciDeviceInfo> read_pci_device(PciAddress address, const std::filesystem::path& sysfs = "/sys");

/// Functions from the text of `lspci -x`, `-xxx` or `-xxxx` (verbose output in between is skipped).
/// Fails with `Corrupt` where a hex line contradicts itself or nothing is found.
[[nodiscard]] Result<std::vector<PciDeviceInfo>> parse_lspci_dump(std::string_view text);
/// Functions from the text of `udevadm info --export-db`: identity, class, driver, relations, children; no registers.
[[nodiscard]] Result<std::vector<PciDeviceInfo>> parse_udev_database(std::string_view text);
/// Either of the two, told apart by their form.
[[nodiscard]] Result<std::vector<PciDeviceInfo>> parse_pci_dump(std::string_view text);

/// Names from the pci.ids file. Immutable after loading: safe to use from several threads.
class PciNames {
 public:
  /// Loads `path`, or the first of the usual places. Where there is none, every look-up gives nothing.
  static PciNames load(const std::filesystem::path& path = {});

  PciNames();
  PciNames(PciNames&&) noexcept;
  PciNames& operator=(PciNames&&) noexcept;
  ~PciNames();

  [[nodiscard]] bool loaded() const noexcept;
  [[nodiscard]] std::string_view vendor(std::uint16_t vendor) const;
  [[nodiscard]] std::string_view device(std::uint16_t vendor, std::uint16_t device) const;
  [[nodiscard]] std::string_view subsystem(std::uint16_t vendor, std::uint16_t device, std::uint16_t subsystem_vendor,
                                           std::uint16_t subsystem_device) const;
  /// The name of the subclass, or of the class where the subclass has none.
  [[nodiscard]] std::string_view class_name(std::uint32_t class_code) const;
  /// "NVIDIA Corporation GA102 [GeForce RTX 3090]", or "Vendor 10de device 2204" as far as names are missing.
  [[nodiscard]] std::string describe(const PciDeviceInfo& device) const;

 private:
  struct Index;
  std::unique_ptr<Index> index_;
};

}  // namespace vm_platform
