// Taking PCI devices away from the host for a guest, and giving them back: plan, apply, journal, roll back, release.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>
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

/// A function that moves in a plan.
struct PassthroughDevice {
  PciDeviceInfo info;
  DeviceType type = DeviceType::Other;
  bool requested = false;  ///< Asked for; false for those that have to come along.
  std::string reason;      ///< Why it comes along.
};

/// One change to the host.
struct PlanStep {
  enum class Kind : std::uint8_t { LoadModule, SetOverride, Unbind, Bind };
  Kind kind = Kind::Bind;
  PciAddress device;   ///< Not of `LoadModule`.
  std::string driver;  ///< The driver unbound from or bound to; the module loaded.
  std::string text;    ///< One line for people.
};

/// What will happen, before it does.
struct PassthroughPlan {
  std::vector<PassthroughDevice> devices;
  std::vector<PlanStep> steps;     ///< Empty where all is in place.
  std::vector<DeviceUse> in_use;   ///< What stands in the way unless forced.
  std::vector<std::string> risks;  ///< What works but deserves to be known.
};

/// A device in our hands.
struct TakenDevice {
  PciAddress address;
  std::string former_driver;    ///< Empty: had none.
  std::string former_override;  ///< Its driver_override before; empty: none.
  std::string device_path;
  std::uint16_t vendor = 0, device = 0;
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

/// Where things are and how long to wait. The defaults are the host's own.
struct PassthroughOptions {
  std::filesystem::path sysfs = "/sys";
  std::filesystem::path root = "/";  ///< Where /proc and /dev are looked up.
  std::filesystem::path state = "/var/lib/vm-platform/passthrough";
  /// How long one driver may take to let go of its device.
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
  [[nodiscard]] Result<PassthroughPlan> plan(std::span<const PciAddress> addresses) const;

  /// Carries the plan out. With something in use it fails with `Busy` and changes nothing, unless `force`. Where a step
  /// fails, all is put back and the error's detail is `RolledBack`.
  Result<void> take(const PassthroughPlan& plan, bool force = false);

  /// Gives a device, and those taken with it, back to their former drivers. Fails with `Busy` while a process has it
  /// open, unless `force`. An address that is not ours is `Status` with detail `NotTaken`.
  Result<TakenSet> release(PciAddress address, bool force = false);

  /// All that is taken, also by tools that died.
  [[nodiscard]] Result<std::vector<TakenSet>> status() const;

  /// Puts right what tools that died left half-done, and forgets sets that a reboot has undone. Gives what was put
  /// right.
  Result<std::vector<TakenSet>> recover();

 private:
  PassthroughOptions options_;
};

/// What the host uses a device for: file systems, swap, volumes, network, console, open device nodes.
[[nodiscard]] std::vector<DeviceUse> find_uses(const PciDeviceInfo& device, const std::filesystem::path& sysfs = "/sys",
                                               const std::filesystem::path& root = "/");

/// A process that has a device node open.
struct NodeHolder {
  int pid = 0;
  std::string command;
  std::string node;
};
/// Processes that have one of the nodes (such as "/dev/vfio/12") open. Those of other users are seen by root only.
[[nodiscard]] std::vector<NodeHolder> find_holders(std::span<const std::string> nodes,
                                                   const std::filesystem::path& root = "/");

}  // namespace vm_platform

template <>
struct std::is_error_code_enum<vm_platform::PassthroughError> : std::true_type {};
