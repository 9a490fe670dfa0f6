#include "apps/vmp/console/serial_input.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace vm_platform::vmp {
namespace {
constexpr std::byte kLeave{0x1d};      // Ctrl-]
constexpr std::byte kEndOfFile{0x04};  // Ctrl-D: passes on what was typed; with nothing typed, the end of the input
constexpr std::byte kQuote{0x16};      // Ctrl-V: the next character is not special (termios(3), VLNEXT)
constexpr std::byte kNewline{'\n'};
// A canonical line holds 4095 bytes (n_tty); one piece of input is far less, quoted.
constexpr std::size_t kPiece = 1024;
}  // namespace

bool SerialInput::read() {
  std::array<std::byte, kPiece> buffer;
  const ssize_t count = ::read(descriptor_, buffer.data(), buffer.size());
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return true;
  if (count <= 0) {  // also EIO: the terminal is gone
    ended_ = true;
    add_end();
    return true;
  }
  std::span<const std::byte> bytes(buffer.data(), static_cast<std::size_t>(count));
  if (leave_key_) {
    const auto key = std::ranges::find(bytes, kLeave);
    if (key != bytes.end()) return false;
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(std::exchange(sent_, 0)));
    bytes = bytes.first(std::min(bytes.size(), kKeptKeys - std::min(kKeptKeys, pending_.size())));
    if (bytes.empty()) return true;
  }
  add(bytes);
  push();
  return true;
}

void SerialInput::add(std::span<const std::byte> bytes) {
  if (mode_ == InputMode::Raw) {
    pending_.insert(pending_.end(), bytes.begin(), bytes.end());
    return;
  }
  for (const std::byte byte : bytes) {
    if (byte == kEndOfFile || byte == kQuote || byte == std::byte{0}) pending_.push_back(kQuote);
    pending_.push_back(byte);
  }
  // Without a newline the guest's reader would not see it yet; after one, this would be the end.
  if (bytes.back() != kNewline) pending_.push_back(kEndOfFile);
}

void SerialInput::add_end() {
  if (mode_ == InputMode::Raw) return;
  pending_.push_back(kEndOfFile);
  push();
}

void SerialInput::send(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  pending_.insert(pending_.end(), bytes.begin(), bytes.end());
  push();
}

void SerialInput::push() {
  if (pending_.empty()) return;
  sent_ += port_.send(std::span<const std::byte>(pending_).subspan(sent_));
  if (sent_ < pending_.size()) return;  // the port says when there is room
  pending_.clear();
  sent_ = 0;
}

}  // namespace vm_platform::vmp
