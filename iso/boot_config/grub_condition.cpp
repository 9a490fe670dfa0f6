#include "iso/boot_config/grub_condition.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace vm_platform::iso {
namespace {

bool is_comparison(std::string_view word) {
  constexpr std::string_view kAll[] = {"=", "==", "!=", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"};
  return std::ranges::find(kAll, word) != std::end(kAll);
}

bool compare(const std::string& a, std::string_view how, const std::string& b) {
  if (how == "=" || how == "==") return a == b;
  if (how == "!=") return a != b;
  if (how == "<") return a < b;
  if (how == ">") return a > b;
  const long x = std::strtol(a.c_str(), nullptr, 0), y = std::strtol(b.c_str(), nullptr, 0);
  return how == "-eq"   ? x == y
         : how == "-ne" ? x != y
         : how == "-lt" ? x < y
         : how == "-le" ? x <= y
         : how == "-gt" ? x > y
                        : x >= y;
}

bool unary(char what, const std::string& value, GrubFileQuery& files) {
  if (what == 'n') return !value.empty();
  if (what == 'z') return value.empty();
  return what == 'd' ? files.is_directory(value) : files.exists(value);
}

}  // namespace

bool grub_condition(std::span<const std::string> words, GrubFileQuery& files) {
  std::size_t end = words.size();
  if (words[0] == "[" && end > 1 && words.back() == "]") --end;
  // expr [-a|-o expr]...: from left to right, as GRUB does
  bool result = false, negate = false;
  char join = 'o';
  for (std::size_t i = 1; i < end;) {
    if (words[i] == "!") {
      negate = !negate;
      ++i;
      continue;
    }
    if (words[i] == "-a" || words[i] == "-o") {
      join = words[i][1];
      ++i;
      continue;
    }
    bool value;
    if (words[i].size() == 2 && words[i][0] == '-' && i + 1 < end && (i + 2 >= end || !is_comparison(words[i + 1]))) {
      value = unary(words[i][1], words[i + 1], files);
      i += 2;
    } else if (i + 2 < end && is_comparison(words[i + 1])) {
      value = compare(words[i], words[i + 1], words[i + 2]);
      i += 3;
    } else {
      value = !words[i].empty();
      ++i;
    }
    value = value != negate;
    negate = false;
    result = join == 'a' ? result && value : result || value;
  }
  return result;
}

}  // namespace vm_platform::iso
