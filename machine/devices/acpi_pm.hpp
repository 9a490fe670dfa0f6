// ACPI's fixed hardware: power management events and control, the PM timer, the power button.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "guest/bus.hpp"
#include "guest/interrupt.hpp"
#include "machine/clock/timer_service.hpp"

namespace vm_platform {

/// ACPI 6.4, 4.8.3: PM1a event block (status, enable), PM1a control block and the 32-bit PM timer, at `kBase`.
/// Interrupts by the SCI, level-triggered. ACPI mode is always on: there is no SMI. Thread-safe.
class AcpiPm final : public PortDevice {
 public:
  static constexpr std::uint16_t kBase = 0x600, kEventBlock = kBase, kControlBlock = kBase + 4, kTimerBlock = kBase + 8;
  static constexpr std::uint16_t kLength = 12;
  static constexpr std::uint64_t kTimerHz = 3'579'545;
  static constexpr std::uint8_t kSleepTypeS5 = 5;  ///< What \_S5 says.

  AcpiPm(InterruptLine& sci, TimerService& timers, std::function<void()> power_off);
  void press_power_button();
  void reset();

  std::uint32_t port_read(std::uint16_t port, unsigned size) override;
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;

 private:
  [[nodiscard]] std::uint64_t ticks(std::int64_t now) const noexcept;
  std::uint8_t read_byte(unsigned offset, std::int64_t now);
  void write_byte(unsigned offset, std::uint8_t value);
  void catch_up(std::int64_t now);
  void update(std::int64_t now);
  void fired();

  InterruptLine& sci_;
  std::function<void()> power_off_;
  std::mutex mutex_;
  std::uint16_t status_ = 0, enable_ = 0, control_ = 0;
  std::int64_t start_ = 0;
  std::uint64_t checked_ticks_ = 0;
  Timer timer_;
};

}  // namespace vm_platform
