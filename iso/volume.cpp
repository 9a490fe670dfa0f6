#include "iso/volume.hpp"

#include <algorithm>

#include "iso/text.hpp"

namespace vm_platform::iso {
namespace {

constexpr std::uint64_t kFirstDescriptor = 16;
/// More descriptors than this are no set (ECMA-119 puts no limit; real images have 3 to 6).
constexpr std::uint64_t kMaxDescriptors = 64;

using Sector = std::array<std::byte, kSectorSize>;

bool is_descriptor(Bytes b) { return text(b, 1, 5) == "CD001"; }

/// 1 to 3 for an SVD with Joliet's escape sequences, else 0.
int joliet_level(Bytes b) {
  const std::string_view escapes = text(b, 88, 32);
  if (escapes.starts_with("%/@")) return 1;
  if (escapes.starts_with("%/C")) return 2;
  if (escapes.starts_with("%/E")) return 3;
  return 0;
}

/// Block size as recorded where it can be one; what a writer left at 0 or damaged is 2048.
std::uint32_t block_size_of(Bytes b) {
  const std::uint32_t size = le16(b, 128);
  const bool power = size >= 512 && size <= 32768 && (size & (size - 1)) == 0;
  return power ? size : kSectorSize;
}

Tree tree_of(Bytes b, std::uint64_t offset, IsoNameSpace kind) {
  Tree tree;
  tree.kind = kind;
  tree.block_size = block_size_of(b);
  tree.descriptor_offset = offset;
  tree.volume_blocks = le32(b, 80);
  tree.path_table_size = le32(b, 132);
  tree.path_table_little = le32(b, 140);
  tree.path_table_big = be32(b, 148);
  const Bytes root = b.subspan(156, 34);
  tree.root.type = IsoEntryType::Directory;
  tree.root.mode = 0555;
  tree.root.size = tree.root.stored_size = le32(root, 10);
  tree.root.set_extent({(static_cast<std::uint64_t>(le32(root, 2)) + u8(root, 1)) * tree.block_size, le32(root, 10)});
  tree.root.modified = short_time(root.subspan(18, 7));
  tree.root.record_offset = offset + 156;
  return tree;
}

void describe(IsoVolumeInfo& info, Bytes b) {
  const auto field = [&](std::size_t at, std::size_t size) { return padded_text(b.subspan(at, size), false); };
  info.system_id = field(8, 32);
  info.volume_id = field(40, 32);
  info.volume_blocks = le32(b, 80);
  info.set_size = le16(b, 120);
  info.sequence_number = le16(b, 124);
  info.block_size = block_size_of(b);
  info.volume_set_id = field(190, 128);
  info.publisher = field(318, 128);
  info.preparer = field(446, 128);
  info.application = field(574, 128);
  info.copyright_file = field(702, 37);
  info.abstract_file = field(739, 37);
  info.bibliographic_file = field(776, 37);
  info.created = long_time(b.subspan(813, 17));
  info.modified = long_time(b.subspan(830, 17));
  info.expires = long_time(b.subspan(847, 17));
  info.effective = long_time(b.subspan(864, 17));
  info.xa = text(b, 1024, 8) == "CD-XA001";
}

/// Rock Ridge's own view of the plain tree, where its root says that it is there.
std::optional<Tree> rock_ridge_tree(const Source& source, const Tree& plain) {
  RecordReader records(source, plain.root.extents().front(), plain.block_size);
  RawRecord dot;
  auto found = records.next(dot);
  if (!found || !*found || !dot.is_dot()) return std::nullopt;
  Tree tree = plain;
  tree.kind = IsoNameSpace::RockRidge;
  tree.susp = detect_susp(dot.system_use(), plain.block_size, source);
  if (!tree.susp.present || !tree.susp.rock_ridge) return std::nullopt;
  // The root has no name in a directory: its mode, owner and times are in its own first record.
  ContinuationReader continuations(source);
  RockRidgeLinks links;
  IsoEntry self;
  Tree without_skip = tree;
  without_skip.susp.skip = 0;
  (void)decode_record(without_skip, dot, continuations, self, links, nullptr);
  if (self.has_posix && self.is_directory()) {
    self.set_extent(plain.root.extents().front());
    self.size = self.stored_size = plain.root.size;
    self.record_offset = plain.root.record_offset;
    self.name.clear();
    tree.root = self;
  }
  return tree;
}

}  // namespace

Result<Volume> read_volume(const Source& source, std::uint64_t session_start) {
  Volume volume;
  bool primary = false;
  Sector sector{};
  for (std::uint64_t i = 0; i < kMaxDescriptors; ++i) {
    const std::uint64_t offset = (session_start + kFirstDescriptor + i) * kSectorSize;
    if (auto done = source.read(offset, sector); !done) {
      if (primary) break;  // no terminator, but enough to read by
      return fail(std::move(done.error()));
    }
    if (!is_descriptor(sector)) break;
    const std::uint8_t type = u8(sector, 0);
    if (type == 255) break;
    if (type == 0 && text(sector, 7, 23) == "EL TORITO SPECIFICATION" && !volume.boot_catalog) {
      volume.boot_catalog = static_cast<std::uint64_t>(le32(sector, 71)) * kSectorSize;
    } else if (type == 1 && !primary) {
      primary = true;
      describe(volume.info, sector);
      volume.trees.insert(volume.trees.begin(), tree_of(sector, offset, IsoNameSpace::Plain));
    } else if (type == 2) {
      const int level = joliet_level(sector);
      if (level != 0 && volume.info.joliet_level == 0) {
        volume.info.joliet_level = level;
        volume.trees.push_back(tree_of(sector, offset, IsoNameSpace::Joliet));
      } else if (level == 0 && u8(sector, 6) == 2) {
        volume.trees.push_back(tree_of(sector, offset, IsoNameSpace::Enhanced));
      }
    }
  }
  if (!primary) {
    return fail(ErrorCode::Corrupt, "open image", source.name(),
                "no primary volume descriptor at " + at_byte((session_start + kFirstDescriptor) * kSectorSize));
  }
  if (auto tree = rock_ridge_tree(source, volume.trees.front())) {
    volume.info.rock_ridge_extension = tree->susp.extension;
    volume.trees.insert(volume.trees.begin() + 1, std::move(*tree));
  }
  for (const Tree& tree : volume.trees) volume.info.available_names.push_back(tree.kind);
  volume.info.has_boot_catalog = volume.boot_catalog.has_value();
  volume.info.image_size = source.size();
  volume.info.session_start = session_start;
  volume.info.udf_bridge = has_udf(source, session_start + kFirstDescriptor);
  return volume;
}

std::vector<IsoSession> find_sessions(const Source& source) {
  std::vector<IsoSession> sessions;
  const auto look = [&](std::uint64_t start) -> std::optional<IsoSession> {
    Sector sector{};
    if (!source.read((start + kFirstDescriptor) * kSectorSize, sector)) return std::nullopt;
    if (!is_descriptor(sector) || u8(sector, 0) != 1) return std::nullopt;
    const std::uint64_t blocks = static_cast<std::uint64_t>(le32(sector, 80)) * block_size_of(sector) / kSectorSize;
    return IsoSession{start, blocks, padded_text(Bytes(sector).subspan(40, 32), false)};
  };
  auto first = look(0);
  if (!first) return sessions;
  // Overwritable media: sector 16 always describes the newest session, the first one was kept at sector 32.
  constexpr std::uint64_t kMaxSessions = 99, kKeptFirst = 32, kAlignment = 16;
  std::optional<IsoSession> current = look(kKeptFirst);
  if (!current) current = first;
  while (current && sessions.size() < kMaxSessions) {
    sessions.push_back(*current);
    // The size counts from the session's start, or (mkisofs -C) from the first session's.
    const std::uint64_t from_start = current->start_block + current->volume_blocks;
    std::optional<IsoSession> next;
    for (const std::uint64_t end : {from_start, current->volume_blocks}) {
      for (const std::uint64_t start : {round_up(end, kAlignment), round_up(end, 2 * kAlignment), end, end + 150}) {
        if (next || start <= current->start_block || start >= source.size() / kSectorSize) continue;
        next = look(start);
      }
    }
    current = next;
  }
  return sessions;
}

bool has_udf(const Source& source, std::uint64_t first) {
  std::array<std::byte, 8> head{};
  bool begun = false;
  for (std::uint64_t i = 0; i < 32; ++i) {
    if (!source.read((first + i) * kSectorSize, head)) return false;
    const std::string_view id = text(head, 1, 5);
    if (id == "BEA01") begun = true;
    if (id == "NSR02" || id == "NSR03") return begun;
    if (id != "CD001" && id != "BEA01" && id != "BOOT2" && id != "CDW02") return false;
  }
  return false;
}

}  // namespace vm_platform::iso
