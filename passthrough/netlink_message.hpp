// Netlink messages that tests put together.
#pragma once

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace vm_platform::test {

/// A message under construction, with zeros for its headers.
class Message {
 public:
  explicit Message(std::size_t head) : bytes_(NLMSG_HDRLEN + NLMSG_ALIGN(head)) {}
  template <typename T>
  Message& put(std::uint16_t type, const T& value) {
    const std::size_t start = begin(type);
    bytes_.resize(bytes_.size() + sizeof value);
    std::memcpy(bytes_.data() + bytes_.size() - sizeof value, &value, sizeof value);
    end(start);
    return *this;
  }
  std::size_t begin(std::uint16_t type) {
    const nlattr header{0, type};
    const std::size_t start = bytes_.size();
    bytes_.resize(start + sizeof header);
    std::memcpy(bytes_.data() + start, &header, sizeof header);
    return start;
  }
  void end(std::size_t start) {
    const auto length = static_cast<std::uint16_t>(bytes_.size() - start);
    std::memcpy(bytes_.data() + start, &length, sizeof length);
    bytes_.resize(start + NLA_ALIGN(length));
  }
  Message& put_text(std::uint16_t type, const std::string& text) {
    const std::size_t start = begin(type);
    const auto* first = reinterpret_cast<const std::byte*>(text.c_str());
    bytes_.insert(bytes_.end(), first, first + text.size() + 1);
    end(start);
    return *this;
  }
  std::vector<std::byte>& bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace vm_platform::test
