#include "engine/soft/semantics/kvm_clock.hpp"

#include <bit>
#include <cstring>
#include <ctime>
#include <span>

#include "engine/soft/fault.hpp"

namespace vm_platform::soft {
namespace {

struct TimeInfo {  // pvclock_vcpu_time_info
  std::uint32_t version = 0, padding = 0;
  std::uint64_t tsc_timestamp = 0, system_time = 0;
  std::uint32_t tsc_to_system_mul = 0;
  std::int8_t tsc_shift = 0;
  std::uint8_t flags = 0;
  std::uint8_t padding2[2] = {};
};
static_assert(sizeof(TimeInfo) == 32);

struct WallClock {  // pvclock_wall_clock
  std::uint32_t version = 0, seconds = 0, nanoseconds = 0;
};
static_assert(sizeof(WallClock) == 12);

constexpr std::uint8_t kTscStable = 1;
constexpr std::uint64_t kNanoseconds = 1'000'000'000;

std::uint64_t to_nanoseconds(std::uint64_t ticks, TscScale scale) {
  const std::uint64_t shifted = scale.shift < 0 ? ticks >> -scale.shift : ticks << scale.shift;
  return static_cast<std::uint64_t>((static_cast<__uint128_t>(shifted) * scale.multiplier) >> 32);
}

bool put(Cpu& cpu, Gpa address, const auto& value) {
  return cpu.environment.memory->write(address, std::as_bytes(std::span(&value, 1)));
}

}  // namespace

TscScale tsc_scale(std::uint64_t frequency_hz) {
  // 10^9 / frequency = multiplier * 2^(shift - 32), with the multiplier in [2^31, 2^32)
  if (frequency_hz == 0) frequency_hz = kNanoseconds;
  int shift = 32;
  for (; shift > -32; --shift) {
    // multiplier = 10^9 * 2^(32 - shift) / frequency
    const __uint128_t scaled = static_cast<__uint128_t>(kNanoseconds) << (32 - shift);
    const __uint128_t multiplier = (scaled + frequency_hz / 2) / frequency_hz;
    if (multiplier >= std::uint64_t{1} << 31) {
      if (multiplier >> 32 != 0) return {0x80000000, static_cast<std::int8_t>(shift + 1)};
      return {static_cast<std::uint32_t>(multiplier), static_cast<std::int8_t>(shift)};
    }
  }
  return {0x80000000, static_cast<std::int8_t>(shift)};
}

void update_kvm_clock(Cpu& cpu) {
  if ((cpu.kvm_system_time & 1) == 0) return;
  const Gpa address(cpu.kvm_system_time & ~std::uint64_t{1});
  const TscScale scale = tsc_scale(cpu.environment.tsc.frequency_hz);
  // Time counts from the machine's TSC 0, the same on every CPU, so that the pages agree without being compared.
  TimeInfo info;
  if (!cpu.environment.memory->read(address, std::as_writable_bytes(std::span(&info, 1)))) return;
  const std::uint32_t version = info.version & ~1U;
  info = {};
  info.version = version + 1;
  info.tsc_timestamp = cpu.tsc_adjust;
  info.tsc_to_system_mul = scale.multiplier;
  info.tsc_shift = scale.shift;
  info.flags = kTscStable;
  if (!put(cpu, address, info)) return;
  info.version = version + 2;
  static_cast<void>(put(cpu, address, info.version));
}

void write_kvm_system_time(Cpu& cpu, std::uint64_t value) {
  const Gpa address(value & ~std::uint64_t{1});
  if ((value & 1) != 0 && cpu.environment.memory->host(address, sizeof(TimeInfo)) == nullptr) {
    raise(Vector::GeneralProtection, 0);
  }
  cpu.kvm_system_time = value;
  update_kvm_clock(cpu);
}

void write_kvm_wall_clock(Cpu& cpu, std::uint64_t value) {
  const Gpa address(value);
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const std::uint64_t since_start =
      to_nanoseconds(cpu.environment.tsc.now(), tsc_scale(cpu.environment.tsc.frequency_hz));
  const std::uint64_t wall =
      static_cast<std::uint64_t>(now.tv_sec) * kNanoseconds + static_cast<std::uint64_t>(now.tv_nsec) - since_start;
  WallClock clock;
  if (!cpu.environment.memory->read(address, std::as_writable_bytes(std::span(&clock, 1)))) {
    raise(Vector::GeneralProtection, 0);
  }
  clock.version = (clock.version & ~1U) + 2;
  clock.seconds = static_cast<std::uint32_t>(wall / kNanoseconds);
  clock.nanoseconds = static_cast<std::uint32_t>(wall % kNanoseconds);
  static_cast<void>(put(cpu, address, clock));
  cpu.kvm_wall_clock = value;
}

}  // namespace vm_platform::soft
