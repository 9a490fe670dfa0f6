// Linux bzImage by its 64-bit entry (Documentation/arch/x86/boot.rst in the kernel's source, protocol 2.12 or later).
#pragma once

#include "boot/load_plan.hpp"

namespace vm_platform::boot {

/// Whether the file carries the "HdrS" signature of a Linux setup header.
[[nodiscard]] bool is_linux(const ByteSource& kernel);
[[nodiscard]] Result<Boot> plan_linux(const BootInput& input);

}  // namespace vm_platform::boot
