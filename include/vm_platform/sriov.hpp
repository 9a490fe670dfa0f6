// SR-IOV: virtual functions made, set up, read back and deleted.
//
// `SriovVfManager` is the host's, a `VfManager` one physical function's. A physical function is named by its PCI
// address or by its network interface; what sits on other buses (netdevsim) has an interface only.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

struct DevlinkHandle;
struct DevlinkRate;

/// One virtual function: its physical function, and its number from 0.
struct VfId {
  std::string physical_function;  ///< "0000:3b:00.0" or "eth0".
  std::uint32_t index = 0;
  bool operator==(const VfId&) const = default;
};

/// A MAC address.
struct VfMacConfig {
  std::array<std::uint8_t, 6> address{};

  /// "52:54:00:12:34:56". Multicast addresses and anything malformed are `InvalidArgument`.
  static Result<VfMacConfig> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  bool operator==(const VfMacConfig&) const = default;
};

/// The VLAN that the hardware puts a virtual function into; invisible to the guest.
struct VlanConfig {
  enum class Protocol : std::uint16_t { Dot1q = 0x8100, Dot1ad = 0x88a8 };  ///< 802.1Q, or 802.1ad (QinQ).

  std::uint16_t id = 0;  ///< 0 (none) to 4094.
  std::uint8_t qos = 0;  ///< Priority, 0 to 7.
  Protocol protocol = Protocol::Dot1q;
  bool operator==(const VlanConfig&) const = default;
};

/// Transmit rates in Mbit/s; 0 is no limit.
struct QosConfig {
  std::uint32_t min_rate = 0, max_rate = 0;
  bool operator==(const QosConfig&) const = default;
};

/// An InfiniBand identifier of 64 bits.
struct VfGuid {
  std::uint64_t value = 0;

  /// "00:11:22:33:44:55:66:77". All zeros and anything malformed are `InvalidArgument`.
  static Result<VfGuid> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  bool operator==(const VfGuid&) const = default;
};

enum class VfLinkState : std::uint8_t { Auto = 0, Enable = 1, Disable = 2 };

/// What to set; what is left out stays as it is.
struct VfConfig {
  std::optional<VfMacConfig> mac;
  std::optional<VlanConfig> vlan;
  std::optional<QosConfig> rate;
  std::optional<bool> trust, spoof_check, rss_query;
  std::optional<VfLinkState> link;
  std::optional<VfGuid> node_guid, port_guid;  ///< Of InfiniBand functions.
  /// The rate group that shares its rate among members; "" is none. In switchdev mode only.
  std::optional<std::string> rate_group;

  bool operator==(const VfConfig&) const = default;
  [[nodiscard]] bool empty() const { return *this == VfConfig{}; }
};

/// A rate shared by virtual functions, of an eswitch in switchdev mode (devlink calls it a rate node).
struct RateGroup {
  std::string name;
  QosConfig rate;
  bool operator==(const RateGroup&) const = default;
};

/// Counters that the physical function's driver keeps. With more than 221 virtual functions the kernel has no way to
/// tell them (its list has a 16-bit length).
struct VfPerfStats {
  std::uint64_t rx_packets = 0, tx_packets = 0, rx_bytes = 0, tx_bytes = 0;
  std::uint64_t broadcast = 0, multicast = 0, rx_dropped = 0, tx_dropped = 0;
};

/// A virtual function as it is now.
struct VfState {
  VfId id;
  std::optional<PciAddress> address;  ///< None for those on other buses.
  std::string driver;
  std::optional<int> iommu_group;
  VfConfig config;  ///< What the driver reports; empty where there is no network interface.
  std::optional<VfPerfStats> stats;
};

/// One physical function.
class VfManager {
 public:
  /// `name` is a PCI address or a network interface. `NotFound` where there is none, `Unsupported` where it has no
  /// virtual functions to give. What the host uses them for is read from `root`/proc.
  static Result<VfManager> open(std::string_view name, const std::filesystem::path& sysfs = "/sys",
                                const std::filesystem::path& root = "/");

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] const std::string& interface() const { return interface_; }  ///< Empty where there is none.
  [[nodiscard]] const std::string& driver() const { return driver_; }
  [[nodiscard]] std::optional<PciDeviceInfo> device() const;
  /// The most that can be made; nothing where the bus does not tell.
  [[nodiscard]] std::optional<std::uint32_t> limit() const;
  [[nodiscard]] std::uint32_t count() const;

  /// Whether drivers of the host bind to functions made from now on; nothing where the bus has no such switch.
  [[nodiscard]] std::optional<bool> autoprobe() const;

  /// Whether functions that the host uses may be deleted.
  enum class HostUse : std::uint8_t {
    Refuse,
    Ignore,  ///< For those that the caller has only just made: udev or DHCP may have found them by now.
  };
  /// Makes the number of virtual functions `count`, going through 0 as the kernel demands, and reads back what became
  /// of it. With `autoprobe` false no driver of the host binds to new ones (on a bus without that switch none does
  /// anyway). Fails as `check_unused` where existing ones would be deleted, with nothing changed.
  Result<void> resize(std::uint32_t count, std::optional<bool> autoprobe = std::nullopt, HostUse use = HostUse::Refuse);

  /// `Busy` where one is taken for a guest or used by the host: names it, the uses, and what to do.
  [[nodiscard]] Result<void> check_unused(HostUse use = HostUse::Refuse) const;

  /// All virtual functions, by number.
  [[nodiscard]] Result<std::vector<VfState>> list() const;
  /// Sets what `config` names, one by one, then reads back and compares. The error names the first setting that the
  /// driver cannot do, or that it changed on the way (a rate it rounds); then all are put back (`RolledBack`). Where
  /// there are more functions than the kernel can tell of (about 320), what it accepted is believed.
  Result<void> apply(std::uint32_t index, const VfConfig& config);

  /// Whether the eswitch is in switchdev mode, where rates are devlink's; nothing where the driver has no eswitch.
  [[nodiscard]] std::optional<bool> switchdev() const;
  /// Most drivers want to have no virtual functions, or none in use, for the change.
  Result<void> set_switchdev(bool on);
  /// In switchdev mode, in the kernel's order; none in any other.
  [[nodiscard]] Result<std::vector<RateGroup>> rate_groups() const;
  /// Makes the group or changes its rate, and reads back.
  Result<void> set_rate_group(const RateGroup& group);
  /// Its members must have left it: `Busy`.
  Result<void> delete_rate_group(const std::string& name);

 private:
  VfManager() = default;
  [[nodiscard]] VfState locate(std::uint32_t index) const;  // without its settings
  Result<void> set_autoprobe(bool on);
  Result<void> set(std::uint32_t index, const VfConfig& config);
  Result<void> set_and_compare(std::uint32_t index, const VfConfig& config);
  [[nodiscard]] std::map<std::uint32_t, DevlinkRate> devlink_leaves() const;  // by virtual function

  std::string name_, interface_, driver_;
  std::filesystem::path sysfs_, root_, device_;
  std::optional<PciAddress> address_;
  std::shared_ptr<const DevlinkHandle> devlink_;
};

/// All physical functions of the host.
class SriovVfManager {
 public:
  explicit SriovVfManager(std::filesystem::path sysfs = "/sys") : sysfs_(std::move(sysfs)) {}
  /// Those that can have virtual functions, whether or not they have some now.
  [[nodiscard]] Result<std::vector<VfManager>> physical_functions() const;

 private:
  std::filesystem::path sysfs_;
};

/// What a declarative file asks of one physical function.
struct SriovDeclaration {
  std::string physical_function;
  std::uint32_t count = 0;
  std::optional<bool> autoprobe;
  std::optional<bool> switchdev;
  std::vector<RateGroup> rate_groups;                         ///< Others that exist are left alone.
  std::vector<std::pair<std::uint32_t, VfConfig>> functions;  ///< By number.
};
/// Reads the file's text (docs/passthrough.md shows one). Errors name the line.
[[nodiscard]] Result<std::vector<SriovDeclaration>> parse_sriov_file(std::string_view text);

/// One difference between what is and what is asked for.
struct SriovChange {
  std::string what;  ///< "0000:3b:00.0: virtual functions 0 -> 4", "0000:3b:00.0 vf 2: MAC … -> …".
};
/// What `converge_sriov` would change. `sysfs` and `root` as for `VfManager::open`.
[[nodiscard]] Result<std::vector<SriovChange>> diff_sriov(const std::vector<SriovDeclaration>& wanted,
                                                          const std::filesystem::path& sysfs = "/sys",
                                                          const std::filesystem::path& root = "/");
/// Makes it so; gives what was changed. Where something fails, mode, driver probing, the number of functions, rate
/// groups and all settings are put back as they were: the error's detail is `RolledBack`, or `RollbackFailed` where
/// that failed too. What fails before the first change (an unknown device, too many functions, one in use) has neither.
Result<std::vector<SriovChange>> converge_sriov(const std::vector<SriovDeclaration>& wanted,
                                                const std::filesystem::path& sysfs = "/sys",
                                                const std::filesystem::path& root = "/");

}  // namespace vm_platform
