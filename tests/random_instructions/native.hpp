// Runs a sequence on the host's own CPU, in this process.
#pragma once

#include "tests/random_instructions/generator.hpp"

namespace vm_platform::random_instructions {

/// Maps the code and data pages at their fixed addresses and catches the signals that sequences end with. One at a
/// time, in a program with one thread; terminates the program (with a message) if the addresses are taken.
class NativeCpu {
 public:
  NativeCpu();
  ~NativeCpu();
  NativeCpu(const NativeCpu&) = delete;
  NativeCpu& operator=(const NativeCpu&) = delete;

  /// Runs from sequence.initial until the first exception.
  Outcome run(const Sequence& sequence);
  /// The data pages after `run`.
  [[nodiscard]] const std::uint8_t* data() const;
};

}  // namespace vm_platform::random_instructions
