#include "machine/interrupt/pic.hpp"

#include <utility>

namespace vm_platform {
namespace {

constexpr unsigned kCascade = 2;
// Inputs that the edge / level registers cannot make level-triggered: timer, keyboard, cascade, RTC, FPU.
constexpr std::array<std::uint8_t, 2> kLevelAllowed{0xf8, 0xde};
constexpr std::uint16_t kLevelPorts = 0x4d0;

std::uint8_t bit(unsigned n) { return static_cast<std::uint8_t>(1u << n); }

}  // namespace

PicPair::PicPair(std::function<void()> output_raised) : output_raised_(std::move(output_raised)) { reset(); }

void PicPair::reset() {
  const std::scoped_lock lock(mutex_);
  for (Chip& chip : chips_) {
    const std::uint8_t wires = chip.wires;
    chip = Chip{};
    chip.wires = wires;
  }
  // As firmware leaves it: everything masked, and the ACPI interrupt (9) level-triggered.
  chips_[0].mask = chips_[1].mask = 0xff;
  chips_[0].vector_base = 0x08;
  chips_[1].vector_base = 0x70;
  chips_[1].level_triggered = 0x02;
  update();
}

unsigned PicPair::Chip::priority(std::uint8_t inputs) const noexcept {
  if (inputs == 0) return 8;
  unsigned place = 0;
  while ((inputs & bit((place + lowest_first) & 7)) == 0) ++place;
  return place;
}

int PicPair::Chip::pending(bool master) const noexcept {
  const unsigned wanted = priority(requested & static_cast<std::uint8_t>(~mask));
  if (wanted == 8) return -1;
  std::uint8_t blocking = in_service;
  if (special_mask) blocking &= static_cast<std::uint8_t>(~mask);
  // Special fully nested: the slave may interrupt itself with a higher one of its inputs.
  if (fully_nested && master) blocking &= static_cast<std::uint8_t>(~bit(kCascade));
  return wanted < priority(blocking) ? static_cast<int>((wanted + lowest_first) & 7) : -1;
}

void PicPair::Chip::set_wire(unsigned input, bool high) noexcept {
  const std::uint8_t mine = bit(input);
  if (high) {
    if ((level_triggered & mine) != 0 || (wires & mine) == 0) requested |= mine;
    wires |= mine;
  } else {
    if ((level_triggered & mine) != 0) requested &= static_cast<std::uint8_t>(~mine);
    wires &= static_cast<std::uint8_t>(~mine);
  }
}

void PicPair::Chip::take(unsigned input) noexcept {
  if (auto_eoi) {
    if (rotate_on_auto_eoi) lowest_first = (input + 1) & 7;
  } else {
    in_service |= bit(input);
  }
  if ((level_triggered & bit(input)) == 0) requested &= static_cast<std::uint8_t>(~bit(input));
}

void PicPair::set_level(unsigned irq, bool high) {
  if (irq >= 16 || irq == kCascade) return;
  const std::scoped_lock lock(mutex_);
  chips_[irq / 8].set_wire(irq % 8, high);
  update();
}

void PicPair::update() {
  if (chips_[1].pending(false) >= 0) {
    chips_[0].requested |= bit(kCascade);
  } else {
    chips_[0].requested &= static_cast<std::uint8_t>(~bit(kCascade));
  }
  const bool now = chips_[0].pending(true) >= 0;
  if (output_.exchange(now) != now && now) output_raised_();
}

std::optional<std::uint8_t> PicPair::acknowledge() {
  const std::scoped_lock lock(mutex_);
  const int input = chips_[0].pending(true);
  if (input < 0) return std::nullopt;
  chips_[0].take(static_cast<unsigned>(input));
  auto vector = static_cast<std::uint8_t>(chips_[0].vector_base + input);
  if (input == kCascade) {
    const int behind = chips_[1].pending(false);
    if (behind >= 0) chips_[1].take(static_cast<unsigned>(behind));
    vector = static_cast<std::uint8_t>(chips_[1].vector_base + (behind >= 0 ? behind : 7));
  }
  update();
  return vector;
}

void PicPair::Chip::end_of_interrupt(std::uint8_t command) noexcept {
  const unsigned operation = command >> 5, named = command & 7;
  switch (operation) {
    case 0:
    case 4: rotate_on_auto_eoi = operation == 4; break;
    case 1:
    case 5: {  // non-specific: the one with the highest priority
      const unsigned place = priority(in_service);
      if (place == 8) break;
      const unsigned input = (place + lowest_first) & 7;
      in_service &= static_cast<std::uint8_t>(~bit(input));
      if (operation == 5) lowest_first = (input + 1) & 7;
      break;
    }
    case 3:
    case 7:
      in_service &= static_cast<std::uint8_t>(~bit(named));
      if (operation == 7) lowest_first = (named + 1) & 7;
      break;
    case 6: lowest_first = (named + 1) & 7; break;
    default: break;
  }
}

void PicPair::Chip::command(std::uint8_t value) noexcept {
  if ((value & 0x10) != 0) {  // ICW1
    const Chip before = *this;
    *this = Chip{};
    wires = before.wires;
    level_triggered = before.level_triggered;
    vector_base = before.vector_base;
    requested = before.wires & level_triggered;
    initializing = 2;
    expects_icw4 = (value & 0x01) != 0;
    single = (value & 0x02) != 0;
  } else if ((value & 0x08) != 0) {  // OCW3
    if ((value & 0x04) != 0) poll = true;
    if ((value & 0x02) != 0) read_in_service = (value & 0x01) != 0;
    if ((value & 0x40) != 0) special_mask = (value & 0x20) != 0;
  } else {
    end_of_interrupt(value);
  }
}

void PicPair::Chip::data(std::uint8_t value) noexcept {
  switch (initializing) {
    case 0: mask = value; break;
    case 2:
      vector_base = value & 0xf8;
      initializing = single ? (expects_icw4 ? 4 : 0) : 3;
      break;
    case 3: initializing = expects_icw4 ? 4 : 0; break;
    default:
      fully_nested = (value & 0x10) != 0;
      auto_eoi = (value & 0x02) != 0;
      initializing = 0;
  }
}

std::uint8_t PicPair::read_byte(std::uint16_t port) {
  if (port == kLevelPorts || port == kLevelPorts + 1) return chips_[port & 1].level_triggered;
  Chip& chip = chips_[port >= 0xa0 ? 1 : 0];
  if (std::exchange(chip.poll, false)) {  // a poll is an acknowledge by reading
    const int input = chip.pending(&chip == chips_.data());
    if (input < 0) return 0;
    chip.take(static_cast<unsigned>(input));
    update();
    return static_cast<std::uint8_t>(0x80 | input);
  }
  if ((port & 1) != 0) return chip.mask;
  return chip.read_in_service ? chip.in_service : chip.requested;
}

void PicPair::write_byte(std::uint16_t port, std::uint8_t value) {
  if (port == kLevelPorts || port == kLevelPorts + 1) {
    Chip& chip = chips_[port & 1];
    chip.level_triggered = value & kLevelAllowed[port & 1];
    chip.requested |= chip.wires & chip.level_triggered;
  } else {
    Chip& chip = chips_[port >= 0xa0 ? 1 : 0];
    if ((port & 1) != 0) {
      chip.data(value);
    } else {
      chip.command(value);
    }
  }
  update();
}

std::uint32_t PicPair::port_read(std::uint16_t port, unsigned size) {
  const std::scoped_lock lock(mutex_);
  std::uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    const bool mine = (port & 1u) + i < 2;
    value |= std::uint32_t{mine ? read_byte(static_cast<std::uint16_t>(port + i)) : std::uint8_t{0xff}} << (i * 8);
  }
  return value;
}

void PicPair::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
  const std::scoped_lock lock(mutex_);
  for (unsigned i = 0; i < size && (port & 1u) + i < 2; ++i)
    write_byte(static_cast<std::uint16_t>(port + i), static_cast<std::uint8_t>(value >> (i * 8)));
}

}  // namespace vm_platform
