// Netlink as rtnetlink and devlink need it: a request out, all of the answer back, attributes read without trusting
// them.
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vm_platform {

/// Read by hand and not by libmnl's macros, which trust the lengths that they are given.
struct NetlinkAttribute {
  std::uint16_t type = 0;
  std::span<const std::byte> payload;

  template <typename T>
  [[nodiscard]] std::optional<T> as() const {
    if (payload.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, payload.data(), sizeof(T));
    return value;
  }
  /// Up to the terminating zero.
  [[nodiscard]] std::string_view text() const;
};

/// Visits each attribute; false where a length does not fit.
bool each_attribute(std::span<const std::byte> bytes, const std::function<void(const NetlinkAttribute&)>& visit);

/// A message under construction.
class NetlinkRequest {
 public:
  /// Asks for an acknowledgement unless it asks for a dump. `extra` is the family's own header.
  NetlinkRequest(std::uint16_t type, std::uint16_t flags, std::span<const std::byte> extra);

  [[nodiscard]] nlmsghdr* header() { return header_; }
  template <typename T>
  NetlinkRequest& put(std::uint16_t type, const T& value) {
    return put_bytes(type, std::as_bytes(std::span(&value, 1)));
  }
  NetlinkRequest& put_text(std::uint16_t type, std::string_view text);
  NetlinkRequest& put_bytes(std::uint16_t type, std::span<const std::byte> bytes);

 private:
  std::vector<std::byte> buffer_;
  nlmsghdr* header_ = nullptr;
};

/// The kernel's refusal: an error number, and its own words where it has some.
struct NetlinkError {
  int number = 0;
  std::string words;
};

/// Sends, and gives the messages of the answer (none for what is only acknowledged), headers included. Waits for at
/// most ten seconds: a kernel that has no room to queue its acknowledgement drops it.
std::expected<std::vector<std::vector<std::byte>>, NetlinkError> netlink_exchange(int family, NetlinkRequest& request);

}  // namespace vm_platform
