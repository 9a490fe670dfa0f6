// Multiboot kernels (Multiboot Specification version 0.6.96).
#pragma once

#include "boot/load_plan.hpp"

namespace vm_platform::boot {

/// Whether a Multiboot header with a right checksum lies in the first 8 KiB.
[[nodiscard]] bool is_multiboot(const ByteSource& kernel);
[[nodiscard]] Result<Boot> plan_multiboot(const BootInput& input);

}  // namespace vm_platform::boot
