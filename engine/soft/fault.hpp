// What goes wrong in the guest. Thrown and caught inside the engine's C++ only, never across generated code.
#pragma once

#include <cstdint>
#include <optional>

namespace vm_platform::soft {

/// Exception vectors (Intel SDM vol. 3, table 6-1).
enum class Vector : std::uint8_t {
  DivideError = 0,
  Debug = 1,
  Nmi = 2,
  Breakpoint = 3,
  Overflow = 4,
  BoundRange = 5,
  InvalidOpcode = 6,
  DeviceNotAvailable = 7,
  DoubleFault = 8,
  InvalidTss = 10,
  SegmentNotPresent = 11,
  StackFault = 12,
  GeneralProtection = 13,
  PageFault = 14,
  X87Error = 16,
  AlignmentCheck = 17,
  MachineCheck = 18,
  SimdError = 19,
};

/// An exception of the guest. The state is as before the instruction (faults) or after it (traps: rip already moved).
struct GuestFault {
  Vector vector;
  std::optional<std::uint32_t> error_code = {};
  std::uint64_t address = 0;   ///< CR2, for a page fault.
  std::uint64_t dr6_bits = 0;  ///< For a debug exception: which bits DR6 gets.
};

/// A fault while a double fault was delivered. The CPU shuts down.
struct TripleFault {};

/// Throws #GP(code), #UD …
[[noreturn]] inline void raise(Vector vector) { throw GuestFault{vector}; }
[[noreturn]] inline void raise(Vector vector, std::uint32_t error_code) { throw GuestFault{vector, error_code}; }

}  // namespace vm_platform::soft
