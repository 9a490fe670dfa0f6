// The paravirtual clock that Linux knows from KVM (its Documentation/virt/kvm/x86/msr.rst): a page that says how the
// TSC converts to nanoseconds.
#pragma once

#include <cstdint>

#include "engine/soft/cpu.hpp"

namespace vm_platform::soft {

/// ns = ((ticks shifted left by `shift`, or right by -shift) * multiplier) >> 32
struct TscScale {
  std::uint32_t multiplier;
  std::int8_t shift;
};
/// Rounded to the nearest multiplier, which has its top bit set.
TscScale tsc_scale(std::uint64_t frequency_hz);

/// The page's address with the enable bit, as written to the MSR. Raises #GP(0) when it is not RAM.
void write_kvm_system_time(Cpu& cpu, std::uint64_t value);
void write_kvm_wall_clock(Cpu& cpu, std::uint64_t value);
/// After the CPU's counter was moved.
void update_kvm_clock(Cpu& cpu);

}  // namespace vm_platform::soft
