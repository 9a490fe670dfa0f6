// The battery-backed clock and memory of a PC.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "guest/bus.hpp"
#include "guest/interrupt.hpp"
#include "machine/clock/timer_service.hpp"

namespace vm_platform {

/// Motorola MC146818 at ports 70h and 71h (and the upper bank at 72h, 73h), IRQ 8. It shows the host's UTC, moved by
/// what the guest sets. Periodic, alarm and update-ended interrupts. Thread-safe.
class RtcCmos final : public PortDevice {
 public:
  static constexpr std::uint8_t kCentury = 0x32;  ///< The FADT names this byte.

  RtcCmos(InterruptLine& interrupt, TimerService& timers, std::uint64_t low_memory, std::uint64_t high_memory);
  void reset();

  std::uint32_t port_read(std::uint16_t port, unsigned size) override;
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;

 private:
  std::uint8_t read_byte(std::uint16_t port);
  void write_byte(std::uint16_t port, std::uint8_t value);
  [[nodiscard]] bool stopped() const noexcept;
  [[nodiscard]] std::int64_t guest_ns() const;
  void show(std::int64_t now);
  void set_calendar(std::int64_t now);
  [[nodiscard]] std::int64_t calendar(std::int64_t now) const noexcept;
  [[nodiscard]] std::int64_t next_alarm(std::int64_t now) const;
  [[nodiscard]] std::int64_t period_ns() const noexcept;
  void catch_up(std::int64_t now);
  void schedule(std::int64_t now);
  void update_interrupt();
  void fired();

  InterruptLine& interrupt_;
  std::mutex mutex_;
  std::uint64_t low_memory_, high_memory_;
  std::uint8_t index_ = 0, upper_index_ = 0;
  std::array<std::uint8_t, 256> memory_{};
  // Guest time runs on from the host's; only SET stops it. What date it shows is apart from it, in seconds, so that any
  // year that the registers can name has a place.
  std::int64_t offset_ns_ = 0;   // guest time - the host's
  std::int64_t calendar_ = 0;    // the date shown - guest time, in s
  std::int64_t frozen_ns_ = 0;   // guest time while register B's SET holds it
  std::int64_t checked_ns_ = 0;  // up to when register C's flags are right
  Timer timer_;
};

}  // namespace vm_platform
