// One way to notice writes.
#pragma once

#include <vm_platform/dirty_tracking.hpp>

namespace vm_platform {

class DirtyTracker::Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual DirtyMethod method() const noexcept = 0;
  /// `pages` is cleared and has the right size.
  virtual Result<void> collect(DirtyPages& pages) = 0;
  std::uint64_t size = 0;  // bytes
  std::uint64_t page_size = 0;
};

/// What this host knows, best first.
std::span<const DirtyMethod> host_dirty_methods() noexcept;
/// Begins to watch with one of them.
Result<std::unique_ptr<DirtyTracker::Backend>> start_dirty_backend(DirtyMethod method, MappedMemory& memory);
/// The one that works anywhere.
Result<std::unique_ptr<DirtyTracker::Backend>> start_protect_fault(MappedMemory& memory);

/// Sets the bits of `count` pages from `first` on.
inline void mark(DirtyPages& pages, std::uint64_t first, std::uint64_t count) {
  for (std::uint64_t page = first; page < first + count; ++page) {
    if (page % 64 == 0 && first + count - page >= 64) {
      pages.words[page / 64] = UINT64_MAX;
      page += 63;
    } else {
      pages.words[page / 64] |= 1ULL << (page % 64);
    }
  }
}

}  // namespace vm_platform
