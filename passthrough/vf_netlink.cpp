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
#include <memory>

namespace vm_platform {
namespace {

// Added in Linux 5.18 (include/uapi/linux/rtnetlink.h).
#ifndef RTEXT_FILTER_SKIP_STATS
constexpr std::uint32_t RTEXT_FILTER_SKIP_STATS = 1 << 3;
#endif

/// Reads attributes by hand and not by libmnl's macros, which trust the lengths that they are given.
struct Attribute {
  std::uint16_t type = 0;
  std::span<const std::byte> payload;

  template <typename T>
  [[nodiscard]] std::optional<T> as() const {
    if (payload.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, payload.data(), sizeof(T));
    return value;
  }
};

/// Visits each attribute; false where a length does not fit.
bool each_attribute(std::span<const std::byte> bytes, const std::function<void(const Attribute&)>& visit) {
  while (bytes.size() >= sizeof(nlattr)) {
    nlattr header;
    std::memcpy(&header, bytes.data(), sizeof header);
    if (header.nla_len < sizeof header || header.nla_len > bytes.size()) return false;
    visit({static_cast<std::uint16_t>(header.nla_type & NLA_TYPE_MASK),
           bytes.subspan(sizeof header, header.nla_len - sizeof header)});
    bytes = bytes.subspan(std::min<std::size_t>(bytes.size(), NLA_ALIGN(header.nla_len)));
  }
  return true;
}

void read_stats(const Attribute& nest, VfPerfStats& stats) {
  each_attribute(nest.payload, [&](const Attribute& counter) {
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

void read_setting(const Attribute& attribute, VfLinkInfo& info) {
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
      each_attribute(attribute.payload, [&](const Attribute& entry) {
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
    case IFLA_VF_STATS:
      info.stats.emplace();
      read_stats(attribute, *info.stats);
      break;
    default: break;
  }
}

struct CloseSocket {
  void operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
};
using Socket = std::unique_ptr<mnl_socket, CloseSocket>;

/// A request under construction, for one interface.
class Request {
 public:
  Request(std::uint16_t type, unsigned interface_index) : buffer_(1024) {
    header_ = ::mnl_nlmsg_put_header(buffer_.data());
    header_->nlmsg_type = type;
    header_->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    header_->nlmsg_seq = 1;
    auto* info = static_cast<ifinfomsg*>(::mnl_nlmsg_put_extra_header(header_, sizeof(ifinfomsg)));
    info->ifi_family = AF_UNSPEC;
    info->ifi_index = static_cast<int>(interface_index);
  }
  [[nodiscard]] nlmsghdr* header() { return header_; }

 private:
  std::vector<std::byte> buffer_;
  nlmsghdr* header_ = nullptr;
};

/// Sends, and gives the RTM_NEWLINK answer (empty for those that only acknowledge) or the kernel's error number.
std::expected<std::vector<std::byte>, int> exchange(Request& request) {
  const Socket socket(::mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC));
  if (socket == nullptr || ::mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) return std::unexpected(errno);
  if (::mnl_socket_sendto(socket.get(), request.header(), request.header()->nlmsg_len) < 0)
    return std::unexpected(errno);
  std::vector<std::byte> answer;
  for (;;) {
    // Hundreds of functions make a message larger than any fixed buffer: ask for its size first.
    const ssize_t size = ::recv(::mnl_socket_get_fd(socket.get()), nullptr, 0, MSG_PEEK | MSG_TRUNC);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return std::unexpected(errno);
    std::vector<std::byte> buffer(static_cast<std::size_t>(size));
    const ssize_t length = ::recv(::mnl_socket_get_fd(socket.get()), buffer.data(), buffer.size(), 0);
    if (length < 0) return std::unexpected(errno);
    buffer.resize(static_cast<std::size_t>(length));
    std::span<const std::byte> rest = buffer;
    while (rest.size() >= sizeof(nlmsghdr)) {
      nlmsghdr header;
      std::memcpy(&header, rest.data(), sizeof header);
      if (header.nlmsg_len < sizeof header || header.nlmsg_len > rest.size()) return std::unexpected(EBADMSG);
      if (header.nlmsg_type == NLMSG_ERROR) {
        int error = EBADMSG;
        if (header.nlmsg_len >= sizeof header + sizeof error)
          std::memcpy(&error, rest.data() + sizeof header, sizeof error);
        if (error != 0) return std::unexpected(-error);
        return answer;
      }
      if (header.nlmsg_type == RTM_NEWLINK) answer.assign(rest.begin(), rest.begin() + header.nlmsg_len);
      rest = rest.subspan(std::min<std::size_t>(rest.size(), NLMSG_ALIGN(header.nlmsg_len)));
    }
  }
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
  const bool whole = each_attribute(message.subspan(kHead), [&](const Attribute& attribute) {
    if (attribute.type == IFLA_NUM_VF) reply.count = attribute.as<std::uint32_t>().value_or(0);
    if (attribute.type != IFLA_VFINFO_LIST) return;
    each_attribute(attribute.payload, [&](const Attribute& entry) {
      if (entry.type != IFLA_VF_INFO) return;
      VfLinkInfo info;
      each_attribute(entry.payload, [&](const Attribute& setting) { read_setting(setting, info); });
      reply.functions.push_back(std::move(info));
    });
  });
  if (!whole) return damaged();
  return reply;
}

Result<VfLinkReply> query_vfs(const std::string& interface, bool with_stats) {
  const auto index = index_of(interface);
  if (!index) return fail(index.error());
  Request request(RTM_GETLINK, *index);
  ::mnl_attr_put_u32(request.header(), IFLA_EXT_MASK, RTEXT_FILTER_VF | (with_stats ? 0 : RTEXT_FILTER_SKIP_STATS));
  const auto answer = exchange(request);
  if (!answer) return fail(VmError::from_os(answer.error(), "ask for the virtual functions of", interface));
  return parse_vf_link(*answer);
}

Result<void> set_vf(const std::string& interface, const std::string& driver, std::uint32_t vf, const VfConfig& config) {
  const auto index = index_of(interface);
  if (!index) return fail(index.error());
  const auto set = [&](const char* what, const std::function<void(nlmsghdr*)>& put) -> Result<void> {
    Request request(RTM_SETLINK, *index);
    nlattr* list = ::mnl_attr_nest_start(request.header(), IFLA_VFINFO_LIST);
    nlattr* info = ::mnl_attr_nest_start(request.header(), IFLA_VF_INFO);
    put(request.header());
    ::mnl_attr_nest_end(request.header(), info);
    ::mnl_attr_nest_end(request.header(), list);
    if (const auto answer = exchange(request); !answer) {
      const std::string subject = fmt::format("{} of {} vf {}", what, interface, vf);
      if (answer.error() == EOPNOTSUPP)
        return fail(ErrorCode::Unsupported, "set", subject, fmt::format("the driver {} cannot", driver));
      return fail(VmError::from_os(answer.error(), "set", subject));
    }
    return {};
  };
  const auto put = [](nlmsghdr* header, std::uint16_t type, const auto& value) {
    ::mnl_attr_put(header, type, sizeof value, &value);
  };
  Result<void> done;
  if (config.mac) {
    ifla_vf_mac value{};
    value.vf = vf;
    std::memcpy(value.mac, config.mac->address.data(), 6);
    done = set("MAC address", [&](nlmsghdr* header) { put(header, IFLA_VF_MAC, value); });
  }
  if (done && config.vlan) {
    const ifla_vf_vlan_info value{vf, config.vlan->id, config.vlan->qos,
                                  htons(static_cast<std::uint16_t>(config.vlan->protocol))};
    done = set("VLAN", [&](nlmsghdr* header) {
      nlattr* list = ::mnl_attr_nest_start(header, IFLA_VF_VLAN_LIST);
      put(header, IFLA_VF_VLAN_INFO, value);
      ::mnl_attr_nest_end(header, list);
    });
  }
  if (done && config.rate) {
    const ifla_vf_rate value{vf, config.rate->min_rate, config.rate->max_rate};
    done = set("rate", [&](nlmsghdr* header) { put(header, IFLA_VF_RATE, value); });
  }
  if (done && config.spoof_check) {
    const ifla_vf_spoofchk value{vf, *config.spoof_check};
    done = set("spoof check", [&](nlmsghdr* header) { put(header, IFLA_VF_SPOOFCHK, value); });
  }
  if (done && config.trust) {
    const ifla_vf_trust value{vf, *config.trust};
    done = set("trust", [&](nlmsghdr* header) { put(header, IFLA_VF_TRUST, value); });
  }
  if (done && config.rss_query) {
    const ifla_vf_rss_query_en value{vf, *config.rss_query};
    done = set("RSS query", [&](nlmsghdr* header) { put(header, IFLA_VF_RSS_QUERY_EN, value); });
  }
  if (done && config.link) {
    const ifla_vf_link_state value{vf, static_cast<std::uint32_t>(*config.link)};
    done = set("link state", [&](nlmsghdr* header) { put(header, IFLA_VF_LINK_STATE, value); });
  }
  return done;
}

}  // namespace vm_platform
