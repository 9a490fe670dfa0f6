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

namespace {

std::string text_of(const VfMacConfig& mac) { return mac.to_string(); }
std::string text_of(const VlanConfig& vlan) {
  return fmt::format("{} qos {}{}", vlan.id, vlan.qos, vlan.protocol == VlanConfig::Protocol::Dot1ad ? " 802.1ad" : "");
}
std::string text_of(const QosConfig& rate) { return fmt::format("{} to {} Mbit/s", rate.min_rate, rate.max_rate); }
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
  return found;
}

}  // namespace vm_platform
