#include "tests/cpu_table/citations.hpp"

#include <algorithm>
#include <fstream>
#include <regex>
#include <sstream>
#include <stdexcept>

namespace vm_platform::cpu_table {
namespace {

template <typename Line>
void for_each_line(const std::filesystem::path& file, Line&& use) {
  std::ifstream in(file);
  if (!in) throw std::runtime_error("cannot read " + file.string());
  for (std::string line; std::getline(in, line);) use(line);
}

}  // namespace

Citations::Citations(const std::filesystem::path& root) {
  for (const char* folder : {"engine", "machine", "boot", "runtime"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder))
      if (entry.path().filename().string().ends_with("_test.cpp")) read_tests(entry.path());
  }
  read_ctest(root / "tests/CMakeLists.txt");
  read_ctest(root / "tests/random_instructions/CMakeLists.txt");
  for (const auto& entry : std::filesystem::directory_iterator(root / "tests/conformance/golden"))
    if (entry.path().extension() == ".txt") read_golden(entry.path());
  std::ranges::sort(gaps_);
  gaps_.erase(std::ranges::unique(gaps_).begin(), gaps_.end());
}

void Citations::read_tests(const std::filesystem::path& file) {
  static const std::regex test(R"(^TEST(?:_F|_P)?\((\w+), (\w+)\))");
  for_each_line(file, [&](const std::string& line) {
    std::smatch match;
    if (!line.starts_with("TEST") || !std::regex_search(line, match, test)) return;
    known_.insert(match[1]);
    known_.insert(match[1].str() + "." + match[2].str());
  });
}

void Citations::read_ctest(const std::filesystem::path& file) {
  static const std::regex test(R"(add_test\(NAME (\w+) )"), boots(R"(^foreach\(check (.*)\)$)");
  for_each_line(file, [&](const std::string& line) {
    if (line.find("add_test") == std::string::npos && !line.starts_with("foreach")) return;
    std::smatch match;
    if (std::regex_search(line, match, test)) known_.insert(match[1]);
    if (!std::regex_search(line, match, boots)) return;
    std::istringstream checks(match[1]);
    for (std::string check; checks >> check;) known_.insert("boot_" + check);
  });
}

void Citations::read_golden(const std::filesystem::path& file) {
  const std::string program = "conformance_" + file.stem().string();
  known_.insert(program);
  std::set<std::string> gaps;  // lines that the engine is known to get wrong show nothing
  if (auto list = file; std::filesystem::exists(list.replace_extension(".gaps"))) {
    for_each_line(list, [&](const std::string& line) {
      if (line.starts_with("# ")) {
        gaps_.push_back(line.substr(2));
      } else {
        gaps.insert(line.substr(0, line.find(':')));
      }
    });
  }
  for_each_line(file, [&](const std::string& line) {
    if (const auto colon = line.find(':'); colon != std::string::npos && !gaps.contains(line.substr(0, colon)))
      known_.insert(program + ": " + line.substr(0, colon));
  });
}

std::string Citations::operator()(std::span<const std::string_view> tests) {
  std::string text;
  for (const std::string_view test : tests) {
    if (test.empty()) continue;
    if (!known_.contains(test)) missing_.emplace_back(test);
    text.append(text.empty() ? "`" : ", `").append(test).append("`");
  }
  return text.empty() ? "none yet" : text;
}

}  // namespace vm_platform::cpu_table
