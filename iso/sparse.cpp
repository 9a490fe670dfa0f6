#include "iso/sparse.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace vm_platform::iso {
namespace {

/// Index blocks are counted in units of 2048 bytes from the start of the file section, data in units of 256.
constexpr std::uint64_t kIndexUnit = 2048, kDataUnit = 256;
/// The first 2048 bytes are not the index; the root is in the second.
constexpr std::uint32_t kRootIndex = 1;
constexpr std::size_t kEntries = 256;

/// An entry of an index block: a both-endian number (ECMA-119 7.3.3).
constexpr std::uint32_t kLocationMask = 0x00FFFFFF;
constexpr std::uint32_t kIsIndex = 0x40000000;  ///< The location is another index block's.
constexpr std::uint32_t kIsEmpty = 0x80000000;  ///< The region is zeros.

class Visit {
 public:
  Visit(const Source& source, const IsoEntry& file, std::uint64_t begin, std::uint64_t end, SparseParts& parts)
      : source_(source), file_(file), begin_(begin), end_(end), parts_(parts) {}

  Result<void> run() {
    if (auto done = index(kRootIndex, file_.sparse_depth, 0); !done) return done;
    return give_pending();
  }

 private:
  std::unexpected<VmError> damaged(const std::string& why) const {
    return fail(ErrorCode::Corrupt, "read sparse file", "'" + file_.name + "'", why);
  }

  /// The entries of the index block at `location`, each of 256^depth bytes, from byte `start` of the file on.
  Result<void> index(std::uint32_t location, std::uint8_t depth, std::uint64_t start) {
    if (++indexes_ > file_.stored_size / kIndexUnit) return damaged("its index uses a block twice");
    std::array<std::byte, kIndexUnit> block{};
    auto got = read_stored(source_, file_, location * kIndexUnit, block);
    if (!got) return fail(std::move(got.error()));
    if (*got != block.size()) return damaged("index block " + std::to_string(location) + " is not in the file");
    const std::uint64_t span = std::uint64_t{1} << (8 * depth);
    const std::uint64_t first = begin_ > start ? (begin_ - start) / span : 0;
    for (std::uint64_t i = first; i < kEntries; ++i) {
      const std::uint64_t from = start + i * span;
      if (from >= end_) break;
      if (auto done = region(le32(block, i * 8), depth, from, std::min(span, file_.size - from)); !done) return done;
    }
    return {};
  }

  Result<void> region(std::uint32_t entry, std::uint8_t depth, std::uint64_t from, std::uint64_t size) {
    if ((entry & kIsEmpty) != 0) return {};
    const std::uint32_t location = entry & kLocationMask;
    if ((entry & kIsIndex) != 0) {
      if (depth == 1) return damaged("its index is deeper than it says");
      return index(location, static_cast<std::uint8_t>(depth - 1), from);
    }
    const std::uint64_t stored = location * kDataUnit;
    if (!within(stored, size, file_.stored_size)) {
      return damaged("the data of its byte " + std::to_string(from) + " are not in the file");
    }
    const std::uint64_t skip = begin_ > from ? begin_ - from : 0;
    const std::uint64_t end = std::min(from + size, end_);
    return part(from + skip, stored + skip, end - from - skip);
  }

  /// Neighbours are given as one.
  Result<void> part(std::uint64_t offset, std::uint64_t stored, std::uint64_t size) {
    if (size == 0) return {};
    data_ += size;
    if (data_ > file_.stored_size) return damaged("its index uses data twice");
    if (pending_size_ != 0 && offset == pending_ + pending_size_ && stored == pending_stored_ + pending_size_) {
      pending_size_ += size;
      return {};
    }
    if (auto done = give_pending(); !done) return done;
    pending_ = offset;
    pending_stored_ = stored;
    pending_size_ = size;
    return {};
  }
  Result<void> give_pending() {
    if (pending_size_ == 0) return {};
    return parts_.data(pending_, pending_stored_, std::exchange(pending_size_, 0));
  }

  const Source& source_;
  const IsoEntry& file_;
  std::uint64_t begin_, end_;
  SparseParts& parts_;
  std::uint64_t indexes_ = 0, data_ = 0;
  std::uint64_t pending_ = 0, pending_stored_ = 0, pending_size_ = 0;
};

class IntoBuffer final : public SparseParts {
 public:
  IntoBuffer(const Source& source, const IsoEntry& file, std::uint64_t offset, std::span<std::byte> into)
      : source_(source), file_(file), offset_(offset), into_(into) {}
  Result<void> data(std::uint64_t offset, std::uint64_t stored, std::uint64_t size) override {
    const auto target = into_.subspan(static_cast<std::size_t>(offset - offset_), static_cast<std::size_t>(size));
    auto got = read_stored(source_, file_, stored, target);
    if (!got) return fail(std::move(got.error()));
    return {};
  }

 private:
  const Source& source_;
  const IsoEntry& file_;
  std::uint64_t offset_;
  std::span<std::byte> into_;
};

}  // namespace

Result<void> visit_sparse(const Source& source, const IsoEntry& file, std::uint64_t offset, std::uint64_t size,
                          SparseParts& parts) {
  if (offset >= file.size) return {};
  return Visit(source, file, offset, offset + std::min(size, file.size - offset), parts).run();
}

Result<std::size_t> read_sparse(const Source& source, const IsoEntry& file, std::uint64_t offset,
                                std::span<std::byte> into) {
  std::memset(into.data(), 0, into.size());
  IntoBuffer buffer(source, file, offset, into);
  if (auto done = visit_sparse(source, file, offset, into.size(), buffer); !done) return fail(std::move(done.error()));
  return into.size();
}

}  // namespace vm_platform::iso
