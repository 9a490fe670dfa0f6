#include "iso/directory.hpp"

#include <algorithm>
#include <cstring>

#include "iso/text.hpp"

namespace vm_platform::iso {

RecordReader::RecordReader(const Source& source, IsoExtent extent, std::uint32_t block_size)
    : source_(source),
      start_(std::min(extent.offset, source.size())),
      end_(start_ + std::min(extent.size, source.size() - start_)),
      cut_(!within(extent.offset, extent.size, source.size())),
      extent_size_(extent.size),
      // Writers with small blocks pad to the block, ECMA-119 to the sector; stepping by the smaller finds both.
      step_(std::min(block_size, kSectorSize)),
      position_(start_) {}

void RecordReader::release() noexcept {
  window_.reset();
  window_size_ = window_capacity_ = 0;
}

Result<void> RecordReader::fill() {
  // A small directory is read at once. A large one begins with a small window, since often only its first names are
  // asked for, and goes on with large ones.
  const bool small = end_ - start_ <= kWindow / 2;
  const auto wanted = small                   ? static_cast<std::uint32_t>(end_ - start_)
                      : window_capacity_ == 0 ? 8 * kSectorSize
                                              : kWindow;
  const std::uint64_t from = round_down(position_ - start_, kSectorSize) + start_;
  if (wanted > window_capacity_) {
    window_ = std::make_unique_for_overwrite<std::byte[]>(wanted);
    window_capacity_ = wanted;
  }
  const auto size = static_cast<std::uint32_t>(std::min<std::uint64_t>(window_capacity_, end_ - from));
  window_size_ = 0;
  if (auto done = source_.read(from, std::span(window_.get(), size)); !done) return done;
  window_start_ = from;
  window_size_ = size;
  return {};
}

void RecordReader::skip_to_next_block() { position_ = start_ + round_down(position_ - start_, step_) + step_; }

Result<bool> RecordReader::next(RawRecord& record) {
  for (;;) {
    if (position_ >= end_) {
      if (!cut_) return false;
      cut_ = false;
      return fail(VmError(ErrorCode::Corrupt, "read directory", at_byte(start_),
                          std::to_string(extent_size_) + " bytes of directory, of which the image holds " +
                              std::to_string(end_ - start_))
                      .with_hint("the image is truncated or damaged"));
    }
    if (position_ < window_start_ || position_ >= window_start_ + window_size_) {
      if (auto done = fill(); !done) {
        position_ = end_;
        cut_ = false;
        return fail(std::move(done.error()));
      }
    }
    const Bytes rest(window_.get() + (position_ - window_start_), window_start_ + window_size_ - position_);
    const std::size_t length = u8(rest, 0);
    if (length == 0) {
      skip_to_next_block();
      continue;
    }
    // Windows begin on a sector of the directory and are whole sectors long, so a record that fits its sector is in
    // one.
    const std::uint64_t left_in_sector = kSectorSize - (position_ - start_) % kSectorSize;
    const std::uint64_t offset = position_;
    const char* wrong = nullptr;
    if (length < 34) {
      wrong = "directory record shorter than 34 bytes";
    } else if (length > left_in_sector) {
      wrong = "directory record crosses the end of its sector";
    } else if (length > rest.size()) {
      wrong = "directory record crosses the end of its directory";
    } else if (33u + u8(rest, 32) > length || u8(rest, 32) == 0) {
      wrong = "name does not fit its directory record";
    }
    if (wrong != nullptr) {
      skip_to_next_block();
      return fail(ErrorCode::Corrupt, "read directory record", at_byte(offset), wrong);
    }
    position_ += length;
    record = {rest.first(length), offset};
    return true;
  }
}

Result<void> decode_record(const Tree& tree, const RawRecord& record, ContinuationReader& continuations,
                           IsoEntry& entry, RockRidgeLinks& links, Checker* checker) {
  const Bytes b = record.bytes;
  const std::uint8_t flags = record.flags();
  entry.name.clear();
  entry.symlink_target.clear();
  entry.type = (flags & record_flag::kDirectory) != 0 ? IsoEntryType::Directory : IsoEntryType::File;
  entry.hidden = (flags & record_flag::kHidden) != 0;
  entry.has_posix = entry.relocated = false;
  entry.interleaved = u8(b, 26) != 0 || u8(b, 27) != 0;
  entry.mode = entry.is_directory() ? 0555 : 0444;
  entry.links = 1;
  entry.uid = entry.gid = entry.serial = entry.device_major = entry.device_minor = 0;
  entry.extended_attribute_blocks = u8(b, 1);
  entry.stored_size = entry.size = le32(b, 10);
  // The extended attribute record comes first; the data begin behind it (ECMA-119 9.1.3).
  entry.set_extent({(static_cast<std::uint64_t>(le32(b, 2)) + u8(b, 1)) * tree.block_size, entry.stored_size});
  entry.modified = entry.accessed = entry.changed = entry.created = IsoTime{};
  entry.record_offset = record.offset;
  entry.zisofs = {};
  entry.sparse_depth = 0;
  links = {};
  if (checker != nullptr) {
    if (!both32_agree(b, 2)) checker->complain(record.offset + 2, "extent: the two byte orders disagree");
    if (!both32_agree(b, 10)) checker->complain(record.offset + 10, "size: the two byte orders disagree");
  }

  Result<void> result;
  if (tree.kind == IsoNameSpace::RockRidge) {
    const Bytes area = record.system_use();
    const std::uint64_t at = record.offset + static_cast<std::uint64_t>(area.data() - b.data());
    if (area.size() >= 4) result = read_system_use(tree.susp, area, at, continuations, entry, links, checker);
    if (!entry.is_file()) {
      entry.zisofs = {};
      entry.sparse_depth = 0;
      entry.size = entry.is_directory() ? entry.stored_size : entry.is_symlink() ? entry.symlink_target.size() : 0;
    }
  }
  if (!entry.modified.present) entry.modified = short_time(b.subspan(18, 7));
  if (links.has_name && !entry.name.empty()) return result;
  entry.name.clear();
  if (record.is_dot()) {
    entry.name = u8(b, 33) == 0 ? "." : "..";
  } else if (tree.kind == IsoNameSpace::Joliet) {
    append_joliet_name(entry.name, record.identifier());
  } else {
    append_plain_name(entry.name, text(b, 33, u8(b, 32)));
  }
  return result;
}

Result<IsoExtent> directory_at(const Source& source, const Tree& tree, std::uint32_t block) {
  const std::uint64_t offset = static_cast<std::uint64_t>(block) * tree.block_size;
  std::array<std::byte, 34> dot{};
  if (auto done = source.read(offset, dot); !done) return fail(std::move(done.error()));
  if (u8(dot, 0) < 34 || u8(dot, 32) != 1 || u8(dot, 33) != 0 || le32(dot, 2) != block) {
    return fail(ErrorCode::Corrupt, "read relocated directory", at_byte(offset), "no directory begins there");
  }
  return IsoExtent{offset, le32(dot, 10)};
}

DirectoryCursor::DirectoryCursor(const Source& source, const Tree& tree, const IsoEntry& directory, bool decompress,
                                 Checker* checker)
    : source_(source),
      tree_(tree),
      records_(source, directory.extents().front(), tree.block_size),
      continuations_(source),
      is_root_(directory.extents().front() == tree.root.extents().front()),
      decompress_(decompress),
      checker_(checker) {}

void DirectoryCursor::release_buffer() noexcept {
  records_.release();
  continuations_.release();
}

Result<bool> DirectoryCursor::next(IsoEntry& entry) {
  RawRecord record;
  RockRidgeLinks links;
  for (;;) {
    auto found = records_.next(record);
    if (!found || !*found) return found;
    // An associated file (a resource fork) bears the name of the file that follows it.
    if (record.is_dot() || (record.flags() & record_flag::kAssociated) != 0) continue;
    auto decoded = decode_record(tree_, record, continuations_, entry, links, checker_);
    if (!decoded) return fail(std::move(decoded.error()));
    if (!decompress_ && (entry.zisofs.block_log2 != 0 || entry.sparse_depth != 0)) {
      entry.zisofs = {};
      entry.sparse_depth = 0;
      entry.size = entry.stored_size;
    }
    if (links.is_relocated) continue;
    if (links.has_child) {
      if (auto done = follow_child_link(entry, links.child); !done) return fail(std::move(done.error()));
    } else if (links.says_directory && checker_ != nullptr) {
      checker_->complain(record.offset, "PX calls a record that is no directory one");
    }
    if ((record.flags() & record_flag::kMultiExtent) != 0 && !entry.is_directory()) {
      if (auto done = collect_sections(entry, record); !done) return fail(std::move(done.error()));
    }
    // Verifying, it is shown: the path tables list it.
    if (checker_ == nullptr && is_root_ && entry.is_directory() && tree_.kind == IsoNameSpace::RockRidge &&
        (entry.name == "rr_moved" || entry.name == ".rr_moved") && holds_only_relocated(entry)) {
      continue;
    }
    return true;
  }
}

Result<void> DirectoryCursor::collect_sections(IsoEntry& entry, const RawRecord& first) {
  std::array<std::byte, 256> name{};
  const std::size_t name_size = first.identifier().size();
  std::copy_n(first.identifier().data(), name_size, name.data());
  for (std::size_t sections = 1;; ++sections) {
    RawRecord record;
    auto found = records_.next(record);
    if (!found) return fail(std::move(found.error()));
    const bool same = *found && std::ranges::equal(record.identifier(), Bytes(name.data(), name_size));
    if (!same) {
      if (*found) records_.seek(record.offset);
      return fail(ErrorCode::Corrupt, "read directory record", at_byte(entry.record_offset),
                  "the last section of multi-extent file '" + entry.name + "' is missing");
    }
    if (sections == kMaxSections) {
      return fail(ErrorCode::Corrupt, "read directory record", at_byte(record.offset),
                  "'" + entry.name + "' has more than " + std::to_string(kMaxSections) + " sections");
    }
    const Bytes b = record.bytes;
    const std::uint64_t size = le32(b, 10);
    entry.add_extent({(static_cast<std::uint64_t>(le32(b, 2)) + u8(b, 1)) * tree_.block_size, size});
    entry.interleaved = entry.interleaved || u8(b, 26) != 0 || u8(b, 27) != 0;
    entry.stored_size += size;
    if (entry.zisofs.block_log2 == 0 && entry.sparse_depth == 0) entry.size = entry.stored_size;
    if ((record.flags() & record_flag::kMultiExtent) == 0) return {};
  }
}

Result<void> DirectoryCursor::follow_child_link(IsoEntry& entry, std::uint32_t block) {
  auto extent = directory_at(source_, tree_, block);
  if (!extent) return fail(std::move(extent.error()));
  entry.type = IsoEntryType::Directory;
  entry.relocated = true;
  entry.set_extent(*extent);
  entry.size = entry.stored_size = extent->size;
  if (!entry.has_posix) entry.mode = 0555;
  return {};
}

bool DirectoryCursor::holds_only_relocated(const IsoEntry& directory) const {
  RecordReader records(source_, directory.extents().front(), tree_.block_size);
  ContinuationReader continuations(source_);
  RawRecord record;
  IsoEntry entry;
  RockRidgeLinks links;
  bool any = false;
  // Deep trees have many; the first few tell.
  for (int looked = 0; looked < 64;) {
    auto found = records.next(record);
    if (!found) return false;
    if (!*found) break;
    if (record.is_dot()) continue;
    if (!decode_record(tree_, record, continuations, entry, links, nullptr) || !links.is_relocated) return false;
    any = true;
    ++looked;
  }
  return any;
}

}  // namespace vm_platform::iso
