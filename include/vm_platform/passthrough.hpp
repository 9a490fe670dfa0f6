// Taking PCI devices away from the host for a guest, and giving them back: plan, apply, journal, roll back, release.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>
#include <vm_platform/device_identity.hpp>
#include <vm_platform/iommu.hpp>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// Finer codes that a `VmError` carries in `detail()`.
enum class PassthroughError : int {
  NoIommu = 1,     ///< The host cannot isolate devices.
  NoVfio,          ///< The kernel has no vfio-pci.
  InUse,           ///< The host uses the device; the error says for what.
  NotTaken,        ///< There is nothing to give back.
  KernelIgnored,   ///< The kernel accepted a change and did not make it.
  RolledBack,      ///< A step failed, and everything was put back as it was.
  RollbackFailed,  ///< A step failed, and so did putting something back; the error names what.
  Stuck,           ///< The kernel has not finished a change in time and still may; `recover` puts things right then.
};
[[nodiscard]] std::error_code make_error_code(PassthroughError error) noexcept;

/// What a function is for, as far as passing it on is concerned.
enum class DeviceType : std::uint8_t { Bridge, Gpu, Npu, Network, Storage, Usb, Audio, Serial, Accelerator, Other };
[[nodiscard]] std::string_view to_string(DeviceType type) noexcept;
/// From class code and, for accelerators that hide in other classes, from known IDs.
[[nodiscard]] DeviceType classify(const PciDeviceInfo& device) noexcept;

/// One way in which the host uses a device.
struct DeviceUse {
  PciAddress device;
  std::string what;  ///< "nvme0n1p2 is mounted on /", "eth0 has the default route", "held by qemu (pid 4711)".
};

/// What a later guest is to see of a device; kept with the device while it is taken.
struct GuestView {
  std::string rom_file;          ///< Shown at its ROM BAR instead of its own; empty: its own (see `guest_rom`).
  bool hide_hypervisor = false;  ///< The guest is not told that it runs on one (see `GpuConfig`).
  bool operator==(const GuestView&) const = default;
};

/// What to take, beside the addresses.
struct TakeOptions {
  GuestView guest;  ///< Of the devices asked for.
  /// Resizable BARs of the devices asked for: BAR number and bytes.
  std::vector<std::pair<std::uint8_t, std::uint64_t>> bar_sizes;
};

/// A function that moves in a plan.
struct PassthroughDevice {
  PciDeviceInfo info;
  DeviceType type = DeviceType::Other;
  bool requested = false;    ///< Asked for; false for those that have to come along.
  std::string reason;        ///< Why it comes along.
  std::string give_back_to;  ///< The driver that releasing it returns it to; empty: none.
  GuestView guest = {};
};

/// One change to the host.
struct PlanStep {
  enum class Kind : std::uint8_t {
    LoadModule,          ///< `argument` is the module.
    ReleaseConsole,      ///< A text console (`argument`, "vtcon1") stops drawing on framebuffers.
    ReleaseFramebuffer,  ///< The boot framebuffer (`argument`, a platform device) lets go of the GPU.
    SetOverride,         ///< Only the driver in `argument` may bind.
    Unbind,              ///< From the driver in `argument`.
    SetResetMethods,     ///< The kernel resets it by those in `argument` alone.
    ResizeBar,           ///< `argument` is "BAR:BYTES".
    YieldVga,            ///< It answers to legacy VGA addresses no more.
    Bind,                ///< To the driver in `argument`.
  };
  Kind kind = Kind::Bind;
  PciAddress device;  ///< Not of `LoadModule` and `ReleaseConsole`.
  std::string argument;
  std::string text;  ///< One line for people.
};

/// What will happen, before it does.
struct PassthroughPlan {
  std::vector<PassthroughDevice> devices;
  std::vector<PlanStep> steps;     ///< Empty where all is in place.
  std::vector<DeviceUse> in_use;   ///< What stands in the way unless forced.
  std::vector<std::string> risks;  ///< What works but deserves to be known.
};

/// What a GPU had before it was taken.
struct FormerDisplay {
  std::string vga_decodes = {};                           ///< "io+mem"; empty: was not changed.
  std::string framebuffer = {}, framebuffer_driver = {};  ///< The boot framebuffer's platform device; empty: none.
  std::vector<std::string> consoles = {};                 ///< Text consoles that were unbound.
  bool operator==(const FormerDisplay&) const = default;
};

/// A device in our hands.
struct TakenDevice {
  PciAddress address;
  std::string former_driver;    ///< Empty: had none.
  std::string former_override;  ///< Its driver_override before; empty: none.
  std::string device_path;
  std::uint16_t vendor = 0, device = 0;
  std::string former_reset_methods = {};  ///< Empty: were not changed.
  std::string former_bar_sizes = {};      ///< "1:268435456 …"; empty: were not changed.
  FormerDisplay display = {};
  GuestView guest = {};
};

/// Devices that were taken together and go back together.
struct TakenSet {
  enum class State : std::uint8_t {
    Taking,  ///< The tool died while it took them.
    Taken,
    Releasing,  ///< The tool died while it gave them back.
  };
  State state = State::Taken;
  bool stale = false;  ///< From before a reboot, which has undone it already.
  std::vector<TakenDevice> devices;
};
[[nodiscard]] std::string_view to_string(TakenSet::State state) noexcept;

/// A device that is taken at every boot.
struct RememberedDevice {
  DeviceIdentity identity;
  bool requested = true;      ///< False for one that came along.
  std::string former_driver;  ///< What releasing it returns it to, although at boot that driver may not have it yet.
  GuestView guest = {};
};
/// What became of one of them.
struct RestoreOutcome {
  RememberedDevice device;
  std::optional<PciAddress> address;  ///< Where it is now; nothing where it was not found.
  std::optional<VmError> error;       ///< Nothing: it is taken.
};

/// Where things are and how long to wait. The defaults are the host's own.
struct PassthroughOptions {
  std::filesystem::path sysfs = "/sys";
  std::filesystem::path root = "/";  ///< Where /proc and /dev are looked up.
  std::filesystem::path state = "/var/lib/vm-platform/passthrough";
  std::filesystem::path config = "/etc/vm-platform";  ///< What is to be taken at every boot.
  /// How long the kernel may take for one change of a device's binding, such as a driver for letting go of it.
  std::chrono::milliseconds unbind_timeout{10000};
  /// Called before each step, with a line for people; for progress.
  std::function<void(std::string_view)> on_step;
};

/// Plans, takes and releases. Every change is written to the journal in `state` before it is made, so that a tool that
/// dies half-way is put right by the next one. Calls lock the journal: two tools take turns.
class PassthroughManager {
 public:
  explicit PassthroughManager(PassthroughOptions options = {});

  /// What taking these functions means. Fails where it cannot be done at all: no IOMMU, no vfio-pci, no such device, a
  /// bridge. What the host uses is not an error but listed in the plan.
  [[nodiscard]] Result<PassthroughPlan> plan(std::span<const PciAddress> addresses,
                                             const TakeOptions& options = {}) const;

  /// Carries the plan out. With something in use it fails with `Busy` and changes nothing, unless `force`. Where a step
  /// fails, all is put back and the error's detail is `RolledBack`; where a driver does not let go in time (`Stuck`),
  /// nothing more is touched, and the journal keeps what `recover` needs.
  Result<void> take(const PassthroughPlan& plan, bool force = false);

  /// Gives a device, and those taken with it, back to their former drivers. Fails with `Busy` while a process has it
  /// open, unless `force`. An address that is not ours is `Status` with detail `NotTaken`.
  Result<TakenSet> release(PciAddress address, bool force = false);
  /// What `release` would give back.
  [[nodiscard]] Result<TakenSet> taken_with(PciAddress address) const;

  /// All that is taken, also by tools that died.
  [[nodiscard]] Result<std::vector<TakenSet>> status() const;

  /// Puts right what tools that died left half-done, and forgets sets that a reboot has undone. Gives what was put
  /// right.
  Result<std::vector<TakenSet>> recover();

  /// Has the devices asked for in `plan` taken at every boot, by `restore`. They are known by what survives
  /// renumbering (`DeviceIdentity`).
  Result<void> remember(const PassthroughPlan& plan);
  /// Whether the device that is at this address is remembered, wherever it was then; or one that was there last and is
  /// nowhere any more.
  [[nodiscard]] Result<bool> remembers(PciAddress address) const;
  /// Ends that for a device; false where it was not remembered.
  Result<bool> forget(PciAddress address);
  /// What `remember` was told.
  [[nodiscard]] Result<std::vector<RememberedDevice>> remembered() const;
  /// Takes what is remembered, as a unit does at boot, and never by force. Devices that are not there yet are waited
  /// for up to `wait`. One that fails does not keep the others from being taken; each outcome is given.
  Result<std::vector<RestoreOutcome>> restore(std::chrono::milliseconds wait = {});

 private:
  PassthroughOptions options_;
};

/// What the host uses a device for: file systems, swap, volumes, network, console, open device nodes. Other namespaces
/// are seen by root only.
[[nodiscard]] std::vector<DeviceUse> find_uses(const PciDeviceInfo& device, const std::filesystem::path& sysfs = "/sys",
                                               const std::filesystem::path& root = "/");

/// A process that has a device node open.
struct NodeHolder {
  int pid = 0;
  std::string command;
  std::string node;
};
/// The nodes by which a process can have a device that VFIO has: that of its group, and its own
/// ("/dev/vfio/devices/vfio3").
[[nodiscard]] std::vector<std::string> vfio_nodes(PciAddress device, const std::filesystem::path& sysfs = "/sys");
/// Processes that have one of the nodes (such as "/dev/vfio/12") open. Those of other users are seen by root only.
[[nodiscard]] std::vector<NodeHolder> find_holders(std::span<const std::string> nodes,
                                                   const std::filesystem::path& root = "/");

}  // namespace vm_platform

template <>
struct std::is_error_code_enum<vm_platform::PassthroughError> : std::true_type {};
