// What kind of file this is: sectors of 2048 bytes, sectors with their headers, or something else that deserves its
// name.
#include <algorithm>
#include <array>
#include <optional>

#include "iso/volume.hpp"

namespace vm_platform::iso {
namespace {

/// The first bytes of each raw sector (ECMA-130 14.1).
constexpr std::array<std::uint8_t, 12> kSync = {0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0};

template <std::size_t kSize>
std::optional<std::array<std::byte, kSize>> peek(const Source& source, std::uint64_t offset) {
  std::array<std::byte, kSize> bytes{};
  if (!within(offset, kSize, source.size()) || !source.read(offset, bytes)) return std::nullopt;
  return bytes;
}

bool has_text(const Source& source, std::uint64_t offset, std::string_view wanted) {
  std::array<std::byte, 16> bytes{};
  const auto head = std::span(bytes).first(wanted.size());
  return within(offset, head.size(), source.size()) && source.read(offset, head) &&
         text(head, 0, head.size()) == wanted;
}

bool has_sync(const Source& source, std::uint64_t offset) {
  const auto bytes = peek<12>(source, offset);
  return bytes && std::equal(kSync.begin(), kSync.end(), bytes->begin(),
                             [](std::uint8_t a, std::byte b) { return std::byte{a} == b; });
}

struct Known {
  std::string_view magic;
  std::uint64_t offset;
  const char* what;
  const char* fix;
};
using namespace std::string_view_literals;
constexpr Known kOthers[] = {
    {"\x1F\x8B"sv, 0, "is compressed with gzip", "decompress it first: gunzip"},
    {"\xFD\x37zXZ\0"sv, 0, "is compressed with xz", "decompress it first: unxz"},
    {"\x28\xB5\x2F\xFD"sv, 0, "is compressed with zstd", "decompress it first: unzstd"},
    {"BZh"sv, 0, "is compressed with bzip2", "decompress it first: bunzip2"},
    {"PK\x03\x04"sv, 0, "is a ZIP archive", "unpack it first: unzip"},
    {"7z\xBC\xAF\x27\x1C"sv, 0, "is a 7z archive", "unpack it first: 7z x"},
    {"CISO"sv, 0, "is a compressed CISO image", "convert it to a plain image first"},
    {"ZISO"sv, 0, "is a compressed ZSO image", "convert it to a plain image first"},
    {"DAA\0"sv, 0, "is a PowerISO (DAA) image", "convert it to a plain image first"},
    {"MEDIA DESCRIPTOR"sv, 0, "is the descriptor of an Alcohol 120% image", "give the .mdf file beside it"},
    {"QFI\xFB"sv, 0, "is a qcow2 disk image", "it holds a disk, not a disc"},
    {"\x7F"
     "ELF"sv,
     0, "is an ELF file", "give a disc image"},
    {"FILE "sv, 0, "looks like a CUE sheet", "give the .bin file that it names"},
};

std::unexpected<VmError> not_an_image(const Source& source) {
  const auto refuse = [&](ErrorCode code, const char* what, const char* fix) {
    return fail(VmError(code, "open image", source.name(), what).with_hint(fix));
  };
  for (const Known& known : kOthers) {
    if (has_text(source, known.offset, known.magic)) return refuse(ErrorCode::Unsupported, known.what, known.fix);
  }
  const std::uint64_t size = source.size();
  if (size >= 12 && (has_text(source, size - 12, "NER5") || has_text(source, size - 8, "NERO"))) {
    return refuse(ErrorCode::Unsupported, "is a Nero image (.nrg)", "convert it to a plain image first: nrg2iso");
  }
  if (size >= 512 && has_text(source, size - 512, "koly")) {
    return refuse(ErrorCode::Unsupported, "is an Apple disk image (.dmg)",
                  "convert it to a plain image first: dmg2img");
  }
  if (has_text(source, 32768 + 9, "CDROM")) {
    return refuse(ErrorCode::Unsupported, "is in High Sierra format, the forerunner of ISO 9660",
                  "there is no reader for it here");
  }
  if (has_udf(source, 16)) {
    return refuse(ErrorCode::Unsupported, "is a UDF image without an ISO 9660 side",
                  "mount it (mount -t udf) or unpack it with 7z");
  }
  if (size < 17 * kSectorSize) {
    return refuse(ErrorCode::Corrupt, "is too short for a disc image",
                  "an image has at least 17 sectors of 2048 bytes");
  }
  return refuse(ErrorCode::Corrupt, "is not a disc image: no volume descriptor at byte 32768",
                "check that the download is complete and that this is an .iso file");
}

}  // namespace

Result<Layout> detect_layout(std::unique_ptr<Source> source) {
  constexpr std::uint64_t kDescriptor = 16;
  if (has_text(*source, kDescriptor * 2048 + 1, "CD001")) return Layout{std::move(source), IsoSectorFormat::Cooked2048};
  if (has_sync(*source, 0)) {
    if (has_sync(*source, 2448)) {
      return fail(VmError(ErrorCode::Unsupported, "open image", source->name(),
                          "has sectors of 2448 bytes: raw sectors with subchannel data")
                      .with_hint("convert it to 2048 or 2352 bytes a sector first"));
    }
    const auto header = peek<16>(*source, 0);
    const std::uint8_t mode = header ? u8(*header, 15) : std::uint8_t{0};
    if (mode != 1 && mode != 2) {
      return fail(ErrorCode::Unsupported, "open image", source->name(),
                  "has raw sectors of mode " + std::to_string(mode) + ", which hold no data");
    }
    auto cooked = make_raw_sector_source(std::move(source), 2352, mode == 1 ? 16 : 24);
    if (has_text(*cooked, kDescriptor * 2048 + 1, "CD001")) return Layout{std::move(cooked), IsoSectorFormat::Raw2352};
    return not_an_image(*cooked);
  }
  if (has_text(*source, kDescriptor * 2336 + 8 + 1, "CD001")) {
    return Layout{make_raw_sector_source(std::move(source), 2336, 8), IsoSectorFormat::Raw2336};
  }
  return not_an_image(*source);
}

}  // namespace vm_platform::iso
