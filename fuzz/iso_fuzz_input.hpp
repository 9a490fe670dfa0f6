// What the fuzz targets of the disc-image parts share: numbers off the front of the input.
#pragma once

#include <cstdint>
#include <span>

#include "iso/source.hpp"

namespace vm_platform::iso {

/// Removes up to `count` bytes from the front; a little-endian number, 0 where nothing is left.
inline std::uint64_t take_number(Bytes& input, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < count && !input.empty(); ++i, input = input.subspan(1)) {
    value |= static_cast<std::uint64_t>(u8(input, 0)) << (8 * i);
  }
  return value;
}

}  // namespace vm_platform::iso
