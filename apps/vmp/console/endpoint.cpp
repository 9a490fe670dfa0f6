#include "apps/vmp/console/endpoint.hpp"

#include <fcntl.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <utility>

namespace vm_platform::vmp {

Result<ConsoleTarget> parse_console_target(const std::string& option, const std::string& text) {
  using Kind = ConsoleTarget::Kind;
  const auto rest = [&](std::string_view prefix) -> std::optional<std::string> {
    if (!text.starts_with(prefix) || text.size() == prefix.size()) return std::nullopt;
    return text.substr(prefix.size());
  };
  if (text == "none") return ConsoleTarget{Kind::None};
  if (text == "stdio") return ConsoleTarget{Kind::Stdio};
  if (text == "pty") return ConsoleTarget{Kind::Pty};
  if (text == "winsize") return ConsoleTarget{Kind::WindowSize};
  if (const auto path = rest("file:")) return ConsoleTarget{Kind::File, *path};
  if (const auto number = rest("fd:")) {
    int descriptor = -1;
    const auto [end, status] = std::from_chars(number->data(), number->data() + number->size(), descriptor);
    if (status == std::errc() && end == number->data() + number->size() && descriptor >= 0)
      return ConsoleTarget{Kind::Descriptor, {}, descriptor};
  }
  return fail(VmError(ErrorCode::InvalidArgument, "use " + option, "'" + text + "'", "no such console")
                  .with_hint(std::string("give stdio, none, pty, file:PATH or fd:NUMBER") +
                             (option == "--serial2" ? ", or winsize" : "")));
}

Result<Endpoint> Endpoint::open(const ConsoleTarget& target) {
  Endpoint endpoint(target);
  switch (target.kind) {
    case ConsoleTarget::Kind::None: endpoint.name_ = "none"; break;
    case ConsoleTarget::Kind::WindowSize: endpoint.name_ = "window size"; break;
    case ConsoleTarget::Kind::Stdio:
      endpoint.name_ = "stdout";
      endpoint.input_ = STDIN_FILENO;
      endpoint.output_ = STDOUT_FILENO;
      break;
    case ConsoleTarget::Kind::Descriptor: {
      endpoint.name_ = "fd " + std::to_string(target.descriptor);
      const int flags = ::fcntl(target.descriptor, F_GETFL);
      if (flags < 0)
        return fail(VmError::from_os(errno, "open console", endpoint.name_).with_hint("open it in the caller"));
      const int access = flags & O_ACCMODE;
      if (access != O_WRONLY) endpoint.input_ = target.descriptor;
      if (access != O_RDONLY) endpoint.output_ = target.descriptor;
      break;
    }
    case ConsoleTarget::Kind::File:
      endpoint.name_ = target.path;
      endpoint.owned_ = ::open(target.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
      if (endpoint.owned_ < 0)
        return fail(VmError::from_os(errno, "open console", target.path).with_hint("name a file that can be written"));
      endpoint.output_ = endpoint.owned_;
      break;
    case ConsoleTarget::Kind::Pty: {
      // Non-blocking: a terminal that polls writable may have room for less than is written.
      endpoint.owned_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
      std::array<char, 128> name{};
      if (endpoint.owned_ < 0 || ::grantpt(endpoint.owned_) != 0 || ::unlockpt(endpoint.owned_) != 0 ||
          ::ptsname_r(endpoint.owned_, name.data(), name.size()) != 0)
        return fail(VmError::from_os(errno, "open console", "a pseudo-terminal").with_hint("is /dev/pts mounted?"));
      endpoint.name_ = name.data();
      // Held open here, so that reading does not fail while nobody is connected; raw, so that it hides nothing.
      endpoint.keep_open_ = ::open(name.data(), O_RDWR | O_NOCTTY | O_CLOEXEC);
      termios attributes{};
      if (endpoint.keep_open_ >= 0 && ::tcgetattr(endpoint.keep_open_, &attributes) == 0) {
        ::cfmakeraw(&attributes);
        ::tcsetattr(endpoint.keep_open_, TCSANOW, &attributes);
      }
      endpoint.input_ = endpoint.output_ = endpoint.owned_;
      break;
    }
  }
  return endpoint;
}

Endpoint::Endpoint(Endpoint&& other) noexcept
    : target_(std::move(other.target_)),
      name_(std::move(other.name_)),
      input_(other.input_),
      output_(other.output_),
      owned_(std::exchange(other.owned_, -1)),
      keep_open_(std::exchange(other.keep_open_, -1)) {}

Endpoint::~Endpoint() {
  if (owned_ >= 0) ::close(owned_);
  if (keep_open_ >= 0) ::close(keep_open_);
}

}  // namespace vm_platform::vmp
