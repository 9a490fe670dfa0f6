#include <algorithm>

#include "iso/boot_config/boot_config.hpp"

namespace vm_platform::iso {
namespace {
constexpr std::string_view kBlanks = " \t\r\f\v";
}

bool BootMenu::add(IsoBootEntry entry) {
  if (entries.size() >= kMaxBootEntries || !take(entry.initrds.size() * sizeof(std::string))) return false;
  if (entry.command_line.size() > kMaxCommandLine) {
    entry.command_line = {};
    entry.problem = "has a command line of more than " + std::to_string(kMaxCommandLine / 1024) + " KiB";
  }
  entries.push_back(std::move(entry));
  return true;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kBlanks);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlanks) - begin + 1);
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

std::string_view take_word(std::string_view& text) {
  text = trimmed(text);
  const std::size_t end = std::min(text.find_first_of(kBlanks), text.size());
  const std::string_view word = text.substr(0, end);
  text = trimmed(text.substr(end));
  return word;
}

std::optional<std::string_view> take_line(std::string_view& text) {
  if (text.empty()) return std::nullopt;
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

std::string resolve_path(std::string_view directory, std::string_view path) {
  std::vector<std::string_view> parts;
  const auto add = [&](std::string_view text) {
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('/'), text.size());
      const std::string_view part = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (part.empty() || part == ".") continue;
      if (part != "..") {
        parts.push_back(part);
      } else if (!parts.empty()) {
        parts.pop_back();
      }
    }
  };
  if (!path.starts_with('/')) add(directory);
  add(path);
  std::string out;
  for (const std::string_view part : parts) out.append("/").append(part);
  return out.empty() ? "/" : out;
}

std::string directory_of(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos || slash == 0 ? "/" : std::string(path.substr(0, slash));
}

std::string without_initrd(std::string_view command_line, std::vector<std::string>& initrds) {
  std::string out;
  while (!command_line.empty()) {
    std::string_view word = take_word(command_line);
    if (word.starts_with("initrd=")) {
      word.remove_prefix(7);
      while (!word.empty()) {
        const std::size_t end = std::min(word.find(','), word.size());
        if (end > 0) initrds.emplace_back(word.substr(0, end));
        word.remove_prefix(std::min(end + 1, word.size()));
      }
      continue;
    }
    if (word.empty() || word.starts_with("BOOT_IMAGE=")) continue;
    if (!out.empty()) out += ' ';
    out += word;
  }
  return out;
}

}  // namespace vm_platform::iso
