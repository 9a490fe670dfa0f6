// Where a guest's serial port goes: what `--console` and `--serial2` name.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vm_platform/core.hpp>

namespace vm_platform::vmp {

struct ConsoleTarget {
  enum class Kind : std::uint8_t { None, Stdio, File, Pty, Descriptor, WindowSize };
  Kind kind = Kind::None;
  std::string path = {};
  int descriptor = -1;
};
/// "stdio", "none", "pty", "file:PATH", "fd:N", "winsize"; `option` names the option in errors.
[[nodiscard]] Result<ConsoleTarget> parse_console_target(const std::string& option, const std::string& text);

/// A target opened. Closes what it opened; standard streams stay open.
class Endpoint {
 public:
  static Result<Endpoint> open(const ConsoleTarget& target);
  Endpoint(Endpoint&& other) noexcept;
  Endpoint& operator=(Endpoint&&) = delete;
  ~Endpoint();

  [[nodiscard]] ConsoleTarget::Kind kind() const noexcept { return target_.kind; }
  [[nodiscard]] int input() const noexcept { return input_; }    ///< -1: none.
  [[nodiscard]] int output() const noexcept { return output_; }  ///< -1: what the guest sends is dropped.
  /// For messages: the path, or the name of the pseudo-terminal.
  [[nodiscard]] const std::string& name() const noexcept { return name_; }

 private:
  explicit Endpoint(ConsoleTarget target) : target_(std::move(target)) {}
  ConsoleTarget target_;
  std::string name_;
  int input_ = -1, output_ = -1, owned_ = -1, keep_open_ = -1;
};

}  // namespace vm_platform::vmp
