#include <algorithm>

#include "iso/reader.hpp"

namespace vm_platform::iso {
namespace {

constexpr int kMaxSymlinks = 40;  // as Linux
constexpr std::size_t kMaxPath = 65536;

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

/// `name` in `directory`; NotFound has no subject yet.
Result<IsoEntry> find_in(const SimpleIso9660::Impl& image, const IsoEntry& directory, std::string_view name,
                         IsoCase letters) {
  DirectoryCursor cursor(*image.source, image.tree(), directory, image.options.decompress);
  const bool any_case = letters == IsoCase::Ignore || image.tree().kind != IsoNameSpace::RockRidge;
  IsoEntry entry;
  std::optional<IsoEntry> similar;
  std::optional<VmError> damage;
  for (;;) {
    auto more = cursor.next(entry);
    if (!more) {
      if (!damage) damage = std::move(more.error());
      continue;
    }
    if (!*more) break;
    if (entry.name == name) return entry;
    if (any_case && !similar && equal_ignoring_case(entry.name, name)) similar = entry;
  }
  if (similar) return std::move(*similar);
  if (damage) return fail(std::move(*damage));
  return fail(ErrorCode::NotFound, "find", "");
}

}  // namespace

Result<IsoEntry> lookup(const SimpleIso9660::Impl& image, std::string_view path, IsoFollow follow, IsoCase letters) {
  const std::string asked(path);
  std::string rest(path);
  // Directories from the root to where we are: `..` goes back one, and stays at the root.
  std::vector<IsoEntry> way{image.tree().root};
  std::optional<IsoEntry> last;  // set where the last component is no directory
  int symlinks = 0;
  while (!rest.empty()) {
    const std::size_t begin = rest.find_first_not_of('/');
    if (begin == std::string::npos) break;
    const std::size_t end = std::min(rest.find('/', begin), rest.size());
    const std::string name = rest.substr(begin, end - begin);
    rest.erase(0, end);
    const bool is_last = rest.find_first_not_of('/') == std::string::npos;
    if (last) return fail(ErrorCode::NotFound, "find", asked, "'" + last->name + "' is not a directory");
    if (name == ".") continue;
    if (name == "..") {
      if (way.size() > 1) way.pop_back();
      continue;
    }
    auto found = find_in(image, way.back(), name, letters);
    if (!found) {
      if (found.error().code() != ErrorCode::NotFound) return found;
      return fail(
          ErrorCode::NotFound, "find", asked,
          "there is no '" + name + "' in the image's " + (way.size() == 1 ? "root" : "'" + way.back().name + "'"));
    }
    if (found->is_symlink() && (!is_last || follow == IsoFollow::Yes)) {
      if (++symlinks > kMaxSymlinks || found->symlink_target.size() + rest.size() > kMaxPath) {
        return fail(ErrorCode::Corrupt, "find", asked, "too many levels of symbolic links");
      }
      if (found->symlink_target.starts_with('/')) way.resize(1);
      rest = found->symlink_target + rest;
      continue;
    }
    if (found->is_directory()) {
      if (way.size() > IsoWalk::kMaxDepth)
        return fail(ErrorCode::Corrupt, "find", asked, "directories nest too deeply");
      way.push_back(std::move(*found));
    } else {
      last = std::move(*found);
    }
  }
  if (last) {
    if (asked.ends_with('/'))
      return fail(ErrorCode::NotFound, "find", asked, "'" + last->name + "' is not a directory");
    return std::move(*last);
  }
  return std::move(way.back());
}

}  // namespace vm_platform::iso
