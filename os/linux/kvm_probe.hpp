// Finds out whether /dev/kvm runs guest code on the hardware, by running some.
#pragma once

#include <string>
#include <vm_platform/platform.hpp>

namespace vm_platform {

/// With `measure` runs some ten thousand 64-bit instructions; bounded by what an emulator needs for them, some 20 ms.
KvmState probe_kvm(const std::string& device, bool measure);

}  // namespace vm_platform
