// Numbers as ISO 9660 records them: little-endian, big-endian, and both one after the other (ECMA-119 section 7).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace vm_platform::iso {

using Bytes = std::span<const std::byte>;

[[nodiscard]] inline std::uint8_t u8(Bytes b, std::size_t at) { return std::to_integer<std::uint8_t>(b[at]); }
[[nodiscard]] inline std::uint16_t le16(Bytes b, std::size_t at) {
  return static_cast<std::uint16_t>(u8(b, at) | (u8(b, at + 1) << 8));
}
[[nodiscard]] inline std::uint16_t be16(Bytes b, std::size_t at) {
  return static_cast<std::uint16_t>((u8(b, at) << 8) | u8(b, at + 1));
}
[[nodiscard]] inline std::uint32_t le32(Bytes b, std::size_t at) {
  return static_cast<std::uint32_t>(le16(b, at)) | (static_cast<std::uint32_t>(le16(b, at + 2)) << 16);
}
[[nodiscard]] inline std::uint32_t be32(Bytes b, std::size_t at) {
  return (static_cast<std::uint32_t>(be16(b, at)) << 16) | be16(b, at + 2);
}
[[nodiscard]] inline std::uint64_t le64(Bytes b, std::size_t at) {
  return le32(b, at) | (static_cast<std::uint64_t>(le32(b, at + 4)) << 32);
}

/// A both-endian pair is read by its little-endian half, as every reader does; whether the halves agree is verify's
/// concern.
[[nodiscard]] inline bool both16_agree(Bytes b, std::size_t at) { return le16(b, at) == be16(b, at + 2); }
[[nodiscard]] inline bool both32_agree(Bytes b, std::size_t at) { return le32(b, at) == be32(b, at + 4); }

[[nodiscard]] inline std::string_view text(Bytes b, std::size_t at, std::size_t size) {
  return {reinterpret_cast<const char*>(b.data()) + at, size};
}

/// "byte 34816" for error messages.
[[nodiscard]] inline std::string at_byte(std::uint64_t offset) { return "byte " + std::to_string(offset); }

}  // namespace vm_platform::iso
