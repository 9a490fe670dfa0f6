#include "machine/devices/rtc_cmos.hpp"

#include <algorithm>
#include <ctime>

namespace vm_platform {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr std::int64_t kUpdateNs = 244'000;  // UIP rises this long before the registers change
constexpr std::int64_t kSecondsInDay = 86'400;
constexpr std::int64_t kYear0 = -62'167'219'200, kYear9999 = 253'402'300'799;  // in s from 1970: all that is shown

enum Register : unsigned {
  kSeconds,
  kSecondsAlarm,
  kMinutes,
  kMinutesAlarm,
  kHours,
  kHoursAlarm,
  kWeekday,
  kDay,
  kMonth,
  kYear,
  kA,
  kB,
  kC,
  kD
};
constexpr std::uint8_t kAUpdating = 0x80;
constexpr std::uint8_t kB24Hours = 0x02, kBBinary = 0x04, kBSquareWave = 0x08, kBUpdate = 0x10, kBAlarm = 0x20,
                       kBPeriodic = 0x40, kBSet = 0x80;
constexpr std::uint8_t kCUpdate = 0x10, kCAlarm = 0x20, kCPeriodic = 0x40, kCRequest = 0x80;
constexpr std::uint8_t kDontCare = 0xc0;

std::int64_t realtime_ns() {
  timespec time{};
  ::clock_gettime(CLOCK_REALTIME, &time);
  return std::int64_t{time.tv_sec} * kSecond + time.tv_nsec;
}

std::uint8_t encode(int value, std::uint8_t b) {
  return static_cast<std::uint8_t>((b & kBBinary) != 0 ? value : value / 10 << 4 | value % 10);
}
int decode(std::uint8_t value, std::uint8_t b) {
  return (b & kBBinary) != 0 ? value : (value >> 4) * 10 + (value & 15);
}
std::uint8_t encode_hour(int hour, std::uint8_t b) {
  if ((b & kB24Hours) != 0) return encode(hour, b);
  return static_cast<std::uint8_t>(encode(hour % 12 == 0 ? 12 : hour % 12, b) | (hour >= 12 ? 0x80 : 0));
}
int decode_hour(std::uint8_t value, std::uint8_t b) {
  if ((b & kB24Hours) != 0) return decode(value, b);
  return decode(value & 0x7f, b) % 12 + ((value & 0x80) != 0 ? 12 : 0);
}

}  // namespace

RtcCmos::RtcCmos(InterruptLine& interrupt, TimerService& timers, std::uint64_t low_memory, std::uint64_t high_memory)
    : interrupt_(interrupt), low_memory_(low_memory), high_memory_(high_memory), timer_(timers, [this] { fired(); }) {
  memory_[kA] = 0x26;  // 32,768 Hz crystal, 1024 Hz periodic
  memory_[kB] = kB24Hours;
  memory_[kD] = 0x80;  // the battery is good
  reset();
}

/// What RESET does to an MC146818 (its data sheet, "RESET"): interrupts and their flags are off; the clock, the date,
/// the alarm and the memory stay.
void RtcCmos::reset() {
  const std::scoped_lock lock(mutex_);
  memory_[kB] &= static_cast<std::uint8_t>(~(kBPeriodic | kBAlarm | kBUpdate | kBSquareWave));
  memory_[kC] = 0;
  // Memory sizes, where firmware puts them at each start: 640 KiB; above 1 MiB in KiB; above 16 MiB and 4 GiB in 64
  // KiB.
  const auto put = [this](unsigned at, std::uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i) memory_[at + i] = static_cast<std::uint8_t>(value >> (i * 8));
  };
  const std::uint64_t above_1m = std::min<std::uint64_t>((low_memory_ - kMiB) / kKiB, 0xffff);
  const std::uint64_t above_16m =
      low_memory_ > 16 * kMiB ? std::min<std::uint64_t>((low_memory_ - 16 * kMiB) / (64 * kKiB), 0xffff) : 0;
  put(0x15, 640, 2);
  put(0x17, above_1m, 2);
  put(0x30, above_1m, 2);
  put(0x34, above_16m, 2);
  put(0x5b, high_memory_ / (64 * kKiB), 3);
  index_ = upper_index_ = 0;
  checked_ns_ = guest_ns();
  timer_.cancel();
  interrupt_.set_level(false);
}

bool RtcCmos::stopped() const noexcept { return (memory_[kB] & kBSet) != 0; }

std::int64_t RtcCmos::guest_ns() const { return stopped() ? frozen_ns_ : realtime_ns() + offset_ns_; }

/// The second, from 1970, that the guest's calendar shows at `now`.
std::int64_t RtcCmos::calendar(std::int64_t now) const noexcept {
  return std::min(now / kSecond + calendar_, kYear9999);
}

/// Puts the calendar of `now` into its registers.
void RtcCmos::show(std::int64_t now) {
  const std::time_t second = calendar(now);
  std::tm parts{};
  ::gmtime_r(&second, &parts);
  const std::uint8_t b = memory_[kB];
  const int year = parts.tm_year + 1900;
  memory_[kSeconds] = encode(parts.tm_sec, b);
  memory_[kMinutes] = encode(parts.tm_min, b);
  memory_[kHours] = encode_hour(parts.tm_hour, b);
  memory_[kWeekday] = encode(parts.tm_wday + 1, b);
  memory_[kDay] = encode(parts.tm_mday, b);
  memory_[kMonth] = encode(parts.tm_mon + 1, b);
  memory_[kYear] = encode(year % 100, b);
  memory_[kCentury] = encode(year / 100, b);
}

/// Makes the calendar of `now` what its registers say. The day of the week follows from the date.
void RtcCmos::set_calendar(std::int64_t now) {
  const auto value = [this](unsigned index) { return decode(memory_[index], memory_[kB]); };
  std::tm parts{};
  parts.tm_sec = value(kSeconds);
  parts.tm_min = value(kMinutes);
  parts.tm_hour = decode_hour(memory_[kHours], memory_[kB]);
  parts.tm_mday = value(kDay);
  parts.tm_mon = value(kMonth) - 1;
  parts.tm_year = value(kCentury) * 100 + value(kYear) - 1900;
  calendar_ = std::clamp(std::int64_t{::timegm(&parts)}, kYear0, kYear9999) - now / kSecond;
}

std::int64_t RtcCmos::period_ns() const noexcept {
  unsigned rate = memory_[kA] & 0x0f;
  if (rate == 0 || (memory_[kA] >> 4 & 7) != 2) return 0;
  if (rate < 3) rate += 7;  // the two fastest settings of this crystal are 256 and 128 Hz
  return kSecond * (std::int64_t{1} << (rate - 1)) / 32768;
}

/// In s of guest time, the first second after `now` that the alarm registers name; -1 if there is none in a day.
std::int64_t RtcCmos::next_alarm(std::int64_t now) const {
  const std::uint8_t b = memory_[kB];
  const auto wanted = [&](unsigned index) -> int {
    const std::uint8_t value = memory_[index];
    if ((value & kDontCare) == kDontCare) return -1;
    return index == kHoursAlarm ? decode_hour(value, b) : decode(value, b);
  };
  const int hour = wanted(kHoursAlarm), minute = wanted(kMinutesAlarm), sec = wanted(kSecondsAlarm);
  if (hour > 23 || minute > 59 || sec > 59) return -1;
  const std::int64_t first = now / kSecond + 1, shown = calendar(first * kSecond);
  const std::int64_t second = (shown % kSecondsInDay + kSecondsInDay) % kSecondsInDay;
  const std::int64_t midnight = first - second;  // in guest time, where `second` is the calendar's, of its day
  for (std::int64_t h = second / 3600, n = 0; n <= 24; ++n, ++h) {
    if (hour >= 0 && h % 24 != hour) continue;
    for (int m = 0; m < 60; ++m) {
      if (minute >= 0 && m != minute) continue;
      const std::int64_t base = h * 3600 + std::int64_t{m} * 60;
      if (base + 59 < second) continue;
      if (sec >= 0) {
        if (base + sec >= second) return midnight + base + sec;
      } else {
        return midnight + std::max(base, second);
      }
    }
  }
  return -1;
}

/// Sets register C's flags for what has happened since the last look.
void RtcCmos::catch_up(std::int64_t now) {
  if (now <= checked_ns_) {  // the host's clock was set back
    checked_ns_ = now;
    return;
  }
  if (const std::int64_t period = period_ns(); period != 0 && now / period != checked_ns_ / period)
    memory_[kC] |= kCPeriodic;
  if (!stopped() && now / kSecond != checked_ns_ / kSecond) {
    memory_[kC] |= kCUpdate;
    const std::int64_t alarm = next_alarm(checked_ns_);
    if (alarm >= 0 && alarm <= now / kSecond) memory_[kC] |= kCAlarm;
  }
  checked_ns_ = now;
  update_interrupt();
}

void RtcCmos::update_interrupt() {
  const bool wanted = (memory_[kB] & memory_[kC] & (kBUpdate | kBAlarm | kBPeriodic)) != 0;
  memory_[kC] = static_cast<std::uint8_t>((memory_[kC] & ~kCRequest) | (wanted ? kCRequest : 0));
  interrupt_.set_level(wanted);
}

/// Wakes for the next event that is to interrupt and whose flag is not up yet; nothing else needs a timer.
void RtcCmos::schedule(std::int64_t now) {
  const auto quiet = [this](std::uint8_t which) { return (memory_[kB] & which) != 0 && (memory_[kC] & which) == 0; };
  std::int64_t next = Timer::kNever;
  if (const std::int64_t period = period_ns(); period != 0 && quiet(kBPeriodic)) next = (now / period + 1) * period;
  if (!stopped()) {
    if (quiet(kBUpdate)) next = std::min(next, (now / kSecond + 1) * kSecond);
    if (quiet(kBAlarm)) {
      // The host's clock may be set: look again each minute.
      const std::int64_t alarm = next_alarm(now);
      if (alarm >= 0) next = std::min({next, alarm * kSecond, now + 60 * kSecond});
    }
  }
  if (next == Timer::kNever) {
    timer_.cancel();
  } else {
    timer_.arm(monotonic_ns() + (next - now));
  }
}

void RtcCmos::fired() {
  const std::scoped_lock lock(mutex_);
  const std::int64_t now = guest_ns();
  catch_up(now);
  schedule(now);
}

std::uint8_t RtcCmos::read_byte(std::uint16_t port) {
  switch (port & 3) {
    case 0: return index_;
    case 2: return upper_index_;
    case 3: return memory_[upper_index_];
    default: break;
  }
  const unsigned index = index_ & 0x7f;
  const std::int64_t now = guest_ns();
  switch (index) {
    case kA: {
      const bool updating = !stopped() && now % kSecond >= kSecond - kUpdateNs;
      return static_cast<std::uint8_t>((memory_[kA] & 0x7f) | (updating ? kAUpdating : 0));
    }
    case kC: {
      catch_up(now);
      const std::uint8_t flags = memory_[kC];
      memory_[kC] = 0;
      update_interrupt();
      schedule(now);
      return flags;
    }
    case kSecondsAlarm:
    case kMinutesAlarm:
    case kHoursAlarm: return memory_[index];
    default: break;
  }
  if (!stopped()) show(now);
  return memory_[index];
}

void RtcCmos::write_byte(std::uint16_t port, std::uint8_t value) {
  switch (port & 3) {
    case 0: index_ = value; return;  // bit 7 masks NMIs on a PC; none comes that way
    case 2: upper_index_ = value | 0x80; return;
    case 3: memory_[upper_index_] = value; return;
    default: break;
  }
  const unsigned index = index_ & 0x7f;
  const std::int64_t now = guest_ns();
  catch_up(now);
  switch (index) {
    case kA: memory_[kA] = value & 0x7f; break;
    case kB: {
      const bool was_set = stopped(), is_set = (value & kBSet) != 0;
      if (!was_set && is_set) {
        frozen_ns_ = now;
        show(now);
        value &= static_cast<std::uint8_t>(~kBUpdate);  // SET clears UIE
      } else if (was_set && !is_set) {
        set_calendar(now);
        offset_ns_ = frozen_ns_ - realtime_ns();
        checked_ns_ = frozen_ns_;
      }
      memory_[kB] = value;
      update_interrupt();
      break;
    }
    case kC:
    case kD: return;
    case kSecondsAlarm:
    case kMinutesAlarm:
    case kHoursAlarm: memory_[index] = value; break;
    default:
      if ((index < kA || index == kCentury) && !stopped()) {
        show(now);
        memory_[index] = value;
        set_calendar(now);
      } else {
        memory_[index] = value;
      }
  }
  schedule(guest_ns());
}

std::uint32_t RtcCmos::port_read(std::uint16_t port, unsigned size) {
  const std::scoped_lock lock(mutex_);
  std::uint32_t value = 0;
  for (unsigned i = 0; i < size; ++i) {
    const bool mine = (port & 3u) + i < 4;
    value |= std::uint32_t{mine ? read_byte(static_cast<std::uint16_t>(port + i)) : std::uint8_t{0xff}} << (i * 8);
  }
  return value;
}

void RtcCmos::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
  const std::scoped_lock lock(mutex_);
  for (unsigned i = 0; i < size && (port & 3u) + i < 4; ++i)
    write_byte(static_cast<std::uint16_t>(port + i), static_cast<std::uint8_t>(value >> (i * 8)));
}

}  // namespace vm_platform
