// Option ROMs (PCI Firmware Specification 3.3, section 5.1): images one after the other, each with a header (55 AA)
// that points to a PCI data structure ("PCIR").
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vm_platform/gpu.hpp>

#include "passthrough/sysfs.hpp"

namespace vm_platform {
namespace {

using Bytes = std::span<const std::uint8_t>;
constexpr std::size_t kMaxImages = 64, kMaxRom = 32 * kMiB;

template <typename T>
T get(Bytes bytes, std::size_t offset) {
  T value{};
  if (offset <= bytes.size() && sizeof(T) <= bytes.size() - offset)
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

bool signed_at(Bytes rom, std::size_t offset) { return get<std::uint16_t>(rom, offset) == 0xaa55; }

/// One image at `offset`, or why there is none.
std::expected<RomImage, std::string> read_image(Bytes rom, std::size_t offset, std::vector<std::string>& problems) {
  if (!signed_at(rom, offset)) return std::unexpected(fmt::format("no 55 AA signature at {:#x}", offset));
  const std::size_t data = offset + get<std::uint16_t>(rom, offset + 0x18);
  if (data + 0x18 > rom.size() || std::memcmp(rom.data() + data, "PCIR", 4) != 0)
    return std::unexpected(fmt::format("the image at {:#x} has no PCI data structure", offset));
  RomImage image;
  image.offset = static_cast<std::uint32_t>(offset);
  image.size = get<std::uint16_t>(rom, data + 0x10) * 512U;
  image.vendor = get<std::uint16_t>(rom, data + 4);
  image.device = get<std::uint16_t>(rom, data + 6);
  image.class_code = get<std::uint32_t>(rom, data + 0x0c) >> 8;
  const std::uint8_t type = rom[data + 0x14];
  image.kind = type <= 3 ? static_cast<RomImage::Kind>(type) : RomImage::Kind::Other;
  image.last = (rom[data + 0x15] & 0x80) != 0;
  if (image.size == 0) return std::unexpected(fmt::format("the image at {:#x} is empty", offset));
  if (image.size > rom.size() - offset) {
    problems.push_back(
        fmt::format("the image at {:#x} is cut off: {} of {} bytes", offset, rom.size() - offset, image.size));
    return image;
  }
  const Bytes whole = rom.subspan(offset, image.size);
  if (image.kind == RomImage::Kind::Legacy) {
    image.checksum_ok = (std::accumulate(whole.begin(), whole.end(), 0U) & 0xff) == 0;
    if (!image.checksum_ok) problems.push_back(fmt::format("the legacy image at {:#x} has a wrong checksum", offset));
  }
  if (image.kind == RomImage::Kind::Uefi) {  // UEFI specification 2.10, section 14.4.2
    if (get<std::uint32_t>(whole, 4) != 0x0ef1)
      problems.push_back(fmt::format("the UEFI image at {:#x} lacks its signature", offset));
    image.uefi_machine = get<std::uint16_t>(whole, 0x0a);
    image.uefi_compressed = get<std::uint16_t>(whole, 0x0c) == 1;
  }
  if (rom[data + 0x0c] >= 3) {
    std::size_t entry = data + get<std::uint16_t>(rom, data + 8);
    for (std::size_t i = 0; entry != data && i < 256 && entry + 2 <= rom.size(); ++i, entry += 2) {
      const auto device = get<std::uint16_t>(rom, entry);
      if (device == 0) break;
      image.device_list.push_back(device);
    }
  }
  return image;
}

}  // namespace

bool OptionRom::has_uefi() const {
  return std::ranges::any_of(images, [](const RomImage& image) { return image.kind == RomImage::Kind::Uefi; });
}
bool OptionRom::has_legacy() const {
  return std::ranges::any_of(images, [](const RomImage& image) { return image.kind == RomImage::Kind::Legacy; });
}
bool OptionRom::matches(std::uint16_t vendor, std::uint16_t device) const {
  return std::ranges::any_of(images, [&](const RomImage& image) {
    return image.vendor == vendor &&
           (image.device == device || std::ranges::find(image.device_list, device) != image.device_list.end());
  });
}

Result<OptionRom> parse_option_rom(std::span<const std::uint8_t> bytes) {
  OptionRom rom;
  std::size_t offset = 0;
  if (!signed_at(bytes, 0)) {
    // A file saved by a vendor's flash tool ("NVGI" in front) has the ROM itself at some later 512-byte block.
    if (bytes.size() < 4 || std::memcmp(bytes.data(), "NVGI", 4) != 0)
      return fail(ErrorCode::Corrupt, "read option ROM", {}, "it does not start with 55 AA");
    while (offset < bytes.size() && !signed_at(bytes, offset)) offset += 512;
    if (offset >= bytes.size()) return fail(ErrorCode::Corrupt, "read option ROM", {}, "there is no 55 AA in it");
    rom.problems.push_back(
        fmt::format("a header of {} bytes is in front of it; cut it off before giving it to a guest", offset));
  }
  while (rom.images.size() < kMaxImages && offset < bytes.size()) {
    auto image = read_image(bytes, offset, rom.problems);
    if (!image) {
      if (rom.images.empty()) return fail(ErrorCode::Corrupt, "read option ROM", {}, image.error());
      rom.problems.push_back(image.error() + ", and no image before it says that it is the last");
      return rom;
    }
    rom.images.push_back(*image);
    if (image->last) return rom;
    offset += image->size;
  }
  rom.problems.emplace_back("no image says that it is the last");
  return rom;
}

Result<std::vector<std::uint8_t>> read_option_rom(PciAddress address, const std::filesystem::path& sysfs) {
  const auto file = sysfs / "bus/pci/devices" / address.to_string() / "rom";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) {
    return fail(VmError(ErrorCode::Unsupported, "read option ROM of", address.to_string(), "it has none")
                    .with_hint("get one from the maker, or from the card in another machine"));
  }
  if (auto on = write_kernel_file(file, "1", "turn on the ROM of " + address.to_string()); !on) return fail(on.error());
  auto content = read_kernel_file(file);
  auto off = write_kernel_file(file, "0", "turn off the ROM of " + address.to_string());
  if (!content) {
    return fail(
        VmError(content.error())
            .with_hint("the ROM of the display that booted is often hidden: read it in a machine that booted from "
                       "another one"));
  }
  if (!off) return fail(off.error());
  if (content->size() > kMaxRom)
    return fail(ErrorCode::Corrupt, "read option ROM of", address.to_string(), "too large");
  return std::vector<std::uint8_t>(content->begin(), content->end());
}

}  // namespace vm_platform
