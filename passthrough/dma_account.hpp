// What every DMA address space does alike: checking what it is asked, keeping account, explaining refusals.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vm_platform/vfio.hpp>

namespace vm_platform {

class DmaAccount {
 public:
  /// `InvalidArgument` unless both ends are page-aligned and the range does not wrap.
  [[nodiscard]] static Result<void> check(Iova iova, std::span<const std::byte> memory);
  void add(Iova iova, std::uint64_t size) { mapped_.emplace(iova.value, size); }
  void remove(Iova iova, std::uint64_t size);
  /// Whether a mapping begins in the range.
  [[nodiscard]] bool any_in(Iova iova, std::uint64_t size) const;
  /// The kernel's refusal to map, with what to do about it. `valid` are the ranges where mappings may lie.
  [[nodiscard]] VmError explain(int os_error, Iova iova, std::uint64_t size, const std::vector<IovaRange>& valid) const;

 private:
  using Map = std::map<std::uint64_t, std::uint64_t>;
  /// The end of the mappings that begin in the range, which may reach to the end of the address space.
  [[nodiscard]] Map::const_iterator end_of(Iova iova, std::uint64_t size) const;

  Map mapped_;  // IOVA -> bytes
};

/// "0x1000 bytes at IOVA 0x100000"
[[nodiscard]] std::string range_text(Iova iova, std::uint64_t size);

}  // namespace vm_platform
