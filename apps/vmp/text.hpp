// Text from outside (names in images, titles of boot menus, arguments) as it can be shown: none of it drives the
// terminal that it is shown on, now or when a log is looked at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace vm_platform::vmp {

enum class TextKind : std::uint8_t {
  Plain,    ///< As many characters as can be shown as they are.
  Control,  ///< One control character: below 0x20, 0x7F, or U+0080 to U+009F (the C1 set, two bytes in UTF-8).
  NotUtf8,  ///< One byte that no UTF-8 has here. Terminals that are not set to UTF-8 take 0x80 to 0x9F for controls.
};
struct TextRun {
  TextKind kind;
  std::size_t length;  ///< Bytes, 1 or more.
};
/// What `text`, which is not empty, begins with.
[[nodiscard]] TextRun next_run(std::string_view text);

/// `text` with every byte of what is not plain as `\x1b`; newlines too.
[[nodiscard]] std::string printable(std::string_view text);
/// The same, but newlines stay: for text whose lines are ours.
[[nodiscard]] std::string printable_lines(std::string_view text);

/// The two hexadecimal digits of a byte.
[[nodiscard]] std::string hex_digits(char byte);

}  // namespace vm_platform::vmp
