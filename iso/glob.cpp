#include <vm_platform/iso.hpp>

namespace vm_platform {
namespace {

/// Whether `c` is in the set that begins behind its `[`; `end` becomes the index behind `]`, or npos without one.
bool in_set(std::string_view pattern, std::size_t at, char c, std::size_t& end) {
  const bool negated = at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^');
  if (negated) ++at;
  bool found = false;
  for (bool first = true; at < pattern.size() && (first || pattern[at] != ']'); first = false) {
    char low = pattern[at++];
    if (low == '\\' && at < pattern.size()) low = pattern[at++];
    char high = low;
    if (at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']') {
      high = pattern[at + 1];
      at += 2;
    }
    const auto value = static_cast<unsigned char>(c);
    found = found || (static_cast<unsigned char>(low) <= value && value <= static_cast<unsigned char>(high));
  }
  end = at < pattern.size() ? at + 1 : std::string_view::npos;
  return found != negated;
}

}  // namespace

bool iso_glob_match(std::string_view pattern, std::string_view path) {
  // Backtracks only to the last star of each kind, so the time is at most pattern x path x path.
  struct Mark {
    std::size_t pattern = std::string_view::npos, path = 0;
  } star, double_star;
  std::size_t p = 0, s = 0;
  for (;;) {
    if (p < pattern.size() && pattern[p] == '*') {
      if (p + 1 < pattern.size() && pattern[p + 1] == '*') {
        p += 2;
        // "**/" also matches nothing at all.
        if (p < pattern.size() && pattern[p] == '/' && (p == 2 || pattern[p - 3] == '/')) ++p;
        double_star = {p, s};
        star = {};
      } else {
        star = {++p, s};
      }
      continue;
    }
    bool matched = false;
    if (s < path.size() && p < pattern.size()) {
      const char c = path[s];
      if (pattern[p] == '?') {
        matched = c != '/';
        if (matched) ++p;
      } else if (pattern[p] == '[') {
        std::size_t end = 0;
        matched = c != '/' && in_set(pattern, p + 1, c, end) && end != std::string_view::npos;
        if (matched) p = end;
      } else {
        const std::size_t literal = pattern[p] == '\\' && p + 1 < pattern.size() ? p + 1 : p;
        matched = pattern[literal] == c;
        if (matched) p = literal + 1;
      }
    } else if (s == path.size() && p == pattern.size()) {
      return true;
    }
    if (matched) {
      ++s;
    } else if (star.pattern != std::string_view::npos && star.path < path.size() && path[star.path] != '/') {
      p = star.pattern;
      s = ++star.path;
    } else if (double_star.pattern != std::string_view::npos && double_star.path < path.size()) {
      star = {};
      p = double_star.pattern;
      s = ++double_star.path;
    } else {
      return false;
    }
  }
}

}  // namespace vm_platform
