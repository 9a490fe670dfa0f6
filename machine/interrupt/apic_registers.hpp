// Bits of the local APIC's registers (Intel SDM vol. 3, 11.4 to 11.12).
#pragma once

#include <cstdint>

namespace vm_platform::apic {

inline constexpr std::uint64_t kBaseBootstrap = 0x100, kBaseX2 = 0x400, kBaseEnable = 0x800;
inline constexpr std::uint32_t kLvtMasked = 0x10000, kLvtStatus = 0x1000;
inline constexpr std::uint32_t kErrorSentIllegalVector = 0x20, kErrorReceivedIllegalVector = 0x40,
                               kErrorIllegalRegister = 0x80;
inline constexpr std::uint32_t kIcrLogical = 0x800, kIcrAssert = 0x4000, kIcrLevel = 0x8000, kIcrStatus = 0x1000;
inline constexpr std::uint32_t kSpuriousEnable = 0x100;

/// Register numbers: the offset in the xAPIC page / 16, the MSR in x2APIC mode - 800h.
enum Register : unsigned {
  kId = 0x02,
  kVersion = 0x03,
  kTaskPriority = 0x08,
  kArbitrationPriority = 0x09,
  kProcessorPriority = 0x0a,
  kEoi = 0x0b,
  kRemoteRead = 0x0c,
  kLogicalDestination = 0x0d,
  kDestinationFormat = 0x0e,
  kSpurious = 0x0f,
  kInService = 0x10,
  kTriggerMode = 0x18,
  kInterruptRequest = 0x20,
  kErrorStatus = 0x28,
  kCommand = 0x30,
  kCommandHigh = 0x31,
  kLvtFirst = 0x32,
  kLvtLast = 0x37,
  kInitialCount = 0x38,
  kCurrentCount = 0x39,
  kDivide = 0x3e,
  kSelfIpi = 0x3f,
};

/// Version 14h (integrated), six LVT entries.
inline constexpr std::uint32_t kVersionValue = 0x00050014;

inline constexpr std::uint32_t kTimerOneShot = 0, kTimerPeriodic = 1, kTimerDeadline = 2;

}  // namespace vm_platform::apic
