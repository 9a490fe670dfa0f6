// Directory records (ECMA-119 9.1): found in a directory's extent, and decoded into entries.
#pragma once

#include <array>
#include <memory>
#include <vm_platform/iso.hpp>

#include "iso/rock_ridge.hpp"
#include "iso/source.hpp"

namespace vm_platform::iso {

/// Bytes that records may not cross (ECMA-119 6.8.1.1) and that descriptors fill.
inline constexpr std::uint32_t kSectorSize = 2048;
/// Sections that one file may have: enough for 128 TiB.
inline constexpr std::size_t kMaxSections = 32768;

/// One directory tree of a volume.
struct Tree {
  IsoNameSpace kind = IsoNameSpace::Plain;
  std::uint32_t block_size = kSectorSize;
  Susp susp;  ///< Used where `kind` is RockRidge.
  IsoEntry root;
  std::uint64_t descriptor_offset = 0;
  std::uint64_t volume_blocks = 0;
  std::uint32_t path_table_size = 0;
  std::uint32_t path_table_little = 0, path_table_big = 0;  ///< First blocks.
};

namespace record_flag {
inline constexpr std::uint8_t kHidden = 0x01, kDirectory = 0x02, kAssociated = 0x04, kProtected = 0x10,
                              kMultiExtent = 0x80;
}

/// A record that was found, as it lies in the image.
struct RawRecord {
  Bytes bytes;  ///< Valid until the next one is read.
  std::uint64_t offset = 0;

  [[nodiscard]] std::uint8_t flags() const { return u8(bytes, 25); }
  [[nodiscard]] Bytes identifier() const { return bytes.subspan(33, u8(bytes, 32)); }
  /// `.` and `..` are recorded as one byte 0 or 1.
  [[nodiscard]] bool is_dot() const { return u8(bytes, 32) == 1 && u8(bytes, 33) <= 1; }
  [[nodiscard]] Bytes system_use() const {
    const std::size_t at = 33u + u8(bytes, 32) + (u8(bytes, 32) % 2 == 0 ? 1 : 0);
    return at < bytes.size() ? bytes.subspan(at) : Bytes{};
  }
};

/// Reads the records of one directory extent, through a window that it can give back at any time.
class RecordReader {
 public:
  RecordReader(const Source& source, IsoExtent extent, std::uint32_t block_size);

  /// False at the end. After an error the next call goes on in the next sector.
  Result<bool> next(RawRecord& record);
  /// Goes back to a record given before.
  void seek(std::uint64_t record_offset) { position_ = record_offset; }
  void release() noexcept;

 private:
  Result<void> fill();
  void skip_to_next_block();

  static constexpr std::uint32_t kWindow = 64 * 1024;
  const Source& source_;
  std::uint64_t start_, end_;  ///< Of what the image holds of the extent.
  bool cut_;                   ///< The extent goes past the end of the image.
  std::uint64_t extent_size_;
  std::uint32_t step_;
  std::uint64_t position_;
  std::unique_ptr<std::byte[]> window_;
  std::uint64_t window_start_ = 0;
  std::uint32_t window_size_ = 0, window_capacity_ = 0;
};

/// Fills `entry` from a record; `links` says what Rock Ridge adds. `entry` keeps its buffers.
Result<void> decode_record(const Tree& tree, const RawRecord& record, ContinuationReader& continuations,
                           IsoEntry& entry, RockRidgeLinks& links, Checker* checker);

/// The directory at `block`, sized by its own first record (for child links).
Result<IsoExtent> directory_at(const Source& source, const Tree& tree, std::uint32_t block);

/// The entries of one directory.
class DirectoryCursor final : public IsoDirectory::Cursor {
 public:
  DirectoryCursor(const Source& source, const Tree& tree, const IsoEntry& directory, bool decompress,
                  Checker* checker = nullptr);
  Result<bool> next(IsoEntry& entry) override;
  void release_buffer() noexcept override;

 private:
  Result<void> collect_sections(IsoEntry& entry, const RawRecord& first);
  Result<void> follow_child_link(IsoEntry& entry, std::uint32_t block);
  [[nodiscard]] bool holds_only_relocated(const IsoEntry& directory) const;

  const Source& source_;
  const Tree& tree_;
  RecordReader records_;
  ContinuationReader continuations_;
  bool is_root_, decompress_;
  Checker* checker_;
};

}  // namespace vm_platform::iso
