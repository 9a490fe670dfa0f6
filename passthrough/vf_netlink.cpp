#include "passthrough/vf_netlink.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <functional>

#include "passthrough/netlink.hpp"

namespace vm_platform {
namespace {

// Added in Linux 5.18 (include/uapi/linux/rtnetlink.h).
#ifndef RTEXT_FILTER_SKIP_STATS
constexpr std::uint32_t RTEXT_FILTER_SKIP_STATS = 1 << 3;
#endif

void read_stats(const NetlinkAttribute& nest, VfPerfStats& stats) {
  each_attribute(nest.payload, [&](const NetlinkAttribute& counter) {
    const auto value = counter.as<std::uint64_t>();
    if (!value) return;
    switch (counter.type) {
      case IFLA_VF_STATS_RX_PACKETS: stats.rx_packets = *value; break;
      case IFLA_VF_STATS_TX_PACKETS: stats.tx_packets = *value; break;
      case IFLA_VF_STATS_RX_BYTES: stats.rx_bytes = *value; break;
      case IFLA_VF_STATS_TX_BYTES: stats.tx_bytes = *value; break;
      case IFLA_VF_STATS_BROADCAST: stats.broadcast = *value; break;
      case IFLA_VF_STATS_MULTICAST: stats.multicast = *value; break;
      case IFLA_VF_STATS_RX_DROPPED: stats.rx_dropped = *value; break;
      case IFLA_VF_STATS_TX_DROPPED: stats.tx_dropped = *value; break;
      default: break;
    }
  });
}

/// Drivers that do not know a setting report it as all ones.
std::optional<bool> flag(std::uint32_t setting) {
  if (setting > 1) return std::nullopt;
  return setting == 1;
}

void read_setting(const NetlinkAttribute& attribute, VfLinkInfo& info) {
  switch (attribute.type) {
    case IFLA_VF_MAC:
      if (const auto mac = attribute.as<ifla_vf_mac>()) {
        info.index = mac->vf;
        info.config.mac.emplace();
        std::memcpy(info.config.mac->address.data(), mac->mac, 6);
      }
      break;
    case IFLA_VF_VLAN:
      if (const auto vlan = attribute.as<ifla_vf_vlan>(); vlan && !info.config.vlan) {
        info.config.vlan = VlanConfig{static_cast<std::uint16_t>(vlan->vlan), static_cast<std::uint8_t>(vlan->qos),
                                      VlanConfig::Protocol::Dot1q};
      }
      break;
    case IFLA_VF_VLAN_LIST:
      each_attribute(attribute.payload, [&](const NetlinkAttribute& entry) {
        const auto vlan = entry.as<ifla_vf_vlan_info>();
        if (entry.type != IFLA_VF_VLAN_INFO || !vlan) return;
        info.config.vlan = VlanConfig{static_cast<std::uint16_t>(vlan->vlan), static_cast<std::uint8_t>(vlan->qos),
                                      static_cast<VlanConfig::Protocol>(ntohs(vlan->vlan_proto))};
      });
      break;
    case IFLA_VF_RATE:
      if (const auto rate = attribute.as<ifla_vf_rate>())
        info.config.rate = QosConfig{rate->min_tx_rate, rate->max_tx_rate};
      break;
    case IFLA_VF_SPOOFCHK:
      if (const auto value = attribute.as<ifla_vf_spoofchk>()) info.config.spoof_check = flag(value->setting);
      break;
    case IFLA_VF_TRUST:
      if (const auto value = attribute.as<ifla_vf_trust>()) info.config.trust = flag(value->setting);
      break;
    case IFLA_VF_RSS_QUERY_EN:
      if (const auto value = attribute.as<ifla_vf_rss_query_en>()) info.config.rss_query = flag(value->setting);
      break;
    case IFLA_VF_LINK_STATE:
      if (const auto value = attribute.as<ifla_vf_link_state>(); value && value->link_state <= 2)
        info.config.link = static_cast<VfLinkState>(value->link_state);
      break;
    case IFLA_VF_IB_NODE_GUID:
    case IFLA_VF_IB_PORT_GUID:
      if (const auto value = attribute.as<ifla_vf_guid>()) {
        (attribute.type == IFLA_VF_IB_NODE_GUID ? info.config.node_guid : info.config.port_guid) = VfGuid{value->guid};
      }
      break;
    case IFLA_VF_STATS:
      info.stats.emplace();
      read_stats(attribute, *info.stats);
      break;
    default: break;
  }
}

NetlinkRequest link_request(std::uint16_t type, unsigned interface_index) {
  ifinfomsg info{};
  info.ifi_family = AF_UNSPEC;
  info.ifi_index = static_cast<int>(interface_index);
  return {type, 0, std::as_bytes(std::span(&info, 1))};
}

Result<unsigned> index_of(const std::string& interface) {
  const unsigned index = ::if_nametoindex(interface.c_str());
  if (index == 0) return fail(VmError::from_os(errno, "find network interface", interface));
  return index;
}

}  // namespace

Result<VfLinkReply> parse_vf_link(std::span<const std::byte> message) {
  const auto damaged = [] { return fail(ErrorCode::Corrupt, "read netlink reply", {}, "an attribute does not fit"); };
  constexpr std::size_t kHead = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(ifinfomsg));
  if (message.size() < kHead) return damaged();
  VfLinkReply reply;
  const bool whole = each_attribute(message.subspan(kHead), [&](const NetlinkAttribute& attribute) {
    if (attribute.type == IFLA_NUM_VF) reply.count = attribute.as<std::uint32_t>().value_or(0);
    if (attribute.type != IFLA_VFINFO_LIST) return;
    each_attribute(attribute.payload, [&](const NetlinkAttribute& entry) {
      if (entry.type != IFLA_VF_INFO) return;
      VfLinkInfo info;
      each_attribute(entry.payload, [&](const NetlinkAttribute& setting) { read_setting(setting, info); });
      reply.functions.push_back(std::move(info));
    });
  });
  if (!whole) return damaged();
  return reply;
}

Result<VfLinkReply> query_vfs(const std::string& interface, bool with_stats) {
  const auto index = index_of(interface);
  if (!index) return fail(index.error());
  NetlinkRequest request = link_request(RTM_GETLINK, *index);
  request.put(IFLA_EXT_MASK, std::uint32_t{RTEXT_FILTER_VF | (with_stats ? 0U : RTEXT_FILTER_SKIP_STATS)});
  const auto answer = netlink_exchange(NETLINK_ROUTE, request);
  if (!answer) return fail(VmError::from_os(answer.error().number, "ask for the virtual functions of", interface));
  if (answer->size() != 1)
    return fail(ErrorCode::Io, "ask for the virtual functions of", interface, "the kernel gave no answer");
  return parse_vf_link(answer->front());
}

namespace {

/// One setting of one virtual function, in a message of its own so that the one that fails is known.
class VfSetting {
 public:
  VfSetting(const std::string& interface, const std::string& driver, unsigned interface_index, std::uint32_t vf)
      : interface_(interface), driver_(driver), index_(interface_index), vf_(vf) {}

  template <typename T>
  Result<void> set(const char* what, std::uint16_t type, const T& value) const {
    return send(what, [&](NetlinkRequest& request) { request.put(type, value); });
  }
  Result<void> send(const char* what, const std::function<void(NetlinkRequest&)>& put) const {
    NetlinkRequest request = link_request(RTM_SETLINK, index_);
    nlattr* list = ::mnl_attr_nest_start(request.header(), IFLA_VFINFO_LIST);
    nlattr* info = ::mnl_attr_nest_start(request.header(), IFLA_VF_INFO);
    put(request);
    ::mnl_attr_nest_end(request.header(), info);
    ::mnl_attr_nest_end(request.header(), list);
    const auto answer = netlink_exchange(NETLINK_ROUTE, request);
    if (answer) return {};
    return fail(refusal(answer.error(), fmt::format("{} of {} vf {}", what, interface_, vf_)));
  }

 private:
  [[nodiscard]] VmError refusal(const NetlinkError& error, const std::string& subject) const {
    const std::string words = error.words.empty() ? "" : fmt::format(" (it says: {})", error.words);
    if (error.number == EOPNOTSUPP)
      return {ErrorCode::Unsupported, "set", subject, fmt::format("the driver {} cannot{}", driver_, words)};
    auto refused = VmError::from_os(error.number, "set", subject);
    if (error.words.empty()) return refused;
    return {refused.code(), "set", subject, fmt::format("{}: {}", refused.reason(), error.words)};
  }

  const std::string& interface_;
  const std::string& driver_;
  unsigned index_;
  std::uint32_t vf_;
};

}  // namespace

Result<void> set_vf(const std::string& interface, const std::string& driver, std::uint32_t vf, const VfConfig& config) {
  const auto index = index_of(interface);
  if (!index) return fail(index.error());
  const VfSetting one(interface, driver, *index, vf);
  Result<void> done;
  if (config.mac) {
    ifla_vf_mac value{};
    value.vf = vf;
    std::memcpy(value.mac, config.mac->address.data(), 6);
    done = one.set("MAC address", IFLA_VF_MAC, value);
  }
  if (done && config.vlan) {
    const ifla_vf_vlan_info value{vf, config.vlan->id, config.vlan->qos,
                                  htons(static_cast<std::uint16_t>(config.vlan->protocol))};
    done = one.send("VLAN", [&](NetlinkRequest& request) {
      nlattr* list = ::mnl_attr_nest_start(request.header(), IFLA_VF_VLAN_LIST);
      request.put(IFLA_VF_VLAN_INFO, value);
      ::mnl_attr_nest_end(request.header(), list);
    });
  }
  if (done && config.rate)
    done = one.set("rate", IFLA_VF_RATE, ifla_vf_rate{vf, config.rate->min_rate, config.rate->max_rate});
  if (done && config.spoof_check)
    done = one.set("spoof check", IFLA_VF_SPOOFCHK, ifla_vf_spoofchk{vf, *config.spoof_check});
  if (done && config.trust) done = one.set("trust", IFLA_VF_TRUST, ifla_vf_trust{vf, *config.trust});
  if (done && config.rss_query)
    done = one.set("RSS query", IFLA_VF_RSS_QUERY_EN, ifla_vf_rss_query_en{vf, *config.rss_query});
  if (done && config.link) {
    done = one.set("link state", IFLA_VF_LINK_STATE, ifla_vf_link_state{vf, static_cast<std::uint32_t>(*config.link)});
  }
  if (done && config.node_guid)
    done = one.set("node GUID", IFLA_VF_IB_NODE_GUID, ifla_vf_guid{vf, config.node_guid->value});
  if (done && config.port_guid)
    done = one.set("port GUID", IFLA_VF_IB_PORT_GUID, ifla_vf_guid{vf, config.port_guid->value});
  return done;
}

}  // namespace vm_platform
