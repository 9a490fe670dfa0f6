// The boot catalogue ("El Torito" Bootable CD-ROM Format Specification 1.0, section 2).
#include <algorithm>

#include "iso/reader.hpp"
#include "iso/text.hpp"

namespace vm_platform {

std::string_view to_string(IsoBootImage::Emulation emulation) noexcept {
  switch (emulation) {
    case IsoBootImage::Emulation::None: return "none";
    case IsoBootImage::Emulation::Floppy1200: return "floppy-1.2M";
    case IsoBootImage::Emulation::Floppy1440: return "floppy-1.44M";
    case IsoBootImage::Emulation::Floppy2880: return "floppy-2.88M";
    case IsoBootImage::Emulation::HardDisk: return "hard-disk";
  }
  return "?";
}

std::string iso_boot_platform_name(std::uint8_t platform) {
  switch (platform) {
    case 0: return "x86";
    case 1: return "PowerPC";
    case 2: return "Mac";
    case 0xEF: return "EFI";
    default: {
      constexpr char kHex[] = "0123456789abcdef";
      return std::string("platform 0x") + kHex[platform >> 4] + kHex[platform & 15];
    }
  }
}

namespace iso {
namespace {

constexpr std::size_t kEntrySize = 32;
/// One sector of entries is usual; the format allows more, up to here.
constexpr std::size_t kMaxEntries = 2048;

/// False for a reserved emulation type.
bool read_image(Bytes entry, std::uint64_t offset, std::uint8_t platform, IsoBootImage& image) {
  image.entry_offset = offset;
  image.platform = platform;
  image.bootable = u8(entry, 0) == 0x88;
  const unsigned media = u8(entry, 1) & 0x0F;
  image.load_segment = le16(entry, 2);
  image.system_type = u8(entry, 4);
  image.sector_count = le16(entry, 6);
  image.offset = static_cast<std::uint64_t>(le32(entry, 8)) * kSectorSize;
  if (media > 4) return false;
  image.emulation = static_cast<IsoBootImage::Emulation>(media);
  return true;
}

}  // namespace

Result<IsoBootCatalog> read_boot_catalog(const Source& source, std::uint64_t offset) {
  IsoBootCatalog catalog;
  catalog.offset = offset;
  std::array<std::byte, kEntrySize> entry{};
  std::size_t index = 0;
  const auto damaged = [&](const char* why) {
    return fail(ErrorCode::Corrupt, "read boot catalogue", at_byte(offset + index * kEntrySize), why);
  };
  const auto read = [&]() -> Result<void> { return source.read(offset + index * kEntrySize, entry); };

  if (auto done = read(); !done) return fail(std::move(done.error()));
  if (u8(entry, 0) != 1 || u8(entry, 30) != 0x55 || u8(entry, 31) != 0xAA) return damaged("no validation entry");
  std::uint16_t sum = 0;
  for (std::size_t i = 0; i < kEntrySize; i += 2) sum = static_cast<std::uint16_t>(sum + le16(entry, i));
  catalog.checksum_ok = sum == 0;
  const std::uint8_t initial_platform = u8(entry, 1);
  catalog.id = padded_text(Bytes(entry).subspan(4, 24), false);
  catalog.id = catalog.id.substr(0, catalog.id.find('\0'));

  ++index;
  if (auto done = read(); !done) return fail(std::move(done.error()));
  IsoBootImage initial;
  if (!read_image(entry, offset + index * kEntrySize, initial_platform, initial))
    return damaged("unknown emulation type");
  catalog.images.push_back(std::move(initial));

  // Section headers: 0x90 says that more follow, 0x91 is the last.
  for (bool more = true; more;) {
    ++index;
    if (index >= kMaxEntries) return damaged("the catalogue has no end");
    if (!read()) break;  // it ends with the image
    const std::uint8_t kind = u8(entry, 0);
    if (kind != 0x90 && kind != 0x91) break;
    more = kind == 0x90;
    const std::uint8_t platform = u8(entry, 1);
    const std::uint16_t count = le16(entry, 2);
    std::string id = padded_text(Bytes(entry).subspan(4, 28), false);
    id = id.substr(0, id.find('\0'));
    for (std::uint16_t i = 0; i < count; ++i) {
      ++index;
      if (index >= kMaxEntries) return damaged("the catalogue has no end");
      if (auto done = read(); !done) return fail(std::move(done.error()));
      IsoBootImage image;
      image.section_id = id;
      if (!read_image(entry, offset + index * kEntrySize, platform, image)) return damaged("unknown emulation type");
      bool extended = (u8(entry, 1) & 0x20) != 0;
      catalog.images.push_back(std::move(image));
      while (extended) {  // 0x44: selection criteria that go on
        ++index;
        if (index >= kMaxEntries || !read() || u8(entry, 0) != 0x44) break;
        extended = (u8(entry, 1) & 0x20) != 0;
      }
    }
  }
  return catalog;
}

}  // namespace iso
}  // namespace vm_platform
