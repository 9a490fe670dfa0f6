#include <algorithm>
#include <vm_platform/iso.hpp>

#include "core/utf8.hpp"

namespace vm_platform {
namespace {

/// The character of a UTF-8 text at `at`; a byte that is none counts as one. Compared as bytes, characters have the
/// order of their code points.
std::string_view character(std::string_view text, std::size_t at) {
  return text.substr(at, std::max<std::size_t>(utf8_length(text.substr(at)), 1));
}

/// Whether `c` is in the set that begins behind its `[`; `end` becomes the index behind `]`, or npos without one.
bool in_set(std::string_view pattern, std::size_t at, std::string_view c, std::size_t& end) {
  const bool negated = at < pattern.size() && (pattern[at] == '!' || pattern[at] == '^');
  if (negated) ++at;
  bool found = false;
  for (bool first = true; at < pattern.size() && (first || pattern[at] != ']'); first = false) {
    if (pattern[at] == '\\' && at + 1 < pattern.size()) ++at;
    const std::string_view low = character(pattern, at);
    at += low.size();
    std::string_view high = low;
    if (at + 1 < pattern.size() && pattern[at] == '-' && pattern[at + 1] != ']') {
      high = character(pattern, at + 1);
      at += 1 + high.size();
    }
    found = found || (low <= c && c <= high);
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
      std::size_t next = p + 1, size = 1;
      if (pattern[p] == '?' || pattern[p] == '[') {
        const std::string_view c = character(path, s);
        size = c.size();
        matched =
            c != "/" && (pattern[p] == '?' || (in_set(pattern, p + 1, c, next) && next != std::string_view::npos));
      } else {
        const std::size_t literal = pattern[p] == '\\' && p + 1 < pattern.size() ? p + 1 : p;
        matched = pattern[literal] == path[s];
        next = literal + 1;
      }
      if (matched) {
        p = next;
        s += size;
      }
    } else if (s == path.size() && p == pattern.size()) {
      return true;
    }
    if (matched) continue;
    if (star.pattern != std::string_view::npos && star.path < path.size() && path[star.path] != '/') {
      p = star.pattern;
      s = star.path += character(path, star.path).size();
    } else if (double_star.pattern != std::string_view::npos && double_star.path < path.size()) {
      star = {};
      p = double_star.pattern;
      s = double_star.path += character(path, double_star.path).size();
    } else {
      return false;
    }
  }
}

}  // namespace vm_platform
