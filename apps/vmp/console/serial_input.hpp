// Carries bytes from a descriptor to a guest's serial port, no faster than the guest takes them.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>
#include <vm_platform/runtime.hpp>

#include "apps/vmp/console/session.hpp"

namespace vm_platform::vmp {

class SerialInput {
 public:
  /// With `leave_key`, more is read than the guest takes; of that, this much is kept and the rest dropped.
  static constexpr std::size_t kKeptKeys = 1 << 20;

  /// `descriptor` -1: only what `send` adds. `leave_key`: Ctrl-] in the input means the user wants out, also when the
  /// guest takes no input any more.
  SerialInput(RuntimeSerial& port, int descriptor, InputMode mode, bool leave_key)
      : port_(port), descriptor_(descriptor), mode_(mode), leave_key_(leave_key) {}

  /// Whether the descriptor should be polled: there is room for more, or the key to leave may come.
  [[nodiscard]] bool wants_input() const noexcept {
    return descriptor_ >= 0 && !ended_ && (pending_.empty() || leave_key_);
  }
  /// Whether the guest has taken everything.
  [[nodiscard]] bool idle() const noexcept { return pending_.empty(); }
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

  /// Reads once. False when the user wants to leave.
  bool read();
  void send(std::string_view text);
  /// Offers the guest what it has not taken yet.
  void push();

 private:
  void add(std::span<const std::byte> bytes);
  void add_end();

  RuntimeSerial& port_;
  const int descriptor_;
  const InputMode mode_;
  const bool leave_key_;
  bool ended_ = false;
  std::vector<std::byte> pending_;
  std::size_t sent_ = 0;  // of pending_
};

}  // namespace vm_platform::vmp
