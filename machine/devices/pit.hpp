// The 8254 interval timer and the PC's port 61h that gates its third channel.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "guest/bus.hpp"
#include "guest/interrupt.hpp"
#include "machine/clock/timer_service.hpp"

namespace vm_platform {

/// Intel 8254 at 40h to 43h: channel 0 interrupts (IRQ 0), channel 2 is gated and seen through port 61h. Its counters
/// are computed from the host's monotonic clock when somebody looks. Thread-safe.
class Pit final : public PortDevice {
 public:
  static constexpr std::uint64_t kHz = 1'193'182;

  Pit(InterruptLine& interrupt, TimerService& timers);
  void reset();

  std::uint32_t port_read(std::uint16_t port, unsigned size) override;
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;

 private:
  enum class Half : std::uint8_t { Low, High };
  struct Channel {
    std::uint32_t count = 0x10000;  // 1 to 10000h (or 10,000 in BCD)
    std::int64_t start = 0;         // when it was loaded, or the gate rose
    std::uint8_t mode = 0, access = 3;
    bool bcd = false, gate = true, loaded = false;
    Half next_read = Half::Low, next_write = Half::Low;
    std::uint8_t low_written = 0;
    bool count_latched = false, status_latched = false;
    std::uint16_t latch = 0;
    std::uint8_t status = 0;
    std::uint64_t frozen = 0;  // ticks that had passed when the gate fell

    [[nodiscard]] std::uint64_t ticks(std::int64_t now) const noexcept;
    [[nodiscard]] std::uint16_t value(std::int64_t now) const noexcept;
    [[nodiscard]] bool output(std::int64_t now) const noexcept;
    [[nodiscard]] bool running() const noexcept;
    void load(std::uint32_t written, std::int64_t now) noexcept;
    void set_gate(bool high, std::int64_t now) noexcept;
    void latch_count(std::int64_t now) noexcept;
  };
  std::uint8_t read_byte(std::uint16_t port, std::int64_t now);
  void write_byte(std::uint16_t port, std::uint8_t value, std::int64_t now);
  void write_control(std::uint8_t value, std::int64_t now);
  void fired();
  void schedule(std::int64_t now);

  InterruptLine& interrupt_;
  std::mutex mutex_;
  std::array<Channel, 3> channels_{};
  std::uint8_t speaker_ = 0;
  std::int64_t due_ = Timer::kNever;
  Timer timer_;
};

}  // namespace vm_platform
