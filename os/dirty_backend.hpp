// One way to notice writes.
#pragma once

#include <bit>
#include <span>
#include <vm_platform/dirty_tracking.hpp>

namespace vm_platform {

/// This process's number.
unsigned long current_process() noexcept;

class DirtyTracker::Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual DirtyMethod method() const noexcept = 0;
  /// `pages` is cleared and has the right size. Where it fails, what it took so far may be forgotten: the next one
  /// counts as having found everything. But of every write from then on it has to hear.
  virtual Result<void> collect(DirtyPages& pages) = 0;
  /// A forked child has copies of the objects and of the descriptors, but they act on the memory and the thread of its
  /// parent: it must leave them alone.
  [[nodiscard]] bool is_ours() const noexcept { return owner_ == current_process(); }
  std::uint64_t size = 0;  // bytes
  std::uint64_t page_size = 0;
  bool forgot = false;  // the last collect failed

 private:
  unsigned long owner_ = current_process();
};

/// What this host knows, best first.
std::span<const DirtyMethod> host_dirty_methods() noexcept;
/// Begins to watch with one of them.
Result<std::unique_ptr<DirtyTracker::Backend>> start_dirty_backend(DirtyMethod method, MappedMemory& memory);
/// The one that works anywhere.
Result<std::unique_ptr<DirtyTracker::Backend>> start_protect_fault(MappedMemory& memory);

/// Whether all of it may be read and written now; `Unsupported` where some may not. Linux: where /proc/self/maps cannot
/// be read nobody knows, and it is taken to be so.
Result<void> check_read_write(const MappedMemory& memory);

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

/// Words of bits that are collected at once, by backends that lock writers out meanwhile: 1024 pages.
inline constexpr std::size_t kStretch = 16;

/// Calls `run(first page, pages)` for each longest run of set bits in `words`, whose first bit is page `first_page`.
template <typename Run>
Result<void> for_each_run(std::span<const std::uint64_t> words, std::uint64_t first_page, Run run) {
  std::uint64_t begin = 0, length = 0;
  for (std::size_t i = 0; i < words.size(); ++i) {
    for (std::uint64_t word = words[i]; word != 0;) {
      const auto bit = static_cast<unsigned>(std::countr_zero(word));
      const auto ones = static_cast<unsigned>(std::countr_one(word >> bit));
      const std::uint64_t first = i * 64 + bit;
      if (length != 0 && begin + length == first) {
        length += ones;
      } else {
        if (length != 0) {
          if (Result<void> done = run(first_page + begin, length); !done) return done;
        }
        begin = first;
        length = ones;
      }
      word = bit + ones >= 64 ? 0 : word & (~0ULL << (bit + ones));
    }
  }
  return length != 0 ? run(first_page + begin, length) : Result<void>();
}

}  // namespace vm_platform
