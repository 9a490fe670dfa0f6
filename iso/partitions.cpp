#include <algorithm>

#include "iso/text.hpp"
#include "iso/volume.hpp"

namespace vm_platform::iso {
namespace {

constexpr char kHex[] = "0123456789abcdef";

std::string hex(Bytes b) {
  std::string out;
  for (std::size_t i = 0; i < b.size(); ++i) {
    out += kHex[u8(b, i) >> 4];
    out += kHex[u8(b, i) & 15];
  }
  return out;
}

/// Mixed-endian text form of a GUID (UEFI appendix A).
std::string guid(Bytes b) {
  std::array<std::byte, 16> swapped{};
  constexpr std::size_t kOrder[] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  for (std::size_t i = 0; i < 16; ++i) swapped[i] = b[kOrder[i]];
  std::string out = hex(swapped);
  for (const std::size_t at : {8u, 13u, 18u, 23u}) out.insert(at, "-");
  return out;
}

void find_mbr(const Source& source, std::vector<IsoPartition>& found) {
  std::array<std::byte, 512> sector{};
  if (!source.read(0, sector) || u8(sector, 510) != 0x55 || u8(sector, 511) != 0xAA) return;
  for (std::size_t i = 0; i < 4; ++i) {
    const Bytes entry = Bytes(sector).subspan(446 + 16 * i, 16);
    const std::uint8_t status = u8(entry, 0);
    if (u8(entry, 4) == 0 || le32(entry, 12) == 0 || (status != 0 && status != 0x80)) continue;
    IsoPartition partition;
    partition.scheme = "mbr";
    partition.type = "0x" + hex(entry.subspan(4, 1));
    partition.active = status == 0x80;
    partition.offset = le32(entry, 8) * std::uint64_t{512};
    partition.size = le32(entry, 12) * std::uint64_t{512};
    found.push_back(std::move(partition));
  }
}

void find_gpt(const Source& source, std::vector<IsoPartition>& found) {
  std::array<std::byte, 512> header{};
  if (!source.read(512, header) || text(header, 0, 8) != "EFI PART") return;
  const std::uint64_t table = le64(header, 72);
  const std::uint32_t count = std::min<std::uint32_t>(le32(header, 80), 128), size = le32(header, 84);
  if (size < 128 || size > 4096 || table > source.size() / 512) return;
  for (std::uint32_t i = 0; i < count; ++i) {
    std::array<std::byte, 128> entry{};
    if (!source.read(table * 512 + static_cast<std::uint64_t>(i) * size, entry)) return;
    if (std::ranges::all_of(Bytes(entry).first(16), [](std::byte b) { return b == std::byte{0}; })) continue;
    IsoPartition partition;
    partition.scheme = "gpt";
    partition.type = guid(entry);
    const std::uint64_t first = le64(entry, 32), last = le64(entry, 40);
    if (first > last || last > UINT64_MAX / 1024) continue;
    partition.offset = first * 512;
    partition.size = (last - first + 1) * 512;
    for (std::size_t at = 56; at + 1 < 128 && le16(entry, at) != 0; at += 2) {
      const std::uint16_t c = le16(entry, at);
      append_utf8(partition.name, c >= 0xD800 && c < 0xE000 ? U'\uFFFD' : c);
    }
    found.push_back(std::move(partition));
  }
}

void find_apple(const Source& source, std::vector<IsoPartition>& found) {
  std::array<std::byte, 512> block{};
  // Hybrid images have blocks of 512 or 2048 bytes.
  for (const std::uint64_t unit : {512u, 2048u}) {
    if (!source.read(unit, block) || text(block, 0, 2) != "PM") continue;
    const std::uint32_t count = std::min<std::uint32_t>(be32(block, 4), 64);
    for (std::uint32_t i = 0; i < count; ++i) {
      if (!source.read(unit * (i + 1), block) || text(block, 0, 2) != "PM") return;
      const auto field = [&](std::size_t at) {
        std::string value = padded_text(Bytes(block).subspan(at, 32), false);
        return value.substr(0, value.find('\0'));
      };
      found.push_back({"apm", field(48), field(16), be32(block, 8) * unit, be32(block, 12) * unit, false});
    }
    return;
  }
}

}  // namespace

std::vector<IsoPartition> find_partitions(const Source& source) {
  std::vector<IsoPartition> found;
  find_mbr(source, found);
  find_gpt(source, found);
  find_apple(source, found);
  return found;
}

}  // namespace vm_platform::iso
