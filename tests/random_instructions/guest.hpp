// Runs a sequence as user-mode code of a guest under an engine.
#pragma once

#include <memory>
#include <vm_platform/platform.hpp>

#include "tests/random_instructions/generator.hpp"

namespace vm_platform::random_instructions {

/// A long-mode guest with one CPU: descriptor tables, page tables that show the code and data pages where the native
/// side has them, and a handler for every exception that reports and waits.
class GuestCpu {
 public:
  explicit GuestCpu(HostCpuUse host_cpu);
  ~GuestCpu();

  /// Runs from sequence.initial until the first exception. Throws std::runtime_error when the engine gives up.
  Outcome run(const Sequence& sequence);
  /// The data pages after `run`: page `index` of kDataPages, not for holes.
  [[nodiscard]] const std::uint8_t* data_page(std::size_t index) const;

 private:
  struct Machine;
  std::unique_ptr<Machine> machine_;
};

}  // namespace vm_platform::random_instructions
