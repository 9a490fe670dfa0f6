#include "apps/vmp/table.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace vm_platform::vmp {

bool colours_wanted() {
  static const bool wanted = ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
  return wanted;
}
std::string bold(const std::string& text) { return colours_wanted() ? "\033[1m" + text + "\033[0m" : text; }
std::string dim(const std::string& text) { return colours_wanted() ? "\033[2m" + text + "\033[0m" : text; }

void Table::add(std::initializer_list<std::string_view> row) {
  std::size_t column = 0;
  for (const std::string_view cell : row) {
    text_ += cell;
    ends_.push_back(text_.size());
    widths_[column] = std::max(widths_[column], cell.size());
    ++column;
  }
}

void Table::print() const {
  std::string line;
  std::size_t begin = 0;
  for (std::size_t cell = 0; cell < ends_.size(); ++cell) {
    const std::size_t column = cell % widths_.size(), length = ends_[cell] - begin;
    line.append(text_, begin, length);
    begin = ends_[cell];
    if (column + 1 < widths_.size()) {
      line.append(widths_[column] - length + 2, ' ');
      continue;
    }
    if (cell < widths_.size()) line = bold(line);
    line += '\n';
    std::fwrite(line.data(), 1, line.size(), stdout);
    line.clear();
  }
}

}  // namespace vm_platform::vmp
