// Tables for people: columns as wide as their widest cell, the last one as long as it likes.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace vm_platform::vmp {

class Table {
 public:
  explicit Table(std::initializer_list<std::string_view> header) : widths_(header.size()) { add(header); }
  /// As many cells as the header has.
  void add(std::initializer_list<std::string_view> row);
  [[nodiscard]] bool has_rows() const { return ends_.size() > widths_.size(); }
  /// To stdout; the header is emphasized on a terminal.
  void print() const;

 private:
  std::string text_;               // all cells, row by row
  std::vector<std::size_t> ends_;  // of each cell in it
  std::vector<std::size_t> widths_;
};

/// Whether stdout is a terminal that may be coloured (NO_COLOR is obeyed).
bool colours_wanted();
/// `text` in bold or dim print where colours are wanted, unchanged elsewhere.
std::string bold(const std::string& text);
std::string dim(const std::string& text);

}  // namespace vm_platform::vmp
