#include "iso/rock_ridge.hpp"

#include <algorithm>
#include <cstring>

#include "iso/sparse.hpp"
#include "iso/text.hpp"

namespace vm_platform::iso {

Result<Bytes> ContinuationReader::read(std::uint64_t offset, std::uint32_t size) {
  if (size > kMaxContinuationSize || !within(offset, size, source_.size())) return past_end(source_, offset, size);
  if (buffer_ == nullptr || offset < start_ || offset + size > start_ + filled_) {
    if (buffer_ == nullptr) buffer_ = std::make_unique_for_overwrite<std::byte[]>(kMaxContinuationSize);
    filled_ = 0;
    start_ = offset & ~std::uint64_t{2047};
    const auto want = static_cast<std::uint32_t>(std::min<std::uint64_t>(
        std::min<std::uint64_t>(std::max<std::uint64_t>(kWindow, offset + size - start_), kMaxContinuationSize),
        source_.size() - start_));
    if (offset + size > start_ + want) start_ = offset;  // a large area that does not begin on a sector
    const auto length =
        std::max(size, static_cast<std::uint32_t>(std::min<std::uint64_t>(want, source_.size() - start_)));
    if (auto done = source_.read(start_, std::span(buffer_.get(), length)); !done) return fail(std::move(done.error()));
    filled_ = length;
  }
  return Bytes(buffer_.get() + (offset - start_), size);
}

namespace {

constexpr std::uint16_t sig(char a, char b) {
  return static_cast<std::uint16_t>(static_cast<unsigned char>(a) | (static_cast<unsigned char>(b) << 8));
}

constexpr std::uint32_t kTypeMask = 0170000;

IsoEntryType type_of_mode(std::uint32_t mode, IsoEntryType otherwise) {
  switch (mode & kTypeMask) {
    case 0100000: return IsoEntryType::File;
    case 0040000: return IsoEntryType::Directory;
    case 0120000: return IsoEntryType::Symlink;
    case 0020000: return IsoEntryType::CharacterDevice;
    case 0060000: return IsoEntryType::BlockDevice;
    case 0010000: return IsoEntryType::Fifo;
    case 0140000: return IsoEntryType::Socket;
    default: return otherwise;
  }
}

/// One pass over the fields of a record; holds what fields continue from one to the next.
class SystemUse {
 public:
  SystemUse(IsoEntry& entry, RockRidgeLinks& links, Checker* checker)
      : entry_(entry), links_(links), checker_(checker) {}

  /// `field` is the whole of it, at least 4 bytes.
  void take(Bytes field, std::uint64_t offset) {
    switch (le16(field, 0)) {
      case sig('P', 'X'): posix(field, offset); break;
      case sig('T', 'F'): times(field, offset); break;
      case sig('N', 'M'): name(field, offset); break;
      case sig('S', 'L'): symlink(field, offset); break;
      case sig('P', 'N'): device(field, offset); break;
      case sig('C', 'L'): links_.has_child = location(field, offset, links_.child); break;
      case sig('P', 'L'): links_.has_parent = location(field, offset, links_.parent); break;
      case sig('R', 'E'): links_.is_relocated = true; break;
      case sig('S', 'F'): sparse(field, offset); break;
      case sig('Z', 'F'):
      case sig('Z', '2'): compressed(field, offset); break;
      default: break;  // AL, AS, SP, ER, ES, RR, PD, ...: nothing a reader of files needs
    }
  }

 private:
  void complain(std::uint64_t offset, const char* what) {
    if (checker_ != nullptr) checker_->complain(offset, what);
  }
  void pair(Bytes field, std::size_t at, std::uint64_t offset, const char* what) {
    if (checker_ != nullptr && !both32_agree(field, at)) complain(offset + at, what);
  }

  void posix(Bytes field, std::uint64_t offset) {
    if (field.size() < 36) return complain(offset, "PX field is too short");
    const std::uint32_t mode = le32(field, 4);
    entry_.has_posix = true;
    entry_.mode = mode & 07777;
    entry_.links = le32(field, 12);
    entry_.uid = le32(field, 20);
    entry_.gid = le32(field, 28);
    if (field.size() >= 44) entry_.serial = le32(field, 36);
    const IsoEntryType type = type_of_mode(mode, entry_.type);
    // A record that is a directory stays one, and no other becomes one: its extent would be read as records.
    if ((type == IsoEntryType::Directory) == (entry_.type == IsoEntryType::Directory)) {
      entry_.type = type;
    } else if (type == IsoEntryType::Directory) {
      links_.says_directory = true;
    } else {
      complain(offset, "PX gives a directory record another type");
    }
    for (const std::size_t at : {4u, 12u, 20u, 28u}) pair(field, at, offset, "PX: the two byte orders disagree");
  }

  void times(Bytes field, std::uint64_t offset) {
    if (field.size() < 5) return complain(offset, "TF field is too short");
    const std::uint8_t flags = u8(field, 4);
    const std::size_t each = (flags & 0x80) != 0 ? 17 : 7;
    std::size_t at = 5;
    Bytes last;
    IsoTime time;
    IsoTime* const targets[] = {&entry_.created, &entry_.modified, &entry_.accessed, &entry_.changed};
    for (unsigned bit = 0; bit < 7; ++bit) {
      if ((flags & (1u << bit)) == 0) continue;
      if (at + each > field.size()) return complain(offset, "TF field is too short for its flags");
      if (bit < 4) {
        const Bytes stamp = field.subspan(at, each);
        // Most files have one and the same stamp several times.
        if (last.empty() || std::memcmp(stamp.data(), last.data(), each) != 0) {
          time = each == 7 ? short_time(stamp) : long_time(stamp);
          last = stamp;
        }
        if (time.present) *targets[bit] = time;
      }
      at += each;
    }
  }

  void name(Bytes field, std::uint64_t offset) {
    if (field.size() < 5) return complain(offset, "NM field is too short");
    const std::uint8_t flags = u8(field, 4);
    if (!name_continues_) entry_.name.clear();
    name_continues_ = (flags & 1) != 0;
    links_.has_name = true;
    if ((flags & 2) != 0) {
      entry_.name += '.';
    } else if ((flags & 4) != 0) {
      entry_.name += "..";
    } else if (entry_.name.size() + field.size() > kMaxNameBytes) {
      complain(offset, "name is longer than 4096 bytes");
    } else {
      append_as_utf8(entry_.name, text(field, 5, field.size() - 5));
    }
  }

  void symlink(Bytes field, std::uint64_t offset) {
    if (field.size() < 5) return complain(offset, "SL field is too short");
    std::string& target = entry_.symlink_target;
    std::size_t at = 5;
    while (at + 2 <= field.size()) {
      const std::uint8_t flags = u8(field, at);
      const std::size_t length = u8(field, at + 1);
      if (at + 2 + length > field.size()) return complain(offset + at, "SL component crosses the end of its field");
      if (target.size() + length + 2 > kMaxTargetBytes) return complain(offset, "symlink target is longer than 64 KiB");
      if (!component_continues_ && !target.empty() && target.back() != '/') target += '/';
      component_continues_ = (flags & 1) != 0;
      if ((flags & 8) != 0) {
        target = "/";
      } else if ((flags & 4) != 0) {
        target += "..";
      } else if ((flags & 2) != 0) {
        target += '.';
      } else {
        append_as_utf8(target, text(field, at + 2, length));
      }
      at += 2 + length;
    }
  }

  void device(Bytes field, std::uint64_t offset) {
    if (field.size() < 20) return complain(offset, "PN field is too short");
    const std::uint32_t high = le32(field, 4), low = le32(field, 12);
    // Writers put the major number into "high", or a whole dev_t into "low" with nothing in "high".
    entry_.device_major = high != 0 || low <= 0xFF ? high : low >> 8;
    entry_.device_minor = high != 0 || low <= 0xFF ? low : low & 0xFF;
    pair(field, 4, offset, "PN: the two byte orders disagree");
    pair(field, 12, offset, "PN: the two byte orders disagree");
  }

  bool location(Bytes field, std::uint64_t offset, std::uint32_t& block) {
    if (field.size() < 12) return complain(offset, "link field is too short"), false;
    block = le32(field, 4);
    pair(field, 4, offset, "link: the two byte orders disagree");
    return true;
  }

  void sparse(Bytes field, std::uint64_t offset) {
    // RRIP 1.10 had a 32-bit size alone, 12 bytes in all; 1.12 has two halves and the depth.
    entry_.sparse_depth = kUnreadableSparse;
    if (field.size() < 12) return complain(offset, "SF field is too short");
    const bool old = field.size() < 21;
    const std::uint8_t depth = old ? kOldSparseDepth : u8(field, 20);
    if (depth < 1 || depth > kMaxSparseDepth) return complain(offset, "SF: the table depth is not 1 to 7");
    const std::uint64_t size =
        old ? le32(field, 4) : (static_cast<std::uint64_t>(le32(field, 4)) << 32) | le32(field, 12);
    if (depth < kMaxSparseDepth && size > std::uint64_t{1} << (8 * (depth + 1))) {
      return complain(offset, "SF: the file is larger than its index");
    }
    entry_.sparse_depth = depth;
    entry_.size = size;
    pair(field, 4, offset, "SF: the two byte orders disagree");
    if (!old) pair(field, 12, offset, "SF: the two byte orders disagree");
  }

  void compressed(Bytes field, std::uint64_t offset) {
    if (field.size() < 16) return complain(offset, "ZF field is too short");
    const std::uint16_t algorithm = le16(field, 4);
    const std::uint8_t log2 = u8(field, 7);
    const bool version2 = u8(field, 3) == 2;
    if (algorithm != (version2 ? sig('P', 'Z') : sig('p', 'z')))
      return complain(offset, "unknown compression algorithm");
    if (log2 < 15 || log2 > 17) return complain(offset, "zisofs block size is not 32, 64 or 128 KiB");
    entry_.zisofs = {log2, u8(field, 6), version2};
    entry_.size = version2 ? le64(field, 8) : le32(field, 8);
    if (!version2) pair(field, 8, offset, "ZF: the two byte orders disagree");
  }

  IsoEntry& entry_;
  RockRidgeLinks& links_;
  Checker* checker_;
  bool name_continues_ = false, component_continues_ = false;
};

}  // namespace

Result<void> read_system_use(const Susp& susp, Bytes area, std::uint64_t offset, ContinuationReader& continuations,
                             IsoEntry& entry, RockRidgeLinks& links, Checker* checker) {
  SystemUse fields(entry, links, checker);
  if (susp.skip > area.size()) return {};
  area = area.subspan(susp.skip);
  offset += susp.skip;
  for (unsigned chained = 0;; ++chained) {
    std::uint64_t next_offset = 0;
    std::uint32_t next_size = 0;
    bool more = false;
    while (area.size() >= 4) {
      const std::size_t length = u8(area, 2);
      const std::uint16_t signature = le16(area, 0);
      if (length < 4) {
        // Areas are padded with a zero byte or zeros; anything else is damage.
        if (checker != nullptr && signature != 0) checker->complain(offset, "system use field shorter than its header");
        break;
      }
      if (length > area.size()) {
        if (checker != nullptr) checker->complain(offset, "system use field crosses the end of its area");
        break;
      }
      const Bytes field = area.first(length);
      if (signature == sig('C', 'E')) {
        if (length < 28) {
          if (checker != nullptr) checker->complain(offset, "CE field is too short");
        } else {
          if (checker != nullptr && (!both32_agree(field, 4) || !both32_agree(field, 12) || !both32_agree(field, 20))) {
            checker->complain(offset, "CE: the two byte orders disagree");
          }
          next_offset = static_cast<std::uint64_t>(le32(field, 4)) * susp.block_size + le32(field, 12);
          next_size = le32(field, 20);
          more = next_size >= 4;
        }
      } else if (signature == sig('S', 'T')) {
        break;
      } else {
        fields.take(field, offset);
      }
      area = area.subspan(length);
      offset += length;
    }
    if (!more) return {};
    if (chained == kMaxContinuations) {
      return fail(ErrorCode::Corrupt, "read system use area", at_byte(next_offset),
                  "a record chains more than " + std::to_string(kMaxContinuations) + " continuation areas");
    }
    auto next = continuations.read(next_offset, next_size);
    if (!next) {
      return fail(ErrorCode::Corrupt, "read system use area", at_byte(next_offset),
                  next_size > kMaxContinuationSize ? "continuation area of " + std::to_string(next_size) + " bytes"
                                                   : next.error().reason());
    }
    area = *next;
    offset = next_offset;
  }
}

namespace {
constexpr std::string_view kRockRidgeIds[] = {"RRIP_1991A", "IEEE_P1282", "IEEE_1282"};

/// SP at the start of `area` (SUSP 5.3).
bool is_sp(Bytes area) {
  return area.size() >= 7 && le16(area, 0) == sig('S', 'P') && u8(area, 2) >= 7 && u8(area, 4) == 0xBE &&
         u8(area, 5) == 0xEF;
}
}  // namespace

Susp detect_susp(Bytes area, std::uint32_t block_size, const Source& source) {
  Susp susp;
  susp.block_size = block_size;
  // CD-XA puts 14 bytes of its own before the fields.
  if (!is_sp(area)) {
    if (area.size() < 14 || !is_sp(area.subspan(14))) return susp;
    area = area.subspan(14);
  }
  susp.present = true;
  susp.skip = u8(area, 6);
  ContinuationReader continuations(source);
  for (unsigned chained = 0; chained <= kMaxContinuations; ++chained) {
    std::uint64_t next_offset = 0;
    std::uint32_t next_size = 0;
    while (area.size() >= 4) {
      const std::size_t length = u8(area, 2);
      if (length < 4 || length > area.size()) break;
      const std::uint16_t signature = le16(area, 0);
      if (signature == sig('C', 'E') && length >= 28) {
        next_offset = static_cast<std::uint64_t>(le32(area, 4)) * block_size + le32(area, 12);
        next_size = le32(area, 20);
      } else if (signature == sig('E', 'R') && length >= 8 && 8u + u8(area, 4) <= length) {
        const std::string_view id = text(area, 8, u8(area, 4));
        const bool known = std::find(std::begin(kRockRidgeIds), std::end(kRockRidgeIds), id) != std::end(kRockRidgeIds);
        if (known || susp.extension.empty()) {
          susp.extension.clear();
          append_as_utf8(susp.extension, id);
        }
        susp.rock_ridge = susp.rock_ridge || known;
      } else if (signature == sig('P', 'X') || signature == sig('R', 'R')) {
        susp.rock_ridge = true;  // some writers leave the ER out
      } else if (signature == sig('S', 'T')) {
        break;
      }
      area = area.subspan(length);
    }
    if (next_size < 4) break;
    auto next = continuations.read(next_offset, next_size);
    if (!next) break;
    area = *next;
  }
  return susp;
}

}  // namespace vm_platform::iso
