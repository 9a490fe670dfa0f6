#include "os/range_allocator.hpp"

#include <iterator>
#include <vm_platform/core.hpp>

namespace vm_platform {

RangeAllocator::RangeAllocator(std::uint64_t size) { add(0, size); }

void RangeAllocator::add(std::uint64_t offset, std::uint64_t size) {
  free_.emplace(offset, size);
  by_size_.emplace(size, offset);
}

void RangeAllocator::remove(std::map<std::uint64_t, std::uint64_t>::iterator piece) {
  by_size_.erase({piece->second, piece->first});
  free_.erase(piece);
}

std::optional<std::uint64_t> RangeAllocator::allocate(std::uint64_t size, std::uint64_t alignment) {
  for (auto found = by_size_.lower_bound({size, 0}); found != by_size_.end(); ++found) {
    const auto [piece_size, piece] = *found;
    const std::uint64_t start = round_up(piece, alignment);
    const std::uint64_t before = start - piece;
    if (before > piece_size || piece_size - before < size) continue;  // too short once aligned
    remove(free_.find(piece));
    if (before != 0) add(piece, before);
    const std::uint64_t after = piece_size - before - size;
    if (after != 0) add(start + size, after);
    live_.emplace(start, size);
    allocated_ += size;
    return start;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> RangeAllocator::free(std::uint64_t offset) {
  const auto found = live_.find(offset);
  if (found == live_.end()) return std::nullopt;
  const std::uint64_t freed = found->second;
  live_.erase(found);
  allocated_ -= freed;
  std::uint64_t size = freed;
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && next->first == offset + size) {
    size += next->second;
    auto gone = next++;
    remove(gone);
  }
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == offset) {
      offset = before->first;
      size += before->second;
      remove(before);
    }
  }
  add(offset, size);
  return freed;
}

}  // namespace vm_platform
