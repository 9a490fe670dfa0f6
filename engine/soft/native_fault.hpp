// Exceptions that the host CPU raises in copied instructions (division, vector floating point, alignment) become the
// guest's.
#pragma once

#include <span>
#include <vm_platform/signals.hpp>

#include "engine/soft/cpu.hpp"

namespace vm_platform::soft {

/// Hands exceptions of the host CPU inside `code` to the CPU whose NativeFaultScope the thread is in: the run of
/// generated code ends with ExitReason::NativeFault. Page faults are passed on: no guest raises one there.
Result<SignalHandler> handle_native_faults(std::span<const std::byte> code);

/// While one of these lives, this thread's generated code is `cpu`'s.
class NativeFaultScope {
 public:
  explicit NativeFaultScope(Cpu& cpu);
  ~NativeFaultScope();
  NativeFaultScope(const NativeFaultScope&) = delete;
  NativeFaultScope& operator=(const NativeFaultScope&) = delete;
};

}  // namespace vm_platform::soft
