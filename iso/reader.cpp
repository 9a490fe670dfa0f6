#include "iso/reader.hpp"

#include <algorithm>

#include "iso/sparse.hpp"
#include "iso/text.hpp"

namespace vm_platform {

std::string_view to_string(IsoNameSpace names) noexcept {
  switch (names) {
    case IsoNameSpace::Auto: return "auto";
    case IsoNameSpace::Plain: return "plain";
    case IsoNameSpace::RockRidge: return "rock-ridge";
    case IsoNameSpace::Joliet: return "joliet";
    case IsoNameSpace::Enhanced: return "enhanced";
  }
  return "?";
}

std::string_view to_string(IsoEntryType type) noexcept {
  switch (type) {
    case IsoEntryType::File: return "file";
    case IsoEntryType::Directory: return "directory";
    case IsoEntryType::Symlink: return "symlink";
    case IsoEntryType::CharacterDevice: return "character-device";
    case IsoEntryType::BlockDevice: return "block-device";
    case IsoEntryType::Fifo: return "fifo";
    case IsoEntryType::Socket: return "socket";
  }
  return "?";
}

std::string_view to_string(IsoSectorFormat format) noexcept {
  switch (format) {
    case IsoSectorFormat::Cooked2048: return "2048";
    case IsoSectorFormat::Raw2352: return "raw-2352";
    case IsoSectorFormat::Raw2336: return "raw-2336";
  }
  return "?";
}

namespace iso {
namespace {

/// Index of the tree to use, or an error that lists what there is.
Result<std::size_t> choose_tree(const std::vector<Tree>& trees, IsoNameSpace wanted, const Source& source) {
  constexpr IsoNameSpace kBestFirst[] = {IsoNameSpace::RockRidge, IsoNameSpace::Joliet, IsoNameSpace::Enhanced,
                                         IsoNameSpace::Plain};
  const auto index_of = [&](IsoNameSpace kind) {
    return static_cast<std::size_t>(std::ranges::find(trees, kind, &Tree::kind) - trees.begin());
  };
  if (wanted == IsoNameSpace::Auto) {
    for (const IsoNameSpace kind : kBestFirst) {
      const std::size_t at = index_of(kind);
      // A tree whose root is not in the image is no choice while another is.
      if (at < trees.size() && within(trees[at].root.extents().front().offset, 1, source.size())) return at;
    }
    return std::size_t{0};
  }
  const std::size_t at = index_of(wanted);
  if (at < trees.size()) return at;
  std::string there;
  for (const Tree& tree : trees) there += (there.empty() ? "" : ", ") + std::string(to_string(tree.kind));
  return fail(
      VmError(ErrorCode::NotFound, "open image", source.name(), "has no " + std::string(to_string(wanted)) + " names")
          .with_hint("it has: " + there));
}

}  // namespace

Result<std::unique_ptr<SimpleIso9660::Impl>> open_source(std::unique_ptr<Source> source,
                                                         const IsoOpenOptions& options) {
  auto layout = detect_layout(std::move(source));
  if (!layout) return fail(std::move(layout.error()));
  auto impl = std::make_unique<SimpleIso9660::Impl>();
  impl->source = std::move(layout->source);
  impl->options = options;
  const Source& image = *impl->source;

  std::vector<IsoSession> sessions = find_sessions(image);
  std::uint64_t start = 0;
  if (options.session) {
    start = *options.session;
    if (start > image.size() / kSectorSize) {
      return fail(ErrorCode::NotFound, "open image", image.name(),
                  "no session begins at sector " + std::to_string(start));
    }
  } else if (!sessions.empty() && sessions.front().start_block != 32) {
    start = sessions.back().start_block;  // where the first was kept at 32, sector 16 describes the newest
  }
  auto volume = read_volume(image, start);
  if (!volume) return fail(std::move(volume.error()));
  impl->info = std::move(volume->info);
  impl->trees = std::move(volume->trees);
  impl->boot_catalog = volume->boot_catalog;
  impl->info.sector_format = layout->format;
  impl->info.sessions = std::move(sessions);
  impl->info.partitions = find_partitions(image);
  auto active = choose_tree(impl->trees, options.names, image);
  if (!active) return fail(std::move(active.error()));
  impl->active = *active;
  impl->info.names = impl->tree().kind;
  impl->info.block_size = impl->tree().block_size;
  return impl;
}

Result<void> check_readable(const IsoEntry& file) {
  const auto refuse = [&](ErrorCode code, const char* why) { return fail(code, "read", "'" + file.name + "'", why); };
  if (file.is_directory()) return refuse(ErrorCode::InvalidArgument, "is a directory");
  if (!file.is_file()) return refuse(ErrorCode::InvalidArgument, "is not a regular file");
  if (file.interleaved) return refuse(ErrorCode::Unsupported, "is recorded in interleaved mode");
  if (file.sparse_depth == kUnreadableSparse)
    return refuse(ErrorCode::Corrupt, "its sparse file field (Rock Ridge SF) is damaged");
  return {};
}

Result<std::size_t> read_stored(const Source& source, const IsoEntry& file, std::uint64_t offset,
                                std::span<std::byte> into) {
  std::size_t done = 0;
  for (const IsoExtent& extent : file.extents()) {
    if (done == into.size()) break;
    if (offset >= extent.size) {
      offset -= extent.size;
      continue;
    }
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(into.size() - done, extent.size - offset));
    if (auto got = source.read(extent.offset + offset, into.subspan(done, size)); !got)
      return fail(std::move(got.error()));
    done += size;
    offset = 0;
  }
  return done;
}

Result<std::size_t> read_content(const Source& source, const IsoEntry& file, std::uint64_t offset,
                                 std::span<std::byte> into) {
  if (file.zisofs.block_log2 != 0) return read_zisofs(source, file, offset, into);
  if (file.sparse_depth != 0) return read_sparse(source, file, offset, into);
  return read_stored(source, file, offset, into);
}

}  // namespace iso

SimpleIso9660::SimpleIso9660(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SimpleIso9660::SimpleIso9660(SimpleIso9660&&) noexcept = default;
SimpleIso9660& SimpleIso9660::operator=(SimpleIso9660&&) noexcept = default;
SimpleIso9660::~SimpleIso9660() = default;

Result<SimpleIso9660> SimpleIso9660::open(const std::string& path, const IsoOpenOptions& options) {
  auto source = iso::open_file_source(path);
  if (!source) return fail(std::move(source.error()));
  auto impl = iso::open_source(std::move(*source), options);
  if (!impl) return fail(std::move(impl.error()));
  return SimpleIso9660(std::move(*impl));
}

Result<SimpleIso9660> SimpleIso9660::open_descriptor(int descriptor, const IsoOpenOptions& options) {
  auto source = iso::open_descriptor_source(descriptor);
  if (!source) return fail(std::move(source.error()));
  auto impl = iso::open_source(std::move(*source), options);
  if (!impl) return fail(std::move(impl.error()));
  return SimpleIso9660(std::move(*impl));
}

Result<SimpleIso9660> SimpleIso9660::open_memory(std::span<const std::byte> image, const IsoOpenOptions& options) {
  auto impl = iso::open_source(iso::make_memory_source(image), options);
  if (!impl) return fail(std::move(impl.error()));
  return SimpleIso9660(std::move(*impl));
}

const IsoVolumeInfo& SimpleIso9660::volume() const noexcept { return impl_->info; }
const IsoEntry& SimpleIso9660::root() const noexcept { return impl_->tree().root; }

Result<IsoEntry> SimpleIso9660::find(std::string_view path, IsoFollow follow, IsoCase letters) const {
  return iso::lookup(*impl_, path, follow, letters);
}

Result<IsoDirectory> SimpleIso9660::open_directory(const IsoEntry& directory) const {
  if (!directory.is_directory()) {
    return fail(ErrorCode::InvalidArgument, "list", "'" + directory.name + "'", "is not a directory");
  }
  return IsoDirectory(
      std::make_unique<iso::DirectoryCursor>(*impl_->source, impl_->tree(), directory, impl_->options.decompress));
}

Result<std::size_t> SimpleIso9660::read(const IsoEntry& file, std::uint64_t offset, std::span<std::byte> into) const {
  if (auto ok = iso::check_readable(file); !ok) return fail(std::move(ok.error()));
  if (offset >= file.size) return std::size_t{0};
  into = into.first(static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), file.size - offset)));
  return iso::read_content(*impl_->source, file, offset, into);
}

Result<std::span<const std::byte>> SimpleIso9660::view(const IsoEntry& file) const {
  if (auto ok = iso::check_readable(file); !ok) return fail(std::move(ok.error()));
  if (file.extents().size() != 1 || !iso::stored_plainly(file)) {
    return fail(VmError(ErrorCode::Unsupported, "view", "'" + file.name + "'",
                        file.zisofs.block_log2 != 0 ? "is compressed"
                        : file.sparse_depth != 0    ? "is sparse"
                                                    : "is in several extents")
                    .with_hint("use read"));
  }
  return impl_->source->view(file.extents().front().offset, file.size);
}

Result<std::size_t> SimpleIso9660::read_image(std::uint64_t offset, std::span<std::byte> into) const {
  const std::uint64_t size = impl_->source->size();
  if (offset >= size) return std::size_t{0};
  into = into.first(static_cast<std::size_t>(std::min<std::uint64_t>(into.size(), size - offset)));
  if (auto done = impl_->source->read(offset, into); !done) return fail(std::move(done.error()));
  return into.size();
}

Result<IsoBootCatalog> SimpleIso9660::boot_catalog() const {
  if (!impl_->boot_catalog) {
    return fail(ErrorCode::NotFound, "read boot catalogue", impl_->source->name(), "the image has none (El Torito)");
  }
  return iso::read_boot_catalog(*impl_->source, *impl_->boot_catalog);
}

Result<IsoExtendedAttributes> SimpleIso9660::extended_attributes(const IsoEntry& file) const {
  const std::uint64_t size = static_cast<std::uint64_t>(file.extended_attribute_blocks) * impl_->tree().block_size;
  const std::uint64_t data = file.extents().front().offset;
  if (size == 0 || size > data) {
    return fail(ErrorCode::NotFound, "read extended attributes", "'" + file.name + "'", "it has none");
  }
  std::array<std::byte, 250> b{};
  if (auto done = impl_->source->read(data - size, b); !done) return fail(std::move(done.error()));
  IsoExtendedAttributes attributes;
  attributes.owner = iso::le16(b, 0);
  attributes.group = iso::le16(b, 4);
  attributes.permissions = iso::be16(b, 8);
  attributes.created = iso::long_time(iso::Bytes(b).subspan(10, 17));
  attributes.modified = iso::long_time(iso::Bytes(b).subspan(27, 17));
  attributes.expires = iso::long_time(iso::Bytes(b).subspan(44, 17));
  attributes.effective = iso::long_time(iso::Bytes(b).subspan(61, 17));
  attributes.record_format = iso::u8(b, 78);
  attributes.record_attributes = iso::u8(b, 79);
  attributes.record_length = iso::le16(b, 80);
  attributes.system_id = iso::padded_text(iso::Bytes(b).subspan(84, 32), false);
  return attributes;
}

Result<std::vector<std::byte>> Iso9660::read_all(const IsoEntry& file, std::uint64_t limit) const {
  if (file.size > limit) {
    return fail(ErrorCode::InvalidArgument, "read", "'" + file.name + "'",
                std::to_string(file.size) + " bytes are more than the limit of " + std::to_string(limit));
  }
  // Grown as the bytes come: the size is the image's claim, and memory is not reserved on its word alone.
  std::vector<std::byte> bytes;
  constexpr std::uint64_t kStep = 16 * kMiB;
  while (bytes.size() < file.size) {
    const std::size_t have = bytes.size();
    bytes.resize(have + static_cast<std::size_t>(std::min(kStep, file.size - have)));
    auto got = read(file, have, std::span(bytes).subspan(have));
    if (!got) return fail(std::move(got.error()));
    if (*got == 0) {
      return fail(ErrorCode::Corrupt, "read", "'" + file.name + "'",
                  "ends after " + std::to_string(have) + " of " + std::to_string(file.size) + " bytes");
    }
    bytes.resize(have + *got);
  }
  return bytes;
}

}  // namespace vm_platform
