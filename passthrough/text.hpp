// Small helpers for text that the kernel and dumps give us.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace vm_platform::text {

/// All of `text` as a number of the given base (an "0x" in front is accepted for base 16).
template <typename T = std::uint64_t>
std::optional<T> number(std::string_view text, int base = 10) {
  if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) text.remove_prefix(2);
  T value{};
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (status != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

constexpr bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

inline std::string_view trim(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

/// The part before the next `separator`; `rest` moves past it.
inline std::string_view take(std::string_view& rest, char separator) {
  const auto end = rest.find(separator);
  const std::string_view part = rest.substr(0, end);
  rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
  return part;
}

/// Parts between runs of blanks.
inline std::vector<std::string_view> words(std::string_view line) {
  std::vector<std::string_view> parts;
  while (!(line = trim(line)).empty()) {
    const auto end = static_cast<std::size_t>(std::ranges::find_if(line, is_blank) - line.begin());
    parts.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
  return parts;
}

}  // namespace vm_platform::text
