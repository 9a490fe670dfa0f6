// Exceptions that the host CPU raises in copied instructions (division, vector floating point, alignment) become the
// guest's.
#pragma once

#include "engine/soft/code_cache.hpp"
#include "engine/soft/cpu.hpp"

namespace vm_platform::soft {

/// While one of these lives, faults of this thread inside the code buffer end the run of generated code with
/// ExitReason::NativeFault. Faults anywhere else go to whatever handler was there before.
class NativeFaultScope {
 public:
  NativeFaultScope(Cpu& cpu, const CodeCache& code);
  ~NativeFaultScope();
  NativeFaultScope(const NativeFaultScope&) = delete;
  NativeFaultScope& operator=(const NativeFaultScope&) = delete;
};

}  // namespace vm_platform::soft
