#include "machine/devices/serial.hpp"

#include <algorithm>
#include <utility>

namespace vm_platform {
namespace {

constexpr std::int64_t kFlushDelayNs = 2'000'000;
constexpr std::size_t kFlushBytes = 256;

// PC16550D, table II: registers by offset.
enum Register : unsigned {
  kData,
  kInterruptEnable,
  kFifoControl,
  kLineControl,
  kModemControl,
  kLineStatus,
  kModemStatus
};
constexpr unsigned kInterruptIdentification = kFifoControl;  // when read

constexpr std::uint8_t kIerReceived = 1, kIerTransmit = 2, kIerLineStatus = 4, kIerModemStatus = 8;
constexpr std::uint8_t kIirNone = 0x01, kIirModemStatus = 0x00, kIirTransmit = 0x02, kIirReceived = 0x04,
                       kIirLineStatus = 0x06, kIirTimeout = 0x0c, kIirFifoEnabled = 0xc0;
constexpr std::uint8_t kFcrEnable = 1, kFcrClearReceive = 2, kFcrTriggerShift = 6;
constexpr std::uint8_t kLcrDivisor = 0x80;
constexpr std::uint8_t kMcrDtr = 1, kMcrRts = 2, kMcrOut1 = 4, kMcrOut2 = 8, kMcrLoop = 16;
constexpr std::uint8_t kLsrDataReady = 1, kLsrOverrun = 2, kLsrTransmitEmpty = 0x60;
constexpr std::uint8_t kMsrCts = 0x10, kMsrDsr = 0x20, kMsrRing = 0x40, kMsrCarrier = 0x80;
constexpr std::uint8_t kMsrRingDelta = 0x04;

}  // namespace

SerialPort::SerialPort(InterruptLine& interrupt, TimerService& timers)
    : interrupt_(interrupt), flush_timer_(timers, [this] { flush_unless_that_blocks(); }) {}

void SerialPort::set_output(Output output, HasRoom has_room) {
  const std::scoped_lock lock(output_mutex_);
  output_ = std::move(output);
  has_room_ = std::move(has_room);
}

void SerialPort::set_input_ready(std::function<void()> ready) {
  const std::scoped_lock lock(mutex_);
  input_ready_ = std::move(ready);
}

std::size_t SerialPort::receive(std::span<const std::byte> bytes) {
  const std::scoped_lock lock(mutex_);
  const std::size_t room = holds_off_input() ? 0 : receive_room();
  const std::size_t taken = std::min(room, bytes.size());
  for (const std::byte byte : bytes.first(taken)) push_received(std::to_integer<std::uint8_t>(byte));
  if (taken < bytes.size()) input_wanted_ = true;
  update_interrupt();
  return taken;
}

bool SerialPort::holds_off_input() const noexcept {
  // In loopback the input pin is disconnected (PC16550D, 8.6.6). A driver that has raised RTS and lowers it again asks
  // the other end to wait (hardware flow control); one that never raised it does not use the line at all.
  return (modem_control_ & kMcrLoop) != 0 || (rts_used_ && (modem_control_ & kMcrRts) == 0);
}

std::size_t SerialPort::receive_room() const noexcept {
  const std::size_t capacity = (fifo_control_ & kFcrEnable) != 0 ? receive_fifo_.size() : 1;
  return capacity > receive_count_ ? capacity - receive_count_ : 0;
}

void SerialPort::push_received(std::uint8_t byte) {
  if (receive_room() == 0) {
    overrun_ = true;
    return;
  }
  receive_fifo_[(receive_first_ + receive_count_) % receive_fifo_.size()] = byte;
  ++receive_count_;
}

void SerialPort::flush() {
  const std::scoped_lock output_lock(output_mutex_);
  hand_on();
}

void SerialPort::flush_unless_that_blocks() {
  // All timers of the machine share this thread: a slow reader of the console must not stop them.
  const std::unique_lock output_lock(output_mutex_, std::try_to_lock);
  if (output_lock.owns_lock() && (!has_room_ || has_room_())) {
    hand_on();
    return;
  }
  const std::scoped_lock lock(mutex_);
  if (!pending_output_.empty()) flush_timer_.arm(monotonic_ns() + kFlushDelayNs);
}

void SerialPort::hand_on() {
  {
    const std::scoped_lock lock(mutex_);
    flush_wanted_ = false;
    flush_timer_.cancel();
    flushing_.clear();
    std::swap(flushing_, pending_output_);
  }
  if (!flushing_.empty() && output_) output_(flushing_);
}

void SerialPort::reset() {
  flush();
  const std::scoped_lock lock(mutex_);
  receive_first_ = receive_count_ = 0;
  rts_used_ = false;
  interrupt_enable_ = fifo_control_ = line_control_ = modem_control_ = scratch_ = modem_delta_ = 0;
  divisor_ = 1;
  overrun_ = transmit_interrupt_ = false;
  update_interrupt();
}

std::uint32_t SerialPort::port_read(std::uint16_t port, unsigned size) {
  std::function<void()> ready;
  std::uint32_t value = 0;
  {
    const std::scoped_lock lock(mutex_);
    // A wide access to 8-bit ports is as many byte accesses.
    for (unsigned i = 0; i < size; ++i) {
      const unsigned index = (port & 7u) + i;
      value |= std::uint32_t{index < 8 ? read_register(index) : std::uint8_t{0xff}} << (i * 8);
    }
    if (std::exchange(call_input_ready_, false)) ready = input_ready_;
  }
  if (ready) ready();
  return value;
}

void SerialPort::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
  std::function<void()> ready;
  bool flush_now = false;
  {
    const std::scoped_lock lock(mutex_);
    for (unsigned i = 0; i < size && (port & 7u) + i < 8; ++i)
      write_register((port & 7u) + i, static_cast<std::uint8_t>(value >> (i * 8)));
    if (std::exchange(call_input_ready_, false)) ready = input_ready_;
    flush_now = flush_wanted_;
  }
  if (ready) ready();
  if (flush_now) flush();
}

std::uint8_t SerialPort::read_register(unsigned index) {
  switch (index) {
    case kData: {
      if ((line_control_ & kLcrDivisor) != 0) return static_cast<std::uint8_t>(divisor_);
      if (receive_count_ == 0) return 0;
      const std::uint8_t byte = receive_fifo_[receive_first_];
      receive_first_ = (receive_first_ + 1) % receive_fifo_.size();
      --receive_count_;
      if (receive_count_ == 0 && std::exchange(input_wanted_, false)) call_input_ready_ = true;
      update_interrupt();
      return byte;
    }
    case kInterruptEnable:
      return (line_control_ & kLcrDivisor) != 0 ? static_cast<std::uint8_t>(divisor_ >> 8) : interrupt_enable_;
    case kInterruptIdentification: {
      const std::uint8_t pending = pending_interrupt();
      if (pending == kIirTransmit) {  // reading it as the source resets it (table IV)
        transmit_interrupt_ = false;
        update_interrupt();
      }
      return pending | ((fifo_control_ & kFcrEnable) != 0 ? kIirFifoEnabled : std::uint8_t{0});
    }
    case kLineControl: return line_control_;
    case kModemControl: return modem_control_;
    case kLineStatus: {
      const auto status = static_cast<std::uint8_t>(kLsrTransmitEmpty | (receive_count_ != 0 ? kLsrDataReady : 0) |
                                                    (overrun_ ? kLsrOverrun : 0));
      if (std::exchange(overrun_, false)) update_interrupt();
      return status;
    }
    case kModemStatus: {
      const std::uint8_t status = modem_status() | modem_delta_;
      if (std::exchange(modem_delta_, std::uint8_t{0}) != 0) update_interrupt();
      return status;
    }
    default: return scratch_;
  }
}

void SerialPort::write_register(unsigned index, std::uint8_t value) {
  switch (index) {
    case kData:
      if ((line_control_ & kLcrDivisor) != 0) {
        divisor_ = static_cast<std::uint16_t>((divisor_ & 0xff00) | value);
      } else {
        transmit(value);
      }
      break;
    case kInterruptEnable:
      if ((line_control_ & kLcrDivisor) != 0) {
        divisor_ = static_cast<std::uint16_t>((divisor_ & 0xff) | value << 8);
        break;
      }
      // Enabling the transmitter's interrupt while the transmitter is empty, and here it always is, raises it.
      if ((value & kIerTransmit) == 0) {
        transmit_interrupt_ = false;
      } else if ((interrupt_enable_ & kIerTransmit) == 0) {
        transmit_interrupt_ = true;
      }
      interrupt_enable_ = value & 0x0f;
      update_interrupt();
      break;
    case kFifoControl:
      if ((value & kFcrClearReceive) != 0 || ((value ^ fifo_control_) & kFcrEnable) != 0) {
        receive_first_ = receive_count_ = 0;
        if (std::exchange(input_wanted_, false)) call_input_ready_ = true;
      }
      fifo_control_ = (value & kFcrEnable) != 0 ? value & 0xc9 : 0;
      update_interrupt();
      break;
    case kLineControl: line_control_ = value; break;
    case kModemControl: {
      const std::uint8_t before = modem_status();
      const bool held_off = holds_off_input();
      modem_control_ = value & 0x1f;
      rts_used_ = rts_used_ || (value & (kMcrRts | kMcrLoop)) == kMcrRts;
      modem_lines_changed(before);
      if (held_off && !holds_off_input() && std::exchange(input_wanted_, false)) call_input_ready_ = true;
      update_interrupt();
      break;
    }
    case kLineStatus:
    case kModemStatus: break;  // read-only
    default: scratch_ = value;
  }
}

void SerialPort::transmit(std::uint8_t byte) {
  if ((modem_control_ & kMcrLoop) != 0) {
    push_received(byte);
  } else {
    if (pending_output_.empty()) flush_timer_.arm(monotonic_ns() + kFlushDelayNs);
    pending_output_.push_back(std::byte{byte});
    if (byte == '\n' || pending_output_.size() >= kFlushBytes) flush_wanted_ = true;
  }
  // The holding register was full for an instant: the request falls and rises again, which is an edge on the wire.
  transmit_interrupt_ = false;
  update_interrupt();
  transmit_interrupt_ = true;
  update_interrupt();
}

std::uint8_t SerialPort::modem_status() const noexcept {
  if ((modem_control_ & kMcrLoop) == 0) return kMsrCarrier | kMsrDsr | kMsrCts;  // somebody is listening
  std::uint8_t status = 0;
  if ((modem_control_ & kMcrRts) != 0) status |= kMsrCts;
  if ((modem_control_ & kMcrDtr) != 0) status |= kMsrDsr;
  if ((modem_control_ & kMcrOut1) != 0) status |= kMsrRing;
  if ((modem_control_ & kMcrOut2) != 0) status |= kMsrCarrier;
  return status;
}

void SerialPort::modem_lines_changed(std::uint8_t before) {
  const std::uint8_t now = modem_status();
  auto changed = static_cast<std::uint8_t>((before ^ now) >> 4);
  // Ring is reported when it ends (TERI), the others when they change.
  if ((before & kMsrRing) == 0 || (now & kMsrRing) != 0) changed &= static_cast<std::uint8_t>(~kMsrRingDelta);
  modem_delta_ |= changed;
}

std::uint8_t SerialPort::pending_interrupt() const noexcept {
  static constexpr std::array<std::uint8_t, 4> kTriggers{1, 4, 8, 14};
  if ((interrupt_enable_ & kIerLineStatus) != 0 && overrun_) return kIirLineStatus;
  if ((interrupt_enable_ & kIerReceived) != 0 && receive_count_ != 0) {
    const bool fifo = (fifo_control_ & kFcrEnable) != 0;
    // Below the trigger level the character timeout reports what is there; it passes at once.
    return !fifo || receive_count_ >= kTriggers[fifo_control_ >> kFcrTriggerShift] ? kIirReceived : kIirTimeout;
  }
  if ((interrupt_enable_ & kIerTransmit) != 0 && transmit_interrupt_) return kIirTransmit;
  if ((interrupt_enable_ & kIerModemStatus) != 0 && modem_delta_ != 0) return kIirModemStatus;
  return kIirNone;
}

void SerialPort::update_interrupt() {
  // On a PC, OUT2 is the gate between the chip's request and the bus; loopback turns its pin off.
  const bool gate = (modem_control_ & (kMcrOut2 | kMcrLoop)) == kMcrOut2;
  const bool level = gate && pending_interrupt() != kIirNone;
  if (level == std::exchange(level_, level)) return;
  interrupt_.set_level(level);
}

}  // namespace vm_platform
