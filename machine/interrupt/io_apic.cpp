#include "machine/interrupt/io_apic.hpp"

namespace vm_platform {
namespace {

// 82093AA, 3.2.4: the redirection table.
constexpr std::uint64_t kLogical = 1 << 11, kDeliveryStatus = 1 << 12, kRemoteIrr = 1 << 14, kLevel = 1 << 15,
                        kMasked = 1 << 16;
constexpr std::uint64_t kReadOnly = kDeliveryStatus | kRemoteIrr;
// Bits 55-49 extend the destination, see ApicBus::send_msi.
constexpr std::uint64_t kWritable = 0xfffe00000001afff;
constexpr std::uint32_t kVersion = (IoApic::kPins - 1) << 16 | 0x20;

}  // namespace

void IoApic::reset() {
  const std::scoped_lock lock(mutex_);
  redirection_.fill(kMasked);
  select_ = id_ = 0;
}

void IoApic::set_level(unsigned pin, bool high) {
  if (pin >= kPins) return;
  const std::scoped_lock lock(mutex_);
  const std::uint32_t mine = 1u << pin;
  const bool before = (wires_ & mine) != 0;
  wires_ = high ? wires_ | mine : wires_ & ~mine;
  if (!high) return;
  const bool level = (redirection_[pin] & kLevel) != 0;
  if (level || !before) serve(pin);
}

/// Sends the pin's message, for a rising edge or for a level that is up. An edge on a masked pin is lost.
void IoApic::serve(unsigned pin) {
  std::uint64_t& entry = redirection_[pin];
  if ((entry & kMasked) != 0) return;
  const bool level = (entry & kLevel) != 0;
  if (level && (entry & kRemoteIrr) != 0) return;
  ApicMessage message;
  message.destination = static_cast<std::uint32_t>((entry >> 56 & 0xff) | (entry >> 49 & 0x7f) << 8);
  message.logical = (entry & kLogical) != 0;
  message.mode = static_cast<DeliveryMode>(entry >> 8 & 7);
  message.vector = static_cast<std::uint8_t>(entry);
  message.level_triggered = level;
  const bool taken = bus_.deliver(message);
  const bool acknowledged = message.mode == DeliveryMode::Fixed || message.mode == DeliveryMode::LowestPriority;
  if (level && taken && acknowledged) entry |= kRemoteIrr;
}

void IoApic::end_of_interrupt(std::uint8_t vector) {
  const std::scoped_lock lock(mutex_);
  for (unsigned pin = 0; pin < kPins; ++pin) {
    std::uint64_t& entry = redirection_[pin];
    if ((entry & 0xff) != vector || (entry & kRemoteIrr) == 0) continue;
    entry &= ~kRemoteIrr;
    if ((entry & kLevel) != 0 && (wires_ >> pin & 1) != 0) serve(pin);
  }
}

std::uint32_t IoApic::read_register() const noexcept {
  switch (select_) {
    case 0x00:
    case 0x02: return std::uint32_t{id_} << 24;
    case 0x01: return kVersion;
    default: break;
  }
  if (select_ < 0x10 || select_ >= 0x10 + 2 * kPins) return 0xffffffff;
  const std::uint64_t entry = redirection_[(select_ - 0x10u) / 2];
  return static_cast<std::uint32_t>((select_ & 1) != 0 ? entry >> 32 : entry);
}

void IoApic::write_register(std::uint32_t value) {
  if (select_ == 0x00) id_ = static_cast<std::uint8_t>(value >> 24);
  if (select_ < 0x10 || select_ >= 0x10 + 2 * kPins) return;
  const unsigned pin = (select_ - 0x10u) / 2;
  std::uint64_t& entry = redirection_[pin];
  const std::uint64_t written =
      (select_ & 1) != 0 ? (entry & 0xffffffff) | std::uint64_t{value} << 32 : (entry >> 32 << 32) | value;
  entry = (written & kWritable) | (entry & kReadOnly);
  if ((entry & kLevel) == 0) entry &= ~kRemoteIrr;
  if ((entry & kLevel) != 0 && (wires_ >> pin & 1) != 0) serve(pin);
}

std::uint64_t IoApic::mmio_read(std::uint64_t offset, unsigned, unsigned) {
  const std::scoped_lock lock(mutex_);
  switch (offset & 0xff) {
    case 0x00: return select_;
    case 0x10: return read_register();
    default: return 0;
  }
}

void IoApic::mmio_write(std::uint64_t offset, unsigned, std::uint64_t value, unsigned) {
  if ((offset & 0xff) == 0x40) return end_of_interrupt(static_cast<std::uint8_t>(value));
  const std::scoped_lock lock(mutex_);
  switch (offset & 0xff) {
    case 0x00: select_ = static_cast<std::uint8_t>(value); break;
    case 0x10: write_register(static_cast<std::uint32_t>(value)); break;
    default: break;
  }
}

}  // namespace vm_platform
