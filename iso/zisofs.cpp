// zisofs: files stored in compressed blocks behind a table of pointers. Version 1 (mkzftree) has 32-bit pointers,
// version 2 64-bit ones; both compress with zlib.
#include <algorithm>
#include <array>
#include <cstring>

#include "iso/reader.hpp"

#ifdef VM_PLATFORM_HAVE_ZLIB
#include <zlib.h>
#endif

namespace vm_platform::iso {

#ifdef VM_PLATFORM_HAVE_ZLIB
namespace {

constexpr std::array<std::uint8_t, 8> kMagic1 = {0x37, 0xE4, 0x53, 0x96, 0xC9, 0xDB, 0xD6, 0x07};
constexpr std::array<std::uint8_t, 8> kMagic2 = {0xEF, 0x22, 0x55, 0xA1, 0xBC, 0x1B, 0x95, 0xA0};

std::unexpected<VmError> damaged(const IsoEntry& file, const std::string& why) {
  return fail(ErrorCode::Corrupt, "decompress", "'" + file.name + "'", why);
}

/// All of `into`, or an error.
Result<void> read_exactly(const Source& source, const IsoEntry& file, std::uint64_t offset, std::span<std::byte> into) {
  auto got = read_stored(source, file, offset, into);
  if (!got) return fail(std::move(got.error()));
  if (*got != into.size()) return damaged(file, "the stored data end early");
  return {};
}

Result<void> check_header(const Source& source, const IsoEntry& file) {
  std::array<std::byte, 24> header{};
  const bool v2 = file.zisofs.version2;
  if (auto done = read_exactly(source, file, 0, std::span(header).first(v2 ? 24 : 16)); !done) return done;
  const auto& magic = v2 ? kMagic2 : kMagic1;
  if (std::memcmp(header.data(), magic.data(), magic.size()) != 0) return damaged(file, "no zisofs header");
  const std::uint64_t size = v2 ? le64(header, 12) : le32(header, 8);
  const std::uint8_t words = u8(header, v2 ? 9 : 12), log2 = u8(header, v2 ? 11 : 13);
  if (size != file.size || words != file.zisofs.header_size_div4 || log2 != file.zisofs.block_log2 || words < 4) {
    return damaged(file, "the zisofs header and the directory record disagree");
  }
  if (v2 && u8(header, 10) != 1) return damaged(file, "the zisofs header names another compressor than zlib");
  return {};
}

/// Pointers to the start of `block` and to its end.
Result<std::array<std::uint64_t, 2>> block_bounds(const Source& source, const IsoEntry& file, std::uint64_t block) {
  const std::size_t width = file.zisofs.version2 ? 8 : 4;
  std::array<std::byte, 16> pointers{};
  const std::uint64_t at = file.zisofs.header_size_div4 * std::uint64_t{4} + block * width;
  if (auto done = read_exactly(source, file, at, std::span(pointers).first(2 * width)); !done) {
    return fail(std::move(done.error()));
  }
  std::array<std::uint64_t, 2> bounds{};
  for (std::size_t i = 0; i < 2; ++i) bounds[i] = width == 8 ? le64(pointers, i * 8) : le32(pointers, i * 4);
  if (bounds[0] > bounds[1] || bounds[1] > file.stored_size || bounds[1] - bounds[0] > (2u << file.zisofs.block_log2)) {
    return damaged(file, "block " + std::to_string(block) + " has impossible bounds");
  }
  return bounds;
}

/// One block into `out`, whose size is the block's.
Result<void> unpack(const Source& source, const IsoEntry& file, std::uint64_t block, std::vector<std::byte>& packed,
                    std::span<std::byte> out) {
  const auto bounds = block_bounds(source, file, block);
  if (!bounds) return fail(bounds.error());
  const auto size = static_cast<std::size_t>((*bounds)[1] - (*bounds)[0]);
  if (size == 0) {  // a block of zeros
    std::memset(out.data(), 0, out.size());
    return {};
  }
  packed.resize(size);
  if (auto done = read_exactly(source, file, (*bounds)[0], packed); !done) return done;
  uLongf length = out.size();
  const int status = ::uncompress(reinterpret_cast<Bytef*>(out.data()), &length,
                                  reinterpret_cast<const Bytef*>(packed.data()), static_cast<uLong>(size));
  if (status != Z_OK || length != out.size())
    return damaged(file, "block " + std::to_string(block) + " does not decompress");
  return {};
}

}  // namespace

Result<std::size_t> read_zisofs(const Source& source, const IsoEntry& file, std::uint64_t offset,
                                std::span<std::byte> into) {
  if (auto ok = check_header(source, file); !ok) return fail(std::move(ok.error()));
  const std::uint64_t block_size = std::uint64_t{1} << file.zisofs.block_log2;
  std::vector<std::byte> packed, whole;
  std::size_t done = 0;
  while (done < into.size()) {
    const std::uint64_t block = offset / block_size, skip = offset % block_size;
    const auto in_block = static_cast<std::size_t>(std::min(block_size, file.size - block * block_size));
    const std::size_t take = std::min(in_block - static_cast<std::size_t>(skip), into.size() - done);
    Result<void> unpacked;
    if (take == in_block) {
      unpacked = unpack(source, file, block, packed, into.subspan(done, take));
    } else {
      whole.resize(in_block);
      unpacked = unpack(source, file, block, packed, whole);
      if (unpacked) std::memcpy(into.data() + done, whole.data() + skip, take);
    }
    if (!unpacked) return fail(std::move(unpacked.error()));
    done += take;
    offset += take;
  }
  return done;
}

#else

Result<std::size_t> read_zisofs(const Source&, const IsoEntry& file, std::uint64_t, std::span<std::byte>) {
  return fail(VmError(ErrorCode::Unsupported, "decompress", "'" + file.name + "'", "this build has no zlib")
                  .with_hint("install zlib's headers (zlib1g-dev) and build again"));
}

#endif

}  // namespace vm_platform::iso
