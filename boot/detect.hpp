// Which loader an image is for, and, where there is none, what the file is instead.
#pragma once

#include "boot/load_plan.hpp"

namespace vm_platform::boot {

/// Plans the boot by `method`, or by the one the image is made for.
[[nodiscard]] Result<Boot> plan(BootMethod method, const BootInput& input);

}  // namespace vm_platform::boot
