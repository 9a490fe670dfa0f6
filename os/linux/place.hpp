// One way into mmap for everything that needs an address: guards, alignment, hints, fixed addresses.
#pragma once

#include <string>
#include <vm_platform/memory.hpp>

namespace vm_platform {

struct PlaceRequest {
  const std::string& name;
  std::uint64_t size = 0;
  MemoryProtection protection = MemoryProtection::None;
  int flags = 0;
  int descriptor = -1;
  std::uint64_t offset = 0;
  std::uint64_t alignment = 0;
  std::uint64_t guard_before = 0;
  std::uint64_t guard_after = 0;
  void* hint = nullptr;
  void* fixed = nullptr;
};

struct Placement {
  std::byte* base;         ///< What to unmap,
  std::uint64_t reserved;  ///< and how much of it.
  std::byte* data;
};

Result<Placement> place(const PlaceRequest& request);

int to_prot(MemoryProtection protection) noexcept;

/// Whether a descriptor (-1 for none) was opened O_RDONLY, so that no mapping of it may be written.
bool opened_for_reading(int descriptor) noexcept;

}  // namespace vm_platform
