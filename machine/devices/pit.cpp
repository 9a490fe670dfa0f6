#include "machine/devices/pit.hpp"

#include <algorithm>
#include <utility>

namespace vm_platform {
namespace {

constexpr std::uint16_t kPort = 0x40, kControl = 0x43, kSpeakerPort = 0x61;
// As for the local APIC: ticks that come faster than this are merged.
constexpr std::int64_t kShortestPeriodNs = 100'000;

std::uint64_t to_ticks(std::int64_t ns) {
  return ns <= 0 ? 0 : static_cast<std::uint64_t>(static_cast<__uint128_t>(ns) * Pit::kHz / 1'000'000'000);
}
/// The first nanosecond at which so many ticks have passed.
std::int64_t to_ns(std::uint64_t ticks) {
  return static_cast<std::int64_t>((static_cast<__uint128_t>(ticks) * 1'000'000'000 + Pit::kHz - 1) / Pit::kHz);
}
std::uint32_t from_bcd(std::uint32_t value) {
  return (value & 15) + 10 * (value >> 4 & 15) + 100 * (value >> 8 & 15) + 1000 * (value >> 12 & 15);
}
std::uint16_t to_bcd(std::uint32_t value) {
  return static_cast<std::uint16_t>(value % 10 | value / 10 % 10 << 4 | value / 100 % 10 << 8 |
                                    value / 1000 % 10 << 12);
}

}  // namespace

Pit::Pit(InterruptLine& interrupt, TimerService& timers) : interrupt_(interrupt), timer_(timers, [this] { fired(); }) {
  reset();
}

void Pit::reset() {
  const std::scoped_lock lock(mutex_);
  channels_ = {};
  channels_[2].gate = false;
  speaker_ = 0;
  due_ = Timer::kNever;
  timer_.cancel();
  interrupt_.set_level(false);
}

/// Whether the gate lets it count: in modes 1 and 5 the gate only triggers.
bool Pit::Channel::running() const noexcept { return loaded && (gate || mode == 1 || mode == 5); }

std::uint64_t Pit::Channel::ticks(std::int64_t now) const noexcept {
  return running() ? to_ticks(now - start) : frozen;
}

std::uint16_t Pit::Channel::value(std::int64_t now) const noexcept {
  const std::uint64_t passed = ticks(now);
  const std::uint32_t modulus = bcd ? 10000 : 0x10000;
  std::uint32_t left = 0;
  switch (mode) {
    case 2: left = count - static_cast<std::uint32_t>(passed % count); break;
    case 3: {  // counts down by two, twice per period; an odd count loses its lowest bit
      const std::uint32_t even = std::max(count & ~1u, 2u);
      left = even - static_cast<std::uint32_t>(2 * passed % even);
      break;
    }
    default:  // one-shot modes go on below zero, and around
      left = (count + modulus - static_cast<std::uint32_t>(passed % modulus)) % modulus;
  }
  left %= modulus;
  return bcd ? to_bcd(left) : static_cast<std::uint16_t>(left);
}

bool Pit::Channel::output(std::int64_t now) const noexcept {
  if (!loaded) return mode != 0;
  const std::uint64_t passed = ticks(now);
  switch (mode) {
    case 0: return passed >= count;
    case 1: return passed >= count;
    case 2: return !gate || passed % count != count - 1;
    case 3: return !gate || passed % count < (count + 1) / 2;
    default: return passed != count;
  }
}

void Pit::Channel::load(std::uint32_t written, std::int64_t now) noexcept {
  const std::uint32_t plain = bcd ? from_bcd(written) : written;
  count = plain != 0 ? plain : (bcd ? 10000 : 0x10000);
  // In modes 1 and 5 the count waits for the gate to rise; so far nothing has.
  start = now;
  frozen = 0;
  loaded = true;
  if (mode == 1 || mode == 5) start = now - to_ns(count) - 1;
}

void Pit::Channel::set_gate(bool high, std::int64_t now) noexcept {
  if (gate == high) return;
  if (mode == 0 || mode == 4) {  // the gate holds the count
    if (high) {
      start = now - to_ns(frozen);
    } else {
      frozen = ticks(now);
    }
  } else if (high) {  // the gate restarts it
    start = now;
    frozen = 0;
  } else {
    frozen = 0;
  }
  gate = high;
}

void Pit::Channel::latch_count(std::int64_t now) noexcept {
  if (count_latched) return;
  latch = value(now);
  count_latched = true;
}

void Pit::write_control(std::uint8_t value, std::int64_t now) {
  const unsigned selected = value >> 6;
  if (selected == 3) {  // read-back: the bits that are clear ask
    for (unsigned i = 0; i < 3; ++i) {
      Channel& channel = channels_[i];
      if ((value & 2u << i) == 0) continue;
      if ((value & 0x20) == 0) channel.latch_count(now);
      if ((value & 0x10) == 0 && !channel.status_latched) {
        channel.status_latched = true;
        channel.status = static_cast<std::uint8_t>((channel.output(now) ? 0x80 : 0) | (channel.loaded ? 0 : 0x40) |
                                                   channel.access << 4 | channel.mode << 1 | (channel.bcd ? 1 : 0));
      }
    }
    return;
  }
  Channel& channel = channels_[selected];
  const unsigned access = value >> 4 & 3;
  if (access == 0) return channel.latch_count(now);
  const bool gate = channel.gate;
  channel = Channel{};
  channel.gate = gate;
  channel.access = static_cast<std::uint8_t>(access);
  const unsigned mode = value >> 1 & 7;
  channel.mode = static_cast<std::uint8_t>(mode > 5 ? mode - 4 : mode);
  channel.bcd = (value & 1) != 0;
  if (selected == 0) {
    interrupt_.set_level(channel.mode != 0);
    schedule(now);
  }
}

std::uint8_t Pit::read_byte(std::uint16_t port, std::int64_t now) {
  if (port == kSpeakerPort) {
    // Bit 4 is the memory refresh: it toggles every 15 us.
    const bool refresh = (now / 15'000 & 1) != 0;
    return static_cast<std::uint8_t>((speaker_ & 3) | (refresh ? 0x10 : 0) | (channels_[2].output(now) ? 0x20 : 0));
  }
  if (port < kPort || port >= kControl) return 0xff;
  Channel& channel = channels_[port & 3u];
  if (std::exchange(channel.status_latched, false)) return channel.status;
  const std::uint16_t value = channel.count_latched ? channel.latch : channel.value(now);
  const bool high = channel.access == 2 || (channel.access == 3 && channel.next_read == Half::High);
  if (channel.access == 3) channel.next_read = high ? Half::Low : Half::High;
  if (channel.access != 3 || high) channel.count_latched = false;
  return static_cast<std::uint8_t>(high ? value >> 8 : value);
}

void Pit::write_byte(std::uint16_t port, std::uint8_t value, std::int64_t now) {
  if (port == kSpeakerPort) {
    speaker_ = value & 3;
    channels_[2].set_gate((value & 1) != 0, now);
    return;
  }
  if (port == kControl) return write_control(value, now);
  if (port < kPort || port > kControl) return;
  Channel& channel = channels_[port & 3u];
  if (channel.access == 3 && channel.next_write == Half::Low) {
    channel.low_written = value;
    channel.next_write = Half::High;
    if (channel.mode == 0) channel.loaded = false;  // the first byte stops it
    return;
  }
  std::uint32_t written = value;
  if (channel.access == 2) written = std::uint32_t{value} << 8;
  if (channel.access == 3) written = std::uint32_t{value} << 8 | channel.low_written;
  channel.next_write = Half::Low;
  channel.load(written, now);
  if (&channel == channels_.data()) {
    interrupt_.set_level(channel.output(now));
    schedule(now);
  }
}

/// The next time channel 0's output rises: that is the interrupt.
void Pit::schedule(std::int64_t now) {
  const Channel& channel = channels_[0];
  due_ = Timer::kNever;
  if (channel.running()) {
    const std::uint64_t passed = channel.ticks(now);
    if (channel.mode == 2 || channel.mode == 3) {
      std::uint64_t periods = passed / channel.count + 1;
      const std::int64_t period = to_ns(channel.count);
      if (period < kShortestPeriodNs) periods += static_cast<std::uint64_t>(kShortestPeriodNs / period);
      due_ = channel.start + to_ns(periods * channel.count);
    } else if (const std::uint64_t end = channel.count + (channel.mode == 4 || channel.mode == 5 ? 1 : 0);
               passed < end) {
      due_ = channel.start + to_ns(end);
    }
  }
  if (due_ == Timer::kNever) {
    timer_.cancel();
  } else {
    timer_.arm(due_);
  }
}

void Pit::fired() {
  const std::scoped_lock lock(mutex_);
  const std::int64_t now = monotonic_ns();
  if (now < due_) return;
  interrupt_.set_level(false);
  interrupt_.set_level(true);
  schedule(now);
}

std::uint32_t Pit::port_read(std::uint16_t port, unsigned size) {
  const std::scoped_lock lock(mutex_);
  const std::int64_t now = monotonic_ns();
  std::uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i)
    value |= std::uint32_t{read_byte(static_cast<std::uint16_t>(port + i), now)} << (i * 8);
  return value;
}

void Pit::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
  const std::scoped_lock lock(mutex_);
  const std::int64_t now = monotonic_ns();
  for (unsigned i = 0; i < size; ++i)
    write_byte(static_cast<std::uint16_t>(port + i), static_cast<std::uint8_t>(value >> (i * 8)), now);
}

}  // namespace vm_platform
