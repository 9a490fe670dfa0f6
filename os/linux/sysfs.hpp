// Reading small files of sysfs and procfs.
#pragma once

#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

namespace vm_platform::sysfs {

/// The whole file without trailing newlines and blanks; nothing where it cannot be read.
inline std::optional<std::string> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) return std::nullopt;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ' || text.back() == '\0')) text.pop_back();
  return text;
}

/// A decimal number at the start of the file.
inline std::optional<std::uint64_t> number(const std::string& path) {
  const auto text = read(path);
  std::uint64_t value = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc()) return std::nullopt;
  return value;
}

/// The rest of the line that starts with `key`, without blanks around it.
inline std::optional<std::string> line_value(const std::string& text, const std::string& key) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    if (text.compare(at, key.size(), key) == 0) {
      std::size_t from = at + key.size();
      while (from < end && (text[from] == ' ' || text[from] == '\t' || text[from] == ':')) ++from;
      return text.substr(from, end - from);
    }
    at = end + 1;
  }
  return std::nullopt;
}

}  // namespace vm_platform::sysfs
