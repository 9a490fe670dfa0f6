#include "apps/vmp/text.hpp"

namespace vm_platform::vmp {
namespace {

/// Length of the character at the start of `text`, 0 if it is not UTF-8 (The Unicode Standard, table 3-7).
std::size_t character_length(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
  if (length == 0 || length > text.size()) return 0;
  // Overlong forms, surrogates and what is past U+10FFFF show in the second byte.
  const unsigned char least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (at(1) < least || at(1) > most) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if ((at(i) & 0xC0) != 0x80) return 0;
  }
  return length;
}

bool is_control(std::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  return first < 0x20 || first == 0x7F || (first == 0xC2 && static_cast<unsigned char>(character[1]) < 0xA0);
}

std::string shown(std::string_view text, bool newlines_stay) {
  std::string result;
  while (!text.empty()) {
    const TextRun run = next_run(text);
    const std::string_view bytes = text.substr(0, run.length);
    if (run.kind == TextKind::Plain || (newlines_stay && bytes == "\n")) {
      result += bytes;
    } else {
      for (const char byte : bytes) result += "\\x" + hex_digits(byte);
    }
    text.remove_prefix(run.length);
  }
  return result;
}

}  // namespace

TextRun next_run(std::string_view text) {
  std::size_t plain = 0;
  while (plain < text.size()) {
    const std::string_view rest = text.substr(plain);
    const std::size_t length = character_length(rest);
    if (length != 0 && !is_control(rest)) {
      plain += length;
      continue;
    }
    if (plain != 0) break;
    return length == 0 ? TextRun{TextKind::NotUtf8, 1} : TextRun{TextKind::Control, length};
  }
  return {TextKind::Plain, plain};
}

std::string printable(std::string_view text) { return shown(text, false); }
std::string printable_lines(std::string_view text) { return shown(text, true); }

std::string hex_digits(char byte) {
  constexpr char kDigits[] = "0123456789abcdef";
  const auto value = static_cast<unsigned char>(byte);
  return {kDigits[value >> 4], kDigits[value & 15]};
}

}  // namespace vm_platform::vmp
