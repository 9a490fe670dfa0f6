// Hands out pieces of a range of numbers: best fit, neighbours join when given back. Keeps its books outside the range.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

namespace vm_platform {

class RangeAllocator {
 public:
  explicit RangeAllocator(std::uint64_t size);

  /// The offset of a free piece of `size` (not zero), aligned to `alignment`, a power of two.
  std::optional<std::uint64_t> allocate(std::uint64_t size, std::uint64_t alignment);
  /// The size of the piece that began at `offset`, or nothing where none does.
  std::optional<std::uint64_t> free(std::uint64_t offset);

  [[nodiscard]] std::uint64_t allocated() const { return allocated_; }
  [[nodiscard]] std::uint64_t largest_free() const { return by_size_.empty() ? 0 : by_size_.rbegin()->first; }

 private:
  void add(std::uint64_t offset, std::uint64_t size);
  void remove(std::map<std::uint64_t, std::uint64_t>::iterator piece);

  std::map<std::uint64_t, std::uint64_t> free_;                // offset, size
  std::set<std::pair<std::uint64_t, std::uint64_t>> by_size_;  // size, offset
  std::unordered_map<std::uint64_t, std::uint64_t> live_;      // offset, size
  std::uint64_t allocated_ = 0;
};

}  // namespace vm_platform
