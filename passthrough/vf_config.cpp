#include "passthrough/vf_config.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "passthrough/text.hpp"

namespace vm_platform {

Result<VfMacConfig> VfMacConfig::parse(std::string_view text) {
  const auto bad = [&](const char* reason) {
    return fail(VmError(ErrorCode::InvalidArgument, "read MAC address", "'" + std::string(text) + "'", reason)
                    .with_hint("write it as in 52:54:00:12:34:56"));
  };
  VfMacConfig mac;
  std::string_view rest = text;
  for (std::size_t i = 0; i < 6; ++i) {
    const std::string_view part = text::take(rest, ':');
    const auto byte = text::number<std::uint8_t>(part, 16);
    if (part.size() != 2 || !byte || (i == 5 && !rest.empty())) return bad("not six bytes in hexadecimal");
    mac.address[i] = *byte;
  }
  if (text.size() != 17) return bad("not six bytes in hexadecimal");
  if ((mac.address[0] & 1) != 0) return bad("it is a multicast address");
  return mac;
}

std::string VfMacConfig::to_string() const { return fmt::format("{:02x}", fmt::join(address, ":")); }

Result<VfGuid> VfGuid::parse(std::string_view text) {
  VfGuid guid;
  std::string_view rest = text;
  bool good = text.size() == 23;
  for (std::size_t i = 0; good && i < 8; ++i) {
    const std::string_view part = text::take(rest, ':');
    const auto byte = text::number<std::uint8_t>(part, 16);
    good = part.size() == 2 && byte.has_value();
    guid.value = guid.value << 8 | byte.value_or(0);
  }
  if (good && guid.value != 0) return guid;
  return fail(VmError(ErrorCode::InvalidArgument, "read GUID", "'" + std::string(text) + "'",
                      good ? "all zeros" : "not eight bytes in hexadecimal")
                  .with_hint("write it as in 00:11:22:33:44:55:66:77"));
}

std::string VfGuid::to_string() const {
  std::string text;
  for (int shift = 56; shift >= 0; shift -= 8)
    text += fmt::format("{}{:02x}", shift == 56 ? "" : ":", value >> shift & 0xff);
  return text;
}

namespace {

std::string text_of(const VfMacConfig& mac) { return mac.to_string(); }
std::string text_of(const VlanConfig& vlan) {
  return fmt::format("{} qos {}{}", vlan.id, vlan.qos, vlan.protocol == VlanConfig::Protocol::Dot1ad ? " 802.1ad" : "");
}
std::string text_of(const QosConfig& rate) { return fmt::format("{} to {} Mbit/s", rate.min_rate, rate.max_rate); }
std::string text_of(const VfGuid& guid) { return guid.to_string(); }
std::string text_of(const std::string& group) { return group.empty() ? "none" : group; }
std::string text_of(bool on) { return on ? "on" : "off"; }
std::string text_of(VfLinkState link) {
  constexpr const char* kNames[] = {"auto", "enable", "disable"};
  return kNames[static_cast<std::size_t>(link)];
}

template <typename T>
void compare_one(std::vector<VfDifference>& found, const char* name, const std::optional<T>& wanted,
                 const std::optional<T>& actual) {
  if (wanted && wanted != actual) found.push_back({name, text_of(*wanted), actual ? text_of(*actual) : "unknown"});
}

}  // namespace

std::vector<VfDifference> compare(const VfConfig& wanted, const VfConfig& actual) {
  std::vector<VfDifference> found;
  compare_one(found, "MAC address", wanted.mac, actual.mac);
  compare_one(found, "VLAN", wanted.vlan, actual.vlan);
  compare_one(found, "rate", wanted.rate, actual.rate);
  compare_one(found, "trust", wanted.trust, actual.trust);
  compare_one(found, "spoof check", wanted.spoof_check, actual.spoof_check);
  compare_one(found, "RSS query", wanted.rss_query, actual.rss_query);
  compare_one(found, "link state", wanted.link, actual.link);
  compare_one(found, "node GUID", wanted.node_guid, actual.node_guid);
  compare_one(found, "port GUID", wanted.port_guid, actual.port_guid);
  compare_one(found, "rate group", wanted.rate_group, actual.rate_group);
  return found;
}

VfConfig former(const VfConfig& asked, const VfConfig& before) {
  VfConfig kept;
  const auto keep = [&](auto member) {
    if (asked.*member) kept.*member = before.*member;
  };
  keep(&VfConfig::mac);
  keep(&VfConfig::vlan);
  keep(&VfConfig::rate);
  keep(&VfConfig::trust);
  keep(&VfConfig::spoof_check);
  keep(&VfConfig::rss_query);
  keep(&VfConfig::link);
  keep(&VfConfig::node_guid);
  keep(&VfConfig::port_guid);
  keep(&VfConfig::rate_group);
  return kept;
}

}  // namespace vm_platform
