#include "passthrough/devlink.hpp"

#include <linux/devlink.h>
#include <linux/genetlink.h>

#include <cerrno>

#include "passthrough/netlink.hpp"

namespace vm_platform {
namespace {

constexpr std::uint64_t kBytesPerMbit = 1'000'000 / 8;

NetlinkRequest generic_request(std::uint16_t family, std::uint8_t command, std::uint8_t version, std::uint16_t flags) {
  const genlmsghdr head{command, version, 0};
  return {family, flags, std::as_bytes(std::span(&head, 1))};
}

std::span<const std::byte> attributes_of(std::span<const std::byte> message) {
  constexpr std::size_t kHead = NLMSG_HDRLEN + GENL_HDRLEN;
  return message.size() < kHead ? std::span<const std::byte>{} : message.subspan(kHead);
}

std::optional<std::uint8_t> command_of(std::span<const std::byte> message) {
  if (message.size() < NLMSG_HDRLEN + GENL_HDRLEN) return std::nullopt;
  return static_cast<std::uint8_t>(message[NLMSG_HDRLEN]);
}

/// The number of the devlink family, which each kernel chooses anew.
std::expected<std::uint16_t, NetlinkError> devlink_family() {
  auto request = generic_request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1, 0);
  request.put_text(CTRL_ATTR_FAMILY_NAME, DEVLINK_GENL_NAME);
  const auto answer = netlink_exchange(NETLINK_GENERIC, request);
  if (!answer) return std::unexpected(answer.error());
  std::uint16_t family = 0;
  for (const auto& message : *answer) {
    each_attribute(attributes_of(message), [&](const NetlinkAttribute& attribute) {
      if (attribute.type == CTRL_ATTR_FAMILY_ID) family = attribute.as<std::uint16_t>().value_or(0);
    });
  }
  if (family == 0) return std::unexpected(NetlinkError{ENOENT, {}});
  return family;
}

using Answer = std::expected<std::vector<std::vector<std::byte>>, NetlinkError>;

/// Sends a command about one device; `fill` adds what the command needs.
template <typename Fill>
Answer devlink_command(const DevlinkHandle& handle, std::uint8_t command, std::uint16_t flags, Fill fill) {
  const auto family = devlink_family();
  if (!family) return std::unexpected(family.error());
  auto request = generic_request(*family, command, DEVLINK_GENL_VERSION, flags);
  if ((flags & NLM_F_DUMP) == 0)
    request.put_text(DEVLINK_ATTR_BUS_NAME, handle.bus).put_text(DEVLINK_ATTR_DEV_NAME, handle.device);
  fill(request);
  return netlink_exchange(NETLINK_GENERIC, request);
}

VmError refusal(const NetlinkError& error, std::string operation, const std::string& subject) {
  auto refused = VmError::from_os(error.number, operation, subject);
  const ErrorCode code = error.number == EOPNOTSUPP ? ErrorCode::Unsupported : refused.code();
  return {code, std::move(operation), subject, error.words.empty() ? refused.reason() : error.words};
}

/// Reads a message's attributes with `visit`; false where it is damaged or about another device.
template <typename Visit>
bool read_message(std::span<const std::byte> message, const DevlinkHandle& handle, Visit visit) {
  DevlinkHandle of;
  const bool whole = each_attribute(attributes_of(message), [&](const NetlinkAttribute& attribute) {
    if (attribute.type == DEVLINK_ATTR_BUS_NAME) of.bus = attribute.text();
    if (attribute.type == DEVLINK_ATTR_DEV_NAME) of.device = attribute.text();
    visit(attribute);
  });
  return whole && of.bus == handle.bus && of.device == handle.device;
}

}  // namespace

std::optional<DevlinkRate> parse_devlink_rate(std::span<const std::byte> message, const DevlinkHandle& handle) {
  const auto command = command_of(message);
  if (command != DEVLINK_CMD_RATE_GET && command != DEVLINK_CMD_RATE_NEW) return std::nullopt;
  DevlinkRate rate;
  const auto mbit = [](const NetlinkAttribute& attribute) {
    return static_cast<std::uint32_t>(attribute.as<std::uint64_t>().value_or(0) / kBytesPerMbit);
  };
  const bool read = read_message(message, handle, [&](const NetlinkAttribute& attribute) {
    switch (attribute.type) {
      case DEVLINK_ATTR_PORT_INDEX: rate.port = attribute.as<std::uint32_t>(); break;
      case DEVLINK_ATTR_RATE_NODE_NAME: rate.node = attribute.text(); break;
      case DEVLINK_ATTR_RATE_PARENT_NODE_NAME: rate.parent = attribute.text(); break;
      case DEVLINK_ATTR_RATE_TX_SHARE: rate.rate.min_rate = mbit(attribute); break;
      case DEVLINK_ATTR_RATE_TX_MAX: rate.rate.max_rate = mbit(attribute); break;
      default: break;
    }
  });
  if (!read || rate.port.has_value() == !rate.node.empty()) return std::nullopt;
  return rate;
}

std::optional<DevlinkVfPort> parse_devlink_port(std::span<const std::byte> message, const DevlinkHandle& handle) {
  std::optional<std::uint32_t> port;
  std::optional<std::uint16_t> vf, flavour;
  const bool read = read_message(message, handle, [&](const NetlinkAttribute& attribute) {
    if (attribute.type == DEVLINK_ATTR_PORT_INDEX) port = attribute.as<std::uint32_t>();
    if (attribute.type == DEVLINK_ATTR_PORT_FLAVOUR) flavour = attribute.as<std::uint16_t>();
    if (attribute.type == DEVLINK_ATTR_PORT_PCI_VF_NUMBER) vf = attribute.as<std::uint16_t>();
  });
  if (!read || !port || !vf || flavour != DEVLINK_PORT_FLAVOUR_PCI_VF) return std::nullopt;
  return DevlinkVfPort{*port, *vf};
}

std::optional<bool> devlink_switchdev(const DevlinkHandle& handle) {
  const auto answer = devlink_command(handle, DEVLINK_CMD_ESWITCH_GET, 0, [](NetlinkRequest&) {});
  if (!answer) return std::nullopt;
  std::optional<bool> on;
  for (const auto& message : *answer) {
    (void)read_message(message, handle, [&](const NetlinkAttribute& attribute) {
      if (attribute.type == DEVLINK_ATTR_ESWITCH_MODE)
        on = attribute.as<std::uint16_t>() == DEVLINK_ESWITCH_MODE_SWITCHDEV;
    });
  }
  return on;
}

Result<void> set_devlink_switchdev(const DevlinkHandle& handle, bool on) {
  const auto answer = devlink_command(handle, DEVLINK_CMD_ESWITCH_SET, 0, [&](NetlinkRequest& request) {
    request.put(DEVLINK_ATTR_ESWITCH_MODE,
                static_cast<std::uint16_t>(on ? DEVLINK_ESWITCH_MODE_SWITCHDEV : DEVLINK_ESWITCH_MODE_LEGACY));
  });
  if (!answer) return fail(refusal(answer.error(), "set switchdev mode of", handle.to_string()));
  return {};
}

Result<std::vector<DevlinkRate>> devlink_rates(const DevlinkHandle& handle) {
  const auto answer = devlink_command(handle, DEVLINK_CMD_RATE_GET, NLM_F_DUMP, [](NetlinkRequest&) {});
  if (!answer) return fail(refusal(answer.error(), "ask for rate objects of", handle.to_string()));
  std::vector<DevlinkRate> rates;
  for (const auto& message : *answer)
    if (auto rate = parse_devlink_rate(message, handle)) rates.push_back(std::move(*rate));
  return rates;
}

Result<std::vector<DevlinkVfPort>> devlink_vf_ports(const DevlinkHandle& handle) {
  const auto answer = devlink_command(handle, DEVLINK_CMD_PORT_GET, NLM_F_DUMP, [](NetlinkRequest&) {});
  if (!answer) return fail(refusal(answer.error(), "ask for ports of", handle.to_string()));
  std::vector<DevlinkVfPort> ports;
  for (const auto& message : *answer)
    if (const auto port = parse_devlink_port(message, handle)) ports.push_back(*port);
  return ports;
}

Result<void> change_devlink_rate(const DevlinkHandle& handle, DevlinkRateChange change, const DevlinkRate& object,
                                 bool with_rate, bool with_parent) {
  const std::uint8_t command = change == DevlinkRateChange::Set   ? DEVLINK_CMD_RATE_SET
                               : change == DevlinkRateChange::New ? DEVLINK_CMD_RATE_NEW
                                                                  : DEVLINK_CMD_RATE_DEL;
  const auto answer = devlink_command(handle, command, 0, [&](NetlinkRequest& request) {
    if (object.port)
      request.put(DEVLINK_ATTR_PORT_INDEX, *object.port);
    else
      request.put_text(DEVLINK_ATTR_RATE_NODE_NAME, object.node);
    if (with_rate) {
      request.put(DEVLINK_ATTR_RATE_TX_SHARE, object.rate.min_rate * kBytesPerMbit);
      request.put(DEVLINK_ATTR_RATE_TX_MAX, object.rate.max_rate * kBytesPerMbit);
    }
    if (with_parent) request.put_text(DEVLINK_ATTR_RATE_PARENT_NODE_NAME, object.parent);
  });
  if (answer) return {};
  const std::string subject =
      handle.to_string() + (object.port ? " port " + std::to_string(*object.port) : " rate group " + object.node);
  return fail(refusal(answer.error(), change == DevlinkRateChange::Delete ? "delete rate of" : "set rate of", subject));
}

}  // namespace vm_platform
