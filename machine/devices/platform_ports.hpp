// Ports with one purpose each: reset, debug exit, panic notification.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "guest/bus.hpp"

namespace vm_platform {

/// The chip set's reset control register at CF9h, the keyboard controller's reset pulse at 64h and the fast reset of
/// port 92h. There is no keyboard controller otherwise: 60h and 64h read as ones. Thread-safe.
class ResetControl final : public PortDevice {
 public:
  static constexpr std::uint16_t kPort = 0xcf9, kKeyboardPort = 0x64, kSystemPort = 0x92;
  static constexpr std::uint8_t kResetValue = 0x06;  ///< The FADT's RESET_VALUE: a full reset.

  explicit ResetControl(std::function<void()> reset);
  void reset() noexcept { register_ = 0; }
  std::uint32_t port_read(std::uint16_t port, unsigned size) override;
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;

 private:
  std::function<void()> reset_;
  std::atomic<std::uint8_t> register_{0};
};

/// A write to F4h ends the guest with a value, as test programs for emulators do.
class DebugExit final : public PortDevice {
 public:
  static constexpr std::uint16_t kPort = 0xf4;

  explicit DebugExit(std::function<void(std::uint8_t)> exit);
  std::uint32_t port_read(std::uint16_t port, unsigned size) override;
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;

 private:
  std::function<void(std::uint8_t)> exit_;
};

/// The pvpanic device (ACPI ID QEMU0001): reads as the events it knows, a write tells one.
class PvPanic final : public PortDevice {
 public:
  static constexpr std::uint16_t kPort = 0x505;
  static constexpr std::uint8_t kPanicked = 1, kCrashLoaded = 2;

  explicit PvPanic(std::function<void(std::uint8_t)> panicked);
  std::uint32_t port_read(std::uint16_t port, unsigned size) override;
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;

 private:
  std::function<void(std::uint8_t)> panicked_;
};

}  // namespace vm_platform
