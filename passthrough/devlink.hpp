// devlink (linux/devlink.h, over generic netlink): the eswitch of a physical function and its rate objects.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>
#include <vm_platform/sriov.hpp>

namespace vm_platform {

/// How devlink names a device: "pci/0000:3b:00.0", "netdevsim/netdevsim1".
struct DevlinkHandle {
  std::string bus, device;
  [[nodiscard]] std::string to_string() const { return bus + "/" + device; }
};

/// A rate object as a reply tells it: a leaf belongs to a port, a node to nobody but its leaves.
struct DevlinkRate {
  std::optional<std::uint32_t> port;  ///< Of a leaf.
  std::string node, parent;
  QosConfig rate;  ///< In Mbit/s; devlink counts bytes per second.
  bool operator==(const DevlinkRate&) const = default;
};
/// A port of the eswitch that stands for a virtual function.
struct DevlinkVfPort {
  std::uint32_t port = 0, vf = 0;
};

/// Replies to DEVLINK_CMD_RATE_GET and DEVLINK_CMD_PORT_GET, headers included; nothing for other messages and damaged
/// ones.
[[nodiscard]] std::optional<DevlinkRate> parse_devlink_rate(std::span<const std::byte> message,
                                                            const DevlinkHandle& handle);
[[nodiscard]] std::optional<DevlinkVfPort> parse_devlink_port(std::span<const std::byte> message,
                                                              const DevlinkHandle& handle);

/// Whether the eswitch is in switchdev mode; nothing where the driver has no eswitch (or the kernel no devlink).
[[nodiscard]] std::optional<bool> devlink_switchdev(const DevlinkHandle& handle);
Result<void> set_devlink_switchdev(const DevlinkHandle& handle, bool on);
[[nodiscard]] Result<std::vector<DevlinkRate>> devlink_rates(const DevlinkHandle& handle);
[[nodiscard]] Result<std::vector<DevlinkVfPort>> devlink_vf_ports(const DevlinkHandle& handle);

enum class DevlinkRateChange : std::uint8_t { Set, New, Delete };
/// Makes, changes or deletes the rate object that `object` names by its port or node. `with_parent` also sets the
/// parent (none where it is empty).
Result<void> change_devlink_rate(const DevlinkHandle& handle, DevlinkRateChange change, const DevlinkRate& object,
                                 bool with_rate, bool with_parent);

}  // namespace vm_platform
