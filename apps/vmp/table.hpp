// Tables for people: columns as wide as their widest cell, the last one as long as it likes.
#pragma once

#include <string>
#include <vector>

namespace vm_platform::vmp {

class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  [[nodiscard]] bool has_rows() const { return rows_.size() > 1; }
  /// To stdout; the header is emphasized on a terminal.
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// Whether stdout is a terminal that may be coloured (NO_COLOR is obeyed).
bool colours_wanted();
/// `text` in bold or dim print where colours are wanted, unchanged elsewhere.
std::string bold(const std::string& text);
std::string dim(const std::string& text);

}  // namespace vm_platform::vmp
