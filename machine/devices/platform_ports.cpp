#include "machine/devices/platform_ports.hpp"

#include <utility>

namespace vm_platform {
namespace {

constexpr std::uint8_t kResetCpu = 0x04;  // its rising edge resets
constexpr std::uint8_t kSystemA20 = 0x02, kSystemFastReset = 0x01;

}  // namespace

ResetControl::ResetControl(std::function<void()> reset) : reset_(std::move(reset)) {}

std::uint32_t ResetControl::port_read(std::uint16_t port, unsigned) {
  switch (port) {
    case kPort: return 0xffffff00u | register_.load();
    case kSystemPort: return 0xffffff00u | kSystemA20;
    default: return 0xffffffff;
  }
}

void ResetControl::port_write(std::uint16_t port, unsigned, std::uint32_t value) {
  const auto byte = static_cast<std::uint8_t>(value);
  switch (port) {
    case kPort: {
      const std::uint8_t before = register_.exchange(byte & 0x0a);  // the trigger bit does not stay
      if ((byte & kResetCpu) != 0 && (before & kResetCpu) == 0) reset_();
      break;
    }
    case kKeyboardPort:
      if ((byte & 0xf1) == 0xf0) reset_();  // pulse output bit 0
      break;
    default:
      if ((byte & kSystemFastReset) != 0) reset_();
  }
}

DebugExit::DebugExit(std::function<void(std::uint8_t)> exit) : exit_(std::move(exit)) {}
std::uint32_t DebugExit::port_read(std::uint16_t, unsigned) { return 0; }
void DebugExit::port_write(std::uint16_t, unsigned, std::uint32_t value) { exit_(static_cast<std::uint8_t>(value)); }

PvPanic::PvPanic(std::function<void(std::uint8_t)> panicked) : panicked_(std::move(panicked)) {}
std::uint32_t PvPanic::port_read(std::uint16_t, unsigned) { return kPanicked | kCrashLoaded; }
void PvPanic::port_write(std::uint16_t, unsigned, std::uint32_t value) {
  if (const auto event = static_cast<std::uint8_t>(value & (kPanicked | kCrashLoaded)); event != 0) panicked_(event);
}

}  // namespace vm_platform
