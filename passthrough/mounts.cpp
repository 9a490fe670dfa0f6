#include "passthrough/mounts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

namespace fs = std::filesystem;

/// "\040" and the like, as /proc writes blanks in paths.
std::string unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto octal =
        text[i] == '\\' && i + 3 < text.size() ? text::number<std::uint8_t>(text.substr(i + 1, 3), 8) : std::nullopt;
    plain += octal ? static_cast<char>(*octal) : text[i];
    if (octal) i += 3;
  }
  return plain;
}

/// /dev/mapper/vg-root is a link to ../dm-0.
std::string block_name(const std::string& source, const fs::path& root) {
  if (!source.starts_with("/dev/")) return {};
  std::error_code error;
  const fs::path real = fs::canonical(root / source.substr(1), error);
  return (error ? fs::path(source) : real).filename();
}

}  // namespace

Mounts::Mounts(const fs::path& root) {
  const fs::path processes = root / "proc";
  std::set<std::string> seen;
  if (const auto own = link_name(processes / "self/ns/mnt")) seen.insert(*own);
  read(processes / "self", "", root);
  for (const std::string& process : list_directory(processes)) {
    if (!text::number<int>(process)) continue;
    const auto space = link_name(processes / process / "ns/mnt");
    if (!space || !seen.insert(*space).second) continue;
    const auto command = read_kernel_file(processes / process / "comm");
    read(processes / process, fmt::format("{} (pid {})", command ? text::trim(*command) : "?", process), root);
  }
}

void Mounts::read(const fs::path& process, const std::string& owner, const fs::path& root) {
  const auto content = read_kernel_file(process / "mountinfo");
  if (!content) return;
  std::string_view rest = *content;
  while (!rest.empty()) {
    // "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw": field 3 is the device, field 5 where it is
    // mounted, and what it was mounted from is the second one after the hyphen (proc(5)).
    const auto fields = text::words(text::take(rest, '\n'));
    if (fields.size() < 7) continue;
    const auto hyphen = std::find(fields.begin() + 6, fields.end(), "-");
    std::string source = fields.end() - hyphen > 2 ? unescape(hyphen[2]) : "";
    Mount mount{std::string(fields[2]), block_name(source, root), unescape(fields[4])};
    if (!owner.empty()) mount.place += " in the mount namespace of " + owner;
    (owner.empty() ? own_ : others_).push_back(std::move(mount));
  }
}

std::vector<std::string> Mounts::places_of(std::string_view name, std::string_view number) const {
  const auto is_of = [&](const Mount& mount) {
    return mount.number == number || (mount.number.starts_with("0:") && mount.source == name);
  };
  std::vector<std::string> places;
  for (const Mount& mount : own_)
    if (is_of(mount)) places.push_back(mount.place);
  if (!places.empty()) return places;
  const auto other = std::ranges::find_if(others_, is_of);
  if (other != others_.end()) places.push_back(other->place);
  return places;
}

}  // namespace vm_platform
