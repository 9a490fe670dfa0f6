// The pci.ids format: "vvvv  Name" starts a vendor, a tab and "dddd  Name" a device of it, two tabs and "ssss ssss
// Name" a subsystem; "C cc  Name" starts a class, with subclasses and programming interfaces below in the same way.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <vector>
#include <vm_platform/pci_device.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {

struct PciNames::Index {
  std::string content;
  // The text of each vendor and class, from its own line to the next one's.
  std::unordered_map<std::uint32_t, std::string_view> vendors, classes;
  /// Each device's own line, by vendor << 16 | device: looking through a large vendor line by line takes long.
  std::vector<std::pair<std::uint32_t, std::string_view>> devices;

  void build();
  /// The lines of one device of a vendor, its own first.
  [[nodiscard]] std::string_view device_section(std::uint16_t vendor, std::uint16_t device) const;
};

namespace {

std::string_view next_line(std::string_view& rest) { return text::take(rest, '\n'); }

/// "10de  NVIDIA Corporation" -> the name, when the line starts with `id` written in `digits` hex digits.
std::string_view name_after_id(std::string_view line, std::uint32_t id, std::size_t digits) {
  if (line.size() < digits + 2) return {};
  const auto found = text::number<std::uint32_t>(line.substr(0, digits), 16);
  if (!found || *found != id) return {};
  return text::trim(line.substr(digits));
}

std::size_t level(std::string_view line) { return std::min(line.find_first_not_of('\t'), line.size()); }

/// The entry that starts at the front of `rest`, with the lines below it.
std::string_view with_lines_below(std::string_view rest, std::size_t depth) {
  const char* start = rest.data();
  const std::string_view line = next_line(rest);
  const char* end = start + line.size();
  while (!rest.empty()) {
    const std::string_view below = next_line(rest);
    if (!below.starts_with('#') && level(below) <= depth) break;
    end = below.data() + below.size();
  }
  return {start, static_cast<std::size_t>(end - start)};
}

/// The lines of the entry `id` one level below `section`, whose own lines start with `depth` tabs.
std::string_view entry(std::string_view section, std::uint32_t id, std::size_t digits, std::size_t depth) {
  std::string_view rest = section;
  next_line(rest);
  while (!rest.empty()) {
    const std::string_view from_here = rest;
    const std::string_view line = next_line(rest);
    if (level(line) == depth && !name_after_id(line.substr(depth), id, digits).empty())
      return with_lines_below(from_here, depth);
  }
  return {};
}

std::string_view name_of(std::string_view section, std::size_t skip) {
  const std::string_view line = next_line(section);
  return line.size() <= skip ? std::string_view{} : text::trim(line.substr(skip));
}

}  // namespace

void PciNames::Index::build() {
  const std::string_view all = content;
  std::unordered_map<std::uint32_t, std::string_view>* open_map = nullptr;
  std::uint32_t open_id = 0;
  std::size_t open_at = 0;
  const auto close_section = [&](std::size_t end) {
    if (open_map != nullptr) open_map->emplace(open_id, all.substr(open_at, end - open_at));
    open_map = nullptr;
  };
  for (std::size_t position = 0; position < all.size();) {
    const char first = all[position];
    const bool of_device = first == '\t' && position + 5 < all.size() && all[position + 1] != '\t';
    if (of_device && open_map == &vendors) {
      if (const auto id = text::number<std::uint32_t>(all.substr(position + 1, 4), 16))
        devices.emplace_back(open_id << 16 | *id, all.substr(position));
    }
    const void* newline = std::memchr(all.data() + position, '\n', all.size() - position);
    const std::size_t end =
        newline == nullptr ? all.size() : static_cast<std::size_t>(static_cast<const char*>(newline) - all.data());
    if (first != '\t' && first != '#' && first != '\n' && first != '\r') {
      close_section(position);
      const std::string_view line = all.substr(position, end - position);
      const bool is_class = line.starts_with("C ");
      const std::string_view digits = is_class ? line.substr(2, 2) : line.substr(0, 4);
      if (const auto id = text::number<std::uint32_t>(digits, 16); id && digits.size() == (is_class ? 2 : 4)) {
        open_map = is_class ? &classes : &vendors;
        open_id = *id;
        open_at = position;
      }
    }
    position = end + 1;
  }
  close_section(all.size());
  // The file comes sorted; others' may not. Of two entries with one id the first counts.
  constexpr auto kPlace = [](const std::pair<std::uint32_t, std::string_view>& entry) {
    return std::pair(entry.first, entry.second.data());
  };
  if (!std::ranges::is_sorted(devices, {}, kPlace)) std::ranges::sort(devices, {}, kPlace);
}

std::string_view PciNames::Index::device_section(std::uint16_t vendor, std::uint16_t device) const {
  const std::uint32_t id = static_cast<std::uint32_t>(vendor) << 16 | device;
  const auto found = std::ranges::lower_bound(devices, id, {}, &std::pair<std::uint32_t, std::string_view>::first);
  return found == devices.end() || found->first != id ? std::string_view{} : with_lines_below(found->second, 1);
}

PciNames::PciNames() : index_(std::make_unique<Index>()) {}
PciNames::PciNames(PciNames&&) noexcept = default;
PciNames& PciNames::operator=(PciNames&&) noexcept = default;
PciNames::~PciNames() = default;

PciNames PciNames::load(const std::filesystem::path& path) {
  PciNames names;
  std::vector<std::filesystem::path> places = {"/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids",
                                               "/var/lib/pciutils/pci.ids"};
  if (!path.empty()) places = {path};
  for (const auto& place : places) {
    if (auto content = read_kernel_file(place)) {
      names.index_->content = std::move(*content);
      names.index_->build();
      break;
    }
  }
  return names;
}

bool PciNames::loaded() const noexcept { return !index_->vendors.empty(); }

std::string_view PciNames::vendor(std::uint16_t vendor) const {
  const auto found = index_->vendors.find(vendor);
  return found == index_->vendors.end() ? std::string_view{} : name_of(found->second, 4);
}

std::string_view PciNames::device(std::uint16_t vendor, std::uint16_t device) const {
  return name_of(index_->device_section(vendor, device), 5);
}

std::string_view PciNames::subsystem(std::uint16_t vendor, std::uint16_t device, std::uint16_t subsystem_vendor,
                                     std::uint16_t subsystem_device) const {
  std::string_view rest = index_->device_section(vendor, device);
  while (!rest.empty()) {
    const std::string_view line = next_line(rest);
    if (!line.starts_with("\t\t")) continue;
    const std::string_view below = name_after_id(line.substr(2), subsystem_vendor, 4);
    if (const auto name = name_after_id(below, subsystem_device, 4); !name.empty()) return name;
  }
  return {};
}

std::string_view PciNames::class_name(std::uint32_t class_code) const {
  const auto found = index_->classes.find(class_code >> 16 & 0xff);
  if (found == index_->classes.end()) return {};
  const std::string_view base = name_of(found->second, 4);
  const std::string_view subclass_section = entry(found->second, class_code >> 8 & 0xff, 2, 1);
  if (subclass_section.empty()) return base;
  return name_of(subclass_section, 3);
}

std::string PciNames::describe(const PciDeviceInfo& info) const {
  const std::string_view maker = vendor(info.vendor), model = device(info.vendor, info.device);
  return (maker.empty() ? fmt::format("Vendor {:04x}", info.vendor) : std::string(maker)) + " " +
         (model.empty() ? fmt::format("Device {:04x}", info.device) : std::string(model));
}

}  // namespace vm_platform
