#include "passthrough/netlink.hpp"

#include <libmnl/libmnl.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <cerrno>
#include <memory>

namespace vm_platform {

std::string_view NetlinkAttribute::text() const {
  const std::string_view all(reinterpret_cast<const char*>(payload.data()), payload.size());
  return all.substr(0, all.find('\0'));
}

bool each_attribute(std::span<const std::byte> bytes, const std::function<void(const NetlinkAttribute&)>& visit) {
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

NetlinkRequest::NetlinkRequest(std::uint16_t type, std::uint16_t flags, std::span<const std::byte> extra)
    : buffer_(2048) {
  header_ = ::mnl_nlmsg_put_header(buffer_.data());
  header_->nlmsg_type = type;
  header_->nlmsg_flags =
      static_cast<std::uint16_t>(NLM_F_REQUEST | flags | ((flags & NLM_F_DUMP) != 0 ? 0 : NLM_F_ACK));
  header_->nlmsg_seq = 1;
  std::memcpy(::mnl_nlmsg_put_extra_header(header_, extra.size()), extra.data(), extra.size());
}

NetlinkRequest& NetlinkRequest::put_bytes(std::uint16_t type, std::span<const std::byte> bytes) {
  ::mnl_attr_put(header_, type, bytes.size(), bytes.data());
  return *this;
}

NetlinkRequest& NetlinkRequest::put_text(std::uint16_t type, std::string_view text) {
  ::mnl_attr_put_strz(header_, type, std::string(text.substr(0, 255)).c_str());
  return *this;
}

namespace {

struct CloseSocket {
  void operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
};

/// NLMSG_ERROR: 0 is an acknowledgement. Behind the failed request's header (or all of it) the kernel's words may
/// follow.
NetlinkError read_error(std::span<const std::byte> message) {
  nlmsghdr header;
  nlmsgerr error;
  if (message.size() < sizeof header + sizeof error) return {EBADMSG, {}};
  std::memcpy(&header, message.data(), sizeof header);
  std::memcpy(&error, message.data() + sizeof header, sizeof error);
  NetlinkError read{-error.error, {}};
  std::size_t skip = sizeof header + sizeof error;
  if ((header.nlmsg_flags & NLM_F_CAPPED) == 0 && error.msg.nlmsg_len >= sizeof error.msg)
    skip += NLMSG_ALIGN(error.msg.nlmsg_len - sizeof error.msg);
  if ((header.nlmsg_flags & NLM_F_ACK_TLVS) != 0 && skip <= message.size()) {
    each_attribute(message.subspan(skip), [&](const NetlinkAttribute& attribute) {
      if (attribute.type == NLMSGERR_ATTR_MSG) read.words = attribute.text();
    });
  }
  return read;
}

}  // namespace

std::expected<std::vector<std::vector<std::byte>>, NetlinkError> netlink_exchange(int family, NetlinkRequest& request) {
  const auto failed = [](int number) { return std::unexpected(NetlinkError{number, {}}); };
  const std::unique_ptr<mnl_socket, CloseSocket> socket(::mnl_socket_open2(family, SOCK_CLOEXEC));
  if (socket == nullptr || ::mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) return failed(errno);
  const int descriptor = ::mnl_socket_get_fd(socket.get());
  const int on = 1, room = 4 << 20;
  const timeval limit{10, 0};
  ::setsockopt(descriptor, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  // A reply of hundreds of functions must leave room for the acknowledgement behind it.
  if (::setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) < 0)
    ::setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
  ::setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (::mnl_socket_sendto(socket.get(), request.header(), request.header()->nlmsg_len) < 0) return failed(errno);
  std::vector<std::vector<std::byte>> answer;
  for (;;) {
    // Hundreds of functions make a message larger than any fixed buffer: ask for its size first.
    const ssize_t size = ::recv(descriptor, nullptr, 0, MSG_PEEK | MSG_TRUNC);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return failed(errno == EAGAIN ? ETIMEDOUT : errno);
    std::vector<std::byte> buffer(static_cast<std::size_t>(size));
    const ssize_t length = ::recv(descriptor, buffer.data(), buffer.size(), 0);
    if (length < 0) return failed(errno);
    buffer.resize(static_cast<std::size_t>(length));
    std::span<const std::byte> rest = buffer;
    while (rest.size() >= sizeof(nlmsghdr)) {
      nlmsghdr header;
      std::memcpy(&header, rest.data(), sizeof header);
      if (header.nlmsg_len < sizeof header || header.nlmsg_len > rest.size()) return failed(EBADMSG);
      const auto message = rest.first(header.nlmsg_len);
      if (header.nlmsg_type == NLMSG_ERROR) {
        auto error = read_error(message);
        if (error.number != 0) return std::unexpected(std::move(error));
        return answer;
      }
      if (header.nlmsg_type == NLMSG_DONE) return answer;
      answer.emplace_back(message.begin(), message.end());
      rest = rest.subspan(std::min<std::size_t>(rest.size(), NLMSG_ALIGN(header.nlmsg_len)));
    }
  }
}

}  // namespace vm_platform
