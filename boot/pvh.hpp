// ELF kernels by Xen's PVH boot ABI (docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h in Xen's source).
#pragma once

#include "boot/load_plan.hpp"

namespace vm_platform::boot {

/// Whether the file is an ELF with the note XEN_ELFNOTE_PHYS32_ENTRY.
[[nodiscard]] bool is_pvh(const ByteSource& kernel);
[[nodiscard]] Result<Boot> plan_pvh(const BootInput& input);

}  // namespace vm_platform::boot
