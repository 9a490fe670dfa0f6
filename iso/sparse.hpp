// Sparse files: a tree of index blocks instead of the zeros (RRIP 1.12 section 4.1.7).
#pragma once

#include "iso/reader.hpp"

namespace vm_platform::iso {

/// Deepest index: 256^8 bytes, all that a 64-bit size can say.
inline constexpr std::uint8_t kMaxSparseDepth = 7;
/// Of the 12-byte field of RRIP 1.10, which says no depth: 32-bit sizes need three levels.
inline constexpr std::uint8_t kOldSparseDepth = 3;

/// `IsoEntry::sparse_depth` where the field is damaged: reading is refused.
inline constexpr std::uint8_t kUnreadableSparse = 0xFF;

/// Told of the parts of a sparse file that are not zeros, in order.
class SparseParts {
 public:
  virtual ~SparseParts() = default;
  /// `size` bytes of the file at `offset` are at `stored` in its stored bytes.
  virtual Result<void> data(std::uint64_t offset, std::uint64_t stored, std::uint64_t size) = 0;
};
/// Visits the parts within [offset, offset + size). An index that uses more blocks than the file stores is `Corrupt`:
/// the work is bounded by what is stored, whatever size the file claims.
[[nodiscard]] Result<void> visit_sparse(const Source& source, const IsoEntry& file, std::uint64_t offset,
                                        std::uint64_t size, SparseParts& parts);

}  // namespace vm_platform::iso
