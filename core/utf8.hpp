// Where UTF-8 is valid (The Unicode Standard, table 3-7).
#pragma once

#include <cstddef>
#include <string_view>

namespace vm_platform {

/// Bytes of the character that `text`, which is not empty, begins with; 0 where that is not valid UTF-8: overlong
/// forms, surrogates, what is past U+10FFFF, or cut short.
[[nodiscard]] std::size_t utf8_length(std::string_view text) noexcept;

}  // namespace vm_platform
