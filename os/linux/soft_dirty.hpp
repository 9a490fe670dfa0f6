// A bit in every page-table entry that a write sets (Documentation/admin-guide/mm/soft-dirty.rst).
#pragma once

#include <cstdint>
#include <vm_platform/core.hpp>

#include "os/linux/descriptor.hpp"

namespace vm_platform {

/// Of this process: where the bits are read, and where they are cleared.
struct SoftDirtyFiles {
  Descriptor pagemap, clear_refs;

  /// `Unsupported` where the kernel keeps no such bits. Leaves them as they are: they can only be cleared for the whole
  /// process at once.
  static Result<SoftDirtyFiles> open();
};

inline constexpr std::uint64_t kSoftDirty = 1ULL << 55;  // of an entry of /proc/PID/pagemap

}  // namespace vm_platform
