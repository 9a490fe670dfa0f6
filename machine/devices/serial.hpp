// A 16550A serial port: what a console and a status channel of a PC are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "guest/bus.hpp"
#include "guest/interrupt.hpp"
#include "machine/clock/timer_service.hpp"

namespace vm_platform {

/// National Semiconductor PC16550D: 16-byte FIFOs, interrupts, modem lines, loopback. What the guest sends leaves at
/// once, whatever the baud rate; it reaches `Output` in lines, or after a millisecond, or when `flush` is called.
/// Thread-safe.
class SerialPort final : public PortDevice {
 public:
  /// Called on vCPU threads and on the machine's timer thread, one call at a time; must not call back into the port,
  /// except `receive`. On a vCPU's thread it may block, and that CPU waits; on the timer thread it must not.
  using Output = std::function<void(std::span<const std::byte>)>;
  /// Whether the output would take 256 bytes now without blocking. Asked on the timer thread, between calls of the
  /// output; must not block and must not call back into the port.
  using HasRoom = std::function<bool()>;

  SerialPort(InterruptLine& interrupt, TimerService& timers);

  /// Null `output`: it is dropped. Null `has_room`: the output never blocks. Waits for a call of the old output.
  void set_output(Output output, HasRoom has_room = {});
  /// Bytes from outside. Returns how many were taken; the rest does not fit: offer it again when `set_input_ready`'s
  /// function is called.
  std::size_t receive(std::span<const std::byte> bytes);
  /// `ready` is called on a vCPU thread, without a lock held, once the guest has made room after a `receive` that took
  /// less than it was offered.
  void set_input_ready(std::function<void()> ready);
  /// Hands what is buffered to the output now; waits for another such call.
  void flush();
  void reset();

  std::uint32_t port_read(std::uint16_t port, unsigned size) override;
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;

 private:
  std::uint8_t read_register(unsigned index);
  void write_register(unsigned index, std::uint8_t value);
  void transmit(std::uint8_t byte);
  void flush_unless_that_blocks();
  void hand_on();
  void push_received(std::uint8_t byte);
  [[nodiscard]] bool holds_off_input() const noexcept;
  [[nodiscard]] std::size_t receive_room() const noexcept;
  [[nodiscard]] std::uint8_t pending_interrupt() const noexcept;
  [[nodiscard]] std::uint8_t modem_status() const noexcept;
  void modem_lines_changed(std::uint8_t before);
  void update_interrupt();

  InterruptLine& interrupt_;
  std::mutex mutex_;
  std::array<std::uint8_t, 16> receive_fifo_{};
  std::size_t receive_first_ = 0, receive_count_ = 0;
  std::uint8_t interrupt_enable_ = 0, fifo_control_ = 0, line_control_ = 0, modem_control_ = 0, scratch_ = 0;
  std::uint8_t modem_delta_ = 0;
  std::uint16_t divisor_ = 1;
  bool rts_used_ = false, overrun_ = false, transmit_interrupt_ = false, input_wanted_ = false,
       call_input_ready_ = false;
  bool level_ = false;
  std::function<void()> input_ready_;

  std::mutex output_mutex_;  // taken before mutex_ or without it, never inside
  Output output_;
  HasRoom has_room_;
  std::vector<std::byte> flushing_;
  std::vector<std::byte> pending_output_;  // under mutex_
  bool flush_wanted_ = false;
  Timer flush_timer_;
};

}  // namespace vm_platform
