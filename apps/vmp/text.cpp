#include "apps/vmp/text.hpp"

#include "core/utf8.hpp"

namespace vm_platform::vmp {
namespace {

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
    const std::size_t length = utf8_length(rest);
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
