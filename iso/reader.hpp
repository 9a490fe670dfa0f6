// What SimpleIso9660 holds.
#pragma once

#include "iso/volume.hpp"

namespace vm_platform {

struct SimpleIso9660::Impl {
  std::unique_ptr<iso::Source> source;
  IsoOpenOptions options;
  IsoVolumeInfo info;
  std::vector<iso::Tree> trees;
  std::size_t active = 0;
  std::optional<std::uint64_t> boot_catalog;

  [[nodiscard]] const iso::Tree& tree() const { return trees[active]; }
};

namespace iso {

[[nodiscard]] Result<std::unique_ptr<SimpleIso9660::Impl>> open_source(std::unique_ptr<Source> source,
                                                                       const IsoOpenOptions& options);
/// Walks `path` from the root of the active tree.
[[nodiscard]] Result<IsoEntry> lookup(const SimpleIso9660::Impl& image, std::string_view path, IsoFollow follow,
                                      IsoCase letters);
/// Why a file's content can't be read at all, if it can't.
[[nodiscard]] Result<void> check_readable(const IsoEntry& file);
/// Stored bytes of a file, as `Iso9660::read`.
[[nodiscard]] Result<std::size_t> read_stored(const Source& source, const IsoEntry& file, std::uint64_t offset,
                                              std::span<std::byte> into);
/// Uncompressed bytes of a zisofs file.
[[nodiscard]] Result<std::size_t> read_zisofs(const Source& source, const IsoEntry& file, std::uint64_t offset,
                                              std::span<std::byte> into);
/// Bytes of a sparse file, zeros included.
[[nodiscard]] Result<std::size_t> read_sparse(const Source& source, const IsoEntry& file, std::uint64_t offset,
                                              std::span<std::byte> into);
/// Bytes of any file that `check_readable` lets pass; `into` lies within the file.
[[nodiscard]] Result<std::size_t> read_content(const Source& source, const IsoEntry& file, std::uint64_t offset,
                                               std::span<std::byte> into);
/// Whether a file's bytes are in its extents one after the other.
[[nodiscard]] inline bool stored_plainly(const IsoEntry& file) {
  return file.zisofs.block_log2 == 0 && file.sparse_depth == 0;
}
[[nodiscard]] Result<IsoBootCatalog> read_boot_catalog(const Source& source, std::uint64_t offset);

}  // namespace iso
}  // namespace vm_platform
