// Looks at everything an image records twice or could record wrongly.
#include <algorithm>
#include <functional>
#include <set>

#include "iso/reader.hpp"
#include "iso/sparse.hpp"

namespace vm_platform {
namespace {

using namespace iso;
using Severity = IsoIssue::Severity;

/// Where a file or directory lies, and the record that says so.
struct Placed {
  IsoExtent extent;
  std::uint64_t record = 0;
  bool directory = false;
};

/// 1,000,000 directories wait at most; names of one directory are compared by 8-byte hashes.
constexpr std::size_t kMaxPending = 1'000'000;

class Verifier final : public Checker {
 public:
  Verifier(const SimpleIso9660::Impl& image, IsoIssueSink& sink) : image_(image), source_(*image.source), sink_(sink) {}

  IsoVerifyReport run(const Result<IsoBootCatalog>& catalog) {
    if (image_.info.truncated()) {
      error(source_.size(), "image",
            "truncated: the volume has " + std::to_string(image_.info.volume_blocks * image_.info.block_size) +
                " bytes, the image " + std::to_string(source_.size()));
    }
    for (const Tree& tree : image_.trees) {
      // The Rock Ridge view shows all that the plain tree has, and more.
      const bool shadowed = tree.kind == IsoNameSpace::Plain && has(IsoNameSpace::RockRidge);
      if (tree.kind != IsoNameSpace::RockRidge) check_descriptor(tree);
      if (shadowed) continue;
      read_content_ = tree.kind == IsoNameSpace::RockRidge || tree.kind == IsoNameSpace::Plain;
      check_tree(tree);
      check_path_tables(tree);
    }
    check_overlaps();
    if (catalog) {
      check_catalog(*catalog);
    } else if (image_.boot_catalog) {
      error(*image_.boot_catalog, "boot catalogue", catalog.error().reason());
    }
    for (const IsoPartition& partition : image_.info.partitions) {
      if (!within(partition.offset, partition.size, source_.size())) {
        warn(partition.offset, partition.scheme + " partition", "goes past the end of the image");
      }
    }
    return report_;
  }

  void complain(std::uint64_t offset, std::string what) override { error(offset, path_, std::move(what)); }

 private:
  [[nodiscard]] bool has(IsoNameSpace kind) const {
    return std::ranges::find(image_.trees, kind, &Tree::kind) != image_.trees.end();
  }
  void error(std::uint64_t offset, std::string where, std::string what) {
    ++report_.errors;
    sink_.issue({Severity::Error, offset, std::move(where), std::move(what)});
  }
  void warn(std::uint64_t offset, std::string where, std::string what) {
    ++report_.warnings;
    sink_.issue({Severity::Warning, offset, std::move(where), std::move(what)});
  }

  void check_descriptor(const Tree& tree) {
    std::array<std::byte, kSectorSize> d{};
    if (!source_.read(tree.descriptor_offset, d)) return;
    const std::string where = std::string(to_string(tree.kind)) + " volume descriptor";
    for (const std::size_t at : {80u, 132u, 158u, 166u}) {
      if (!both32_agree(d, at)) error(tree.descriptor_offset + at, where, "the two byte orders disagree");
    }
    for (const std::size_t at : {120u, 124u, 128u}) {
      if (!both16_agree(d, at)) error(tree.descriptor_offset + at, where, "the two byte orders disagree");
    }
    if (le16(d, 128) != tree.block_size) {
      error(tree.descriptor_offset + 128, where, "logical block size " + std::to_string(le16(d, 128)));
    }
    if (u8(d, 881) != 1) warn(tree.descriptor_offset + 881, where, "file structure version is not 1");
  }

  struct Pending {
    IsoEntry directory;
    std::string path;
    std::uint64_t parent;
    bool relocated;
  };

  void check_tree(const Tree& tree) {
    directories_.clear();
    std::set<std::uint64_t> seen;
    std::vector<Pending> pending;
    pending.push_back({tree.root, "", tree.root.extents().front().offset, false});
    std::uint64_t directory_bytes = 0;
    while (!pending.empty()) {
      const Pending current = std::move(pending.back());
      pending.pop_back();
      const IsoExtent extent = current.directory.extents().front();
      path_ = current.path.empty() ? "/" : current.path;
      if (!seen.insert(extent.offset).second) {
        error(current.directory.record_offset, path_, "this directory is listed twice, or inside itself");
        continue;
      }
      directory_bytes += extent.size;
      if (directory_bytes > source_.size() || !within(extent.offset, extent.size, source_.size())) {
        if (!within(extent.offset, 1, source_.size()) || directory_bytes > source_.size()) {
          error(current.directory.record_offset, path_,
                "the directory's extent is not in the image, or overlaps others");
          continue;
        }
      }
      ++report_.directories;
      directories_.push_back(extent.offset);
      placed_.push_back({extent, current.directory.record_offset, true});
      check_dots(tree, current, extent);
      check_entries(tree, current, pending);
    }
    std::ranges::sort(directories_);
  }

  /// `.` names the directory itself, `..` its parent (ECMA-119 6.8.2.2).
  void check_dots(const Tree& tree, const Pending& current, IsoExtent extent) {
    RecordReader records(source_, extent, tree.block_size);
    for (const std::uint8_t expected : {std::uint8_t{0}, std::uint8_t{1}}) {
      RawRecord record;
      auto found = records.next(record);
      if (!found || !*found) return;  // told of when the entries are read
      if (!record.is_dot() || u8(record.bytes, 33) != expected) {
        error(record.offset, path_,
              expected == 0 ? "does not begin with its own record" : "has no record of its parent");
        return;
      }
      const std::uint64_t at =
          (static_cast<std::uint64_t>(le32(record.bytes, 2)) + u8(record.bytes, 1)) * tree.block_size;
      const std::uint64_t wanted = expected == 0 ? extent.offset : current.parent;
      if (at != wanted && expected == 0) error(record.offset + 2, path_, "its own record points elsewhere");
      // xorriso writes every parent record of a Joliet tree like this, and no reader minds.
      if (at != wanted && expected == 1 && !current.relocated) {
        warn(record.offset + 2, path_, "the record of its parent points elsewhere");
      }
      if (expected == 0 && le32(record.bytes, 10) != extent.size) {
        warn(record.offset + 10, path_, "its own record gives another size than its parent's");
      }
    }
  }

  void check_entries(const Tree& tree, const Pending& current, std::vector<Pending>& pending) {
    DirectoryCursor cursor(source_, tree, current.directory, true, this);
    std::vector<std::uint64_t> names;
    IsoEntry entry;
    for (;;) {
      path_ = current.path.empty() ? "/" : current.path;
      auto more = cursor.next(entry);
      if (!more) {
        const VmError& e = more.error();
        error(current.directory.extents().front().offset, path_, e.operation() + " " + e.subject() + ": " + e.reason());
        continue;
      }
      if (!*more) break;
      path_ = current.path + "/" + entry.name;
      if (entry.name.empty() || entry.name == "." || entry.name == ".." || entry.name.find('/') != std::string::npos ||
          entry.name.find('\0') != std::string::npos) {
        error(entry.record_offset, path_, "is not a name for a file");
      }
      names.push_back(std::hash<std::string_view>{}(entry.name));
      if (entry.is_directory()) {
        if (pending.size() >= kMaxPending) {
          error(entry.record_offset, path_, "more than 1,000,000 directories wait to be looked at; this one is not");
          continue;
        }
        pending.push_back({entry, path_, current.directory.extents().front().offset, entry.relocated});
      } else if (entry.is_file()) {
        check_file(entry);
      } else if (entry.is_symlink() && entry.symlink_target.empty()) {
        error(entry.record_offset, path_, "symbolic link without a target");
      }
    }
    std::ranges::sort(names);
    if (std::ranges::adjacent_find(names) != names.end()) {
      error(current.directory.extents().front().offset, current.path.empty() ? "/" : current.path,
            "holds the same name twice");
    }
  }

  void check_file(const IsoEntry& file) {
    ++report_.files;
    const std::uint64_t volume_end = image_.info.volume_blocks * image_.info.block_size;
    bool inside = true;
    for (const IsoExtent& extent : file.extents()) {
      if (extent.size == 0) continue;
      if (!within(extent.offset, extent.size, source_.size())) {
        inside = false;
        error(file.record_offset, path_,
              "its " + std::to_string(extent.size) + " bytes at " + at_byte(extent.offset) +
                  " are past the end of the image");
      } else {
        if (extent.offset < std::uint64_t{16} * kSectorSize)
          warn(file.record_offset, path_, "its extent is in the system area");
        if (!within(extent.offset, extent.size, volume_end)) {
          warn(file.record_offset, path_, "its extent is past the end of the volume");
        }
        placed_.push_back({extent, file.record_offset, false});
      }
    }
    if (file.interleaved) {
      warn(file.record_offset, path_, "interleaved file: not read");
      return;
    }
    if (!inside || !read_content_ || file.sparse_depth == kUnreadableSparse) return;  // the field was told of
    if (file.sparse_depth != 0) return check_sparse(file);
    buffer_.resize(static_cast<std::size_t>(std::clamp<std::uint64_t>(file.size, buffer_.size(), 1 * kMiB)));
    for (std::uint64_t done = 0; done < file.size;) {
      const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(buffer_.size(), file.size - done));
      auto got = read_content(source_, file, done, std::span(buffer_).first(want));
      if (!got || *got == 0) {
        const bool missing_zlib = !got && got.error().code() == ErrorCode::Unsupported;
        if (missing_zlib) {
          warn(file.extents().front().offset, path_, got.error().reason());
        } else {
          error(file.extents().front().offset, path_, got ? "ends early" : got.error().reason());
        }
        return;
      }
      done += *got;
      report_.bytes += *got;
    }
  }

  /// Its index and what it points to; the zeros between are not worth reading.
  void check_sparse(const IsoEntry& file) {
    class Reader final : public SparseParts {
     public:
      Reader(Verifier& verifier, const IsoEntry& entry) : verifier_(verifier), file_(entry) {}
      Result<void> data(std::uint64_t, std::uint64_t stored, std::uint64_t size) override {
        std::vector<std::byte>& buffer = verifier_.buffer_;
        buffer.resize(static_cast<std::size_t>(std::clamp<std::uint64_t>(size, buffer.size(), 1 * kMiB)));
        for (std::uint64_t done = 0; done < size;) {
          const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), size - done));
          auto got = read_stored(verifier_.source_, file_, stored + done, std::span(buffer).first(want));
          if (!got) return fail(std::move(got.error()));
          done += want;
          verifier_.report_.bytes += want;
        }
        return {};
      }

     private:
      Verifier& verifier_;
      const IsoEntry& file_;
    } reader(*this, file);
    if (auto done = visit_sparse(source_, file, 0, file.size, reader); !done) {
      error(file.extents().front().offset, path_, done.error().reason());
    }
  }

  /// Both tables list every directory once, with the same places (ECMA-119 9.4).
  void check_path_tables(const Tree& tree) {
    const auto read_table = [&](std::uint32_t block, bool big) -> std::optional<std::vector<std::uint64_t>> {
      const std::uint64_t offset = static_cast<std::uint64_t>(block) * tree.block_size;
      const std::string where = std::string(to_string(tree.kind)) + (big ? " type M path table" : " type L path table");
      if (block == 0) return std::nullopt;
      if (tree.path_table_size > 64 * kMiB || !within(offset, tree.path_table_size, source_.size())) {
        error(offset, where, "is not in the image");
        return std::nullopt;
      }
      std::vector<std::byte> table(tree.path_table_size);
      if (!source_.read(offset, table)) return std::nullopt;
      std::vector<std::uint64_t> places;
      for (std::size_t at = 0; at + 8 < table.size();) {
        const std::size_t name = u8(table, at);
        if (name == 0 || at + 8 + name > table.size()) {
          error(offset + at, where, "damaged record");
          return std::nullopt;
        }
        const std::uint64_t first = big ? be32(table, at + 2) : le32(table, at + 2);
        places.push_back((first + u8(table, at + 1)) * tree.block_size);
        if (!std::ranges::binary_search(directories_, places.back())) {
          error(offset + at + 2, where,
                "names a directory at " + at_byte(places.back()) + " that the tree does not have");
        }
        at += 8 + name + name % 2;
      }
      if (places.size() < directories_.size()) {
        warn(offset, where,
             "lists " + std::to_string(places.size()) + " of " + std::to_string(directories_.size()) + " directories");
      }
      return places;
    };
    const auto little = read_table(tree.path_table_little, false);
    const auto big = read_table(tree.path_table_big, true);
    if (little && big && *little != *big) {
      error(static_cast<std::uint64_t>(tree.path_table_big) * tree.block_size, "path tables",
            "the two byte orders' tables disagree");
    }
  }

  /// The same extent may be listed often (hard links, several trees); half of another's is damage.
  void check_overlaps() {
    std::ranges::sort(placed_, [](const Placed& a, const Placed& b) {
      return a.extent.offset != b.extent.offset ? a.extent.offset < b.extent.offset : a.extent.size > b.extent.size;
    });
    const Placed* before = nullptr;
    for (const Placed& place : placed_) {
      if (place.extent.size == 0) continue;
      if (before != nullptr && place.extent.offset < before->extent.offset + before->extent.size &&
          place.extent != before->extent) {
        const std::string what =
            "the extent at " + at_byte(place.extent.offset) + " overlaps the one at " + at_byte(before->extent.offset);
        if (place.directory || before->directory) {
          error(place.record, "extents", what);
        } else if (place.extent.offset != before->extent.offset) {
          warn(place.record, "extents", what);
        }
      }
      if (before == nullptr || place.extent.offset + place.extent.size > before->extent.offset + before->extent.size)
        before = &place;
    }
  }

  void check_catalog(const IsoBootCatalog& catalog) {
    if (!catalog.checksum_ok) error(catalog.offset, "boot catalogue", "the checksum of its validation entry is wrong");
    for (const IsoBootImage& image : catalog.images) {
      const std::uint64_t size = std::uint64_t{image.sector_count} * 512;
      if (!within(image.offset, std::max<std::uint64_t>(size, 1), source_.size())) {
        error(image.entry_offset, "boot catalogue",
              "boot image at " + at_byte(image.offset) + " is past the end of the image");
      }
    }
  }

  const SimpleIso9660::Impl& image_;
  const Source& source_;
  IsoIssueSink& sink_;
  IsoVerifyReport report_;
  std::string path_;
  bool read_content_ = true;
  std::vector<std::byte> buffer_;
  std::vector<Placed> placed_;
  std::vector<std::uint64_t> directories_;
};

}  // namespace

Result<IsoVerifyReport> iso_verify(const SimpleIso9660& image, IsoIssueSink& sink) {
  return Verifier(image.impl(), sink).run(image.boot_catalog());
}

}  // namespace vm_platform
