#include "machine/devices/acpi_pm.hpp"

#include <utility>

namespace vm_platform {
namespace {

constexpr std::uint16_t kTimerStatus = 0x0001, kGlobalStatus = 0x0020, kPowerButton = 0x0100, kRtcStatus = 0x0400,
                        kWake = 0x8000;
constexpr std::uint16_t kStatusBits = kTimerStatus | kGlobalStatus | kPowerButton | kRtcStatus | kWake;
constexpr std::uint16_t kEnableBits = kTimerStatus | kGlobalStatus | kPowerButton | kRtcStatus;
constexpr std::uint16_t kSciEnable = 0x0001, kSleepEnable = 0x2000;
constexpr unsigned kOverflowBit = 31;  // TMR_STS is set each time the timer's highest bit changes (4.8.3.3)

}  // namespace

AcpiPm::AcpiPm(InterruptLine& sci, TimerService& timers, std::function<void()> power_off)
    : sci_(sci), power_off_(std::move(power_off)), timer_(timers, [this] { fired(); }) {
  reset();
}

void AcpiPm::reset() {
  const std::scoped_lock lock(mutex_);
  status_ = enable_ = 0;
  control_ = kSciEnable;
  start_ = monotonic_ns();
  checked_ticks_ = 0;
  timer_.cancel();
  sci_.set_level(false);
}

std::uint64_t AcpiPm::ticks(std::int64_t now) const noexcept {
  return static_cast<std::uint64_t>(static_cast<__uint128_t>(now - start_) * kTimerHz / 1'000'000'000);
}

void AcpiPm::catch_up(std::int64_t now) {
  const std::uint64_t passed = ticks(now);
  if (passed >> kOverflowBit != std::exchange(checked_ticks_, passed) >> kOverflowBit) status_ |= kTimerStatus;
}

void AcpiPm::update(std::int64_t now) {
  sci_.set_level((status_ & enable_) != 0);
  if ((enable_ & kTimerStatus) != 0 && (status_ & kTimerStatus) == 0) {
    const std::uint64_t next = ((checked_ticks_ >> kOverflowBit) + 1) << kOverflowBit;
    timer_.arm(now +
               static_cast<std::int64_t>(static_cast<__uint128_t>(next - checked_ticks_) * 1'000'000'000 / kTimerHz) +
               1000);
  } else {
    timer_.cancel();
  }
}

void AcpiPm::fired() {
  const std::scoped_lock lock(mutex_);
  const std::int64_t now = monotonic_ns();
  catch_up(now);
  update(now);
}

void AcpiPm::press_power_button() {
  const std::scoped_lock lock(mutex_);
  status_ |= kPowerButton;
  update(monotonic_ns());
}

std::uint8_t AcpiPm::read_byte(unsigned offset, std::int64_t now) {
  const unsigned shift = offset % 2 * 8;
  switch (offset / 2) {
    case 0: catch_up(now); return static_cast<std::uint8_t>(status_ >> shift);
    case 1: return static_cast<std::uint8_t>(enable_ >> shift);
    case 2: return static_cast<std::uint8_t>(control_ >> shift);
    case 4:
    case 5: return static_cast<std::uint8_t>(ticks(now) >> ((offset - 8) * 8));
    default: return 0;
  }
}

void AcpiPm::write_byte(unsigned offset, std::uint8_t value) {
  const unsigned shift = offset % 2 * 8;
  const auto bits = static_cast<std::uint16_t>(value << shift), lane = static_cast<std::uint16_t>(0xff << shift);
  switch (offset / 2) {
    case 0: status_ &= static_cast<std::uint16_t>(~(bits & kStatusBits)); break;  // written ones clear
    case 1: enable_ = static_cast<std::uint16_t>((enable_ & ~lane) | (bits & kEnableBits)); break;
    case 2: control_ = static_cast<std::uint16_t>((control_ & ~lane) | bits | kSciEnable); break;
    default: break;
  }
}

std::uint32_t AcpiPm::port_read(std::uint16_t port, unsigned size) {
  const std::scoped_lock lock(mutex_);
  const std::int64_t now = monotonic_ns();
  const unsigned offset = port - 0u - kBase;
  if (offset == kTimerBlock - kBase && size == 4) return static_cast<std::uint32_t>(ticks(now));
  std::uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    const bool mine = offset + i < kLength;
    value |= std::uint32_t{mine ? read_byte(offset + i, now) : std::uint8_t{0xff}} << (i * 8);
  }
  return value;
}

void AcpiPm::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
  bool off = false;
  {
    const std::scoped_lock lock(mutex_);
    const std::int64_t now = monotonic_ns();
    const unsigned offset = port - 0u - kBase;
    catch_up(now);
    for (unsigned i = 0; i < size && offset + i < kLength; ++i)
      write_byte(offset + i, static_cast<std::uint8_t>(value >> (i * 8)));
    if ((control_ & kSleepEnable) != 0) {  // write-only: it triggers and reads as zero
      control_ &= static_cast<std::uint16_t>(~kSleepEnable);
      off = (control_ >> 10 & 7) == kSleepTypeS5;
    }
    update(now);
  }
  if (off) power_off_();
}

}  // namespace vm_platform
