#include "apps/vmp/table.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

namespace vm_platform::vmp {

bool colours_wanted() {
  static const bool wanted = ::isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
  return wanted;
}
std::string bold(const std::string& text) { return colours_wanted() ? "\033[1m" + text + "\033[0m" : text; }
std::string dim(const std::string& text) { return colours_wanted() ? "\033[2m" + text + "\033[0m" : text; }

void Table::print() const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < rows_[r].size(); ++i) {
      line += rows_[r][i];
      if (i + 1 < rows_[r].size()) line.append(widths[i] - rows_[r][i].size() + 2, ' ');
    }
    fmt::print("{}\n", r == 0 ? bold(line) : line);
  }
}

}  // namespace vm_platform::vmp
