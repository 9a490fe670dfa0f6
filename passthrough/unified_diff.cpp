#include <fmt/format.h>

#include <algorithm>
#include <vm_platform/host_setup.hpp>

#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

std::vector<std::string_view> lines_of(const std::optional<std::string>& content) {
  std::vector<std::string_view> lines;
  if (!content) return lines;
  std::string_view rest = *content;
  while (!rest.empty()) lines.push_back(text::take(rest, '\n'));
  return lines;
}

}  // namespace

// These files are small and change in one place: the common start and end are found, and what is between is one hunk.
std::string unified_diff(const FileChange& change) {
  constexpr std::size_t kContext = 3;
  if (change.before == change.after) return {};
  const auto before = lines_of(change.before), after = lines_of(change.after);
  const std::size_t shorter = std::min(before.size(), after.size());
  std::size_t start = 0, end = 0;
  while (start < shorter && before[start] == after[start]) ++start;
  while (end < shorter - start && before[before.size() - 1 - end] == after[after.size() - 1 - end]) ++end;
  const std::size_t from = start - std::min(start, kContext), tail = std::min(end, kContext);
  const std::size_t old_last = before.size() - end + tail, new_last = after.size() - end + tail;
  const std::string name = change.file.string();
  const auto place = [&](std::size_t first, std::size_t last) {
    return last == first ? fmt::format("{},0", first) : fmt::format("{},{}", first + 1, last - first);
  };
  std::string diff = fmt::format("--- {}\n+++ {}\n@@ -{} +{} @@\n", change.before ? name : "/dev/null",
                                 change.after ? name : "/dev/null", place(from, old_last), place(from, new_last));
  for (std::size_t i = from; i < start; ++i) diff += fmt::format(" {}\n", before[i]);
  for (std::size_t i = start; i < before.size() - end; ++i) diff += fmt::format("-{}\n", before[i]);
  for (std::size_t i = start; i < after.size() - end; ++i) diff += fmt::format("+{}\n", after[i]);
  for (std::size_t i = before.size() - end; i < old_last; ++i) diff += fmt::format(" {}\n", before[i]);
  return diff;
}

}  // namespace vm_platform
