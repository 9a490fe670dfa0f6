// The tests that the table names, and whether they exist.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vm_platform::cpu_table {

/// A test is named as "Suite.Name" or "Suite" (GoogleTest), as ctest has it, or as "conformance_PROGRAM: LINE", where
/// LINE is how a line of the program's output begins.
class Citations {
 public:
  /// Reads the sources under `root`.
  explicit Citations(const std::filesystem::path& root);

  /// The names as Markdown, empty ones aside. One that does not exist is remembered.
  std::string operator()(std::span<const std::string_view> tests);
  std::string operator()(std::initializer_list<std::string_view> tests) {
    return (*this)(std::span(tests.begin(), tests.size()));
  }

  [[nodiscard]] const std::vector<std::string>& missing() const { return missing_; }
  /// What the engine is known to get wrong, in the words of the golden files.
  [[nodiscard]] const std::vector<std::string>& gaps() const { return gaps_; }

 private:
  void read_tests(const std::filesystem::path& file);
  void read_ctest(const std::filesystem::path& file);
  void read_golden(const std::filesystem::path& file);

  std::set<std::string, std::less<>> known_;
  std::vector<std::string> missing_, gaps_;
};

}  // namespace vm_platform::cpu_table
