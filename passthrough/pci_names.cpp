// The pci.ids format: "vvvv  Name" starts a vendor, a tab and "dddd  Name" a device of it, two tabs and "ssss ssss
// Name" a subsystem; "C cc  Name" starts a class, with subclasses and programming interfaces below in the same way.
//
// A scan of a few functions needs a few of the file's 37,000 lines: only the lines of vendors and classes are indexed,
// and a device is looked for in its vendor's part by halving, because the file comes sorted.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>
#include <vm_platform/pci_device.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

struct FreeMemory {
  void operator()(char* memory) const { std::free(memory); }
};

/// A file's content, copied: a mapping of it would end the program where somebody cuts the file short.
struct FileContent {
  std::unique_ptr<char, FreeMemory> memory;
  std::size_t size = 0;

  [[nodiscard]] std::string_view text() const { return {memory.get(), size}; }
};

/// Empty where the file is not there, or too large to be what it should be.
FileContent read_names(const std::filesystem::path& path) {
  constexpr std::size_t kHugePage = 2U << 20, kLimit = 64U << 20;
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status;
  if (!file.valid() || ::fstat(file.get(), &status) != 0 || status.st_size <= 0) return {};
  const auto expected = static_cast<std::size_t>(status.st_size);
  if (expected > kLimit) return {};
  // One fault for a huge page instead of hundreds for small ones, which cost more than all else here.
  const std::size_t room = (expected + kHugePage - 1) / kHugePage * kHugePage;
  FileContent content{std::unique_ptr<char, FreeMemory>(static_cast<char*>(std::aligned_alloc(kHugePage, room)))};
  if (content.memory == nullptr) return {};
  ::madvise(content.memory.get(), room, MADV_HUGEPAGE);
  while (content.size < expected) {
    const ssize_t got = ::read(file.get(), content.memory.get() + content.size, expected - content.size);
    if (got <= 0) break;
    content.size += static_cast<std::size_t>(got);
  }
  return content;
}

/// The text of a vendor or class, from its own line to the next one's; of a subclass its name.
struct Section {
  std::uint32_t id;
  std::string_view text;
};

std::string_view section_of(const std::vector<Section>& sections, std::uint32_t id) {
  const auto found = std::ranges::lower_bound(sections, id, {}, &Section::id);
  return found == sections.end() || found->id != id ? std::string_view{} : found->text;
}

}  // namespace

struct PciNames::Index {
  FileContent content;
  std::vector<Section> vendors, classes, subclasses;  // by ID; of a subclass that is the class's and its own

  void build();
  void build_subclasses();
  /// What the file has from the line of one device of a vendor to the end of that vendor.
  [[nodiscard]] std::string_view from_device(std::uint16_t vendor, std::uint16_t device) const;
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

/// The ID on the line of a device, without its name; nothing on other lines.
std::optional<std::uint32_t> device_id(std::string_view line) {
  if (line.size() < 7 || line[0] != '\t' || line[1] == '\t') return std::nullopt;
  return text::number<std::uint32_t>(line.substr(1, 4), 16);
}

/// The rest of a vendor's section from the line of a device, looked for line by line.
std::string_view from_entry(std::string_view section, std::uint32_t id) {
  next_line(section);
  while (!section.empty()) {
    const std::string_view from_here = section;
    if (device_id(next_line(section)) == id) return from_here;
  }
  return {};
}

/// The same by halving: nothing where the vendor's devices are not sorted, perhaps.
std::string_view from_sorted_entry(std::string_view section, std::uint32_t id) {
  std::size_t low = std::min(section.find('\n'), section.size()), high = section.size();
  while (low < high) {
    // Between the two are whole lines, `low` at the end of the one before them. Take the first device line that begins
    // in the second half; where there is none, only those before are left.
    const std::size_t middle = low + (high - low) / 2;
    const auto* newline = static_cast<const char*>(::memrchr(section.data(), '\n', middle + 1));
    const auto begin = static_cast<std::size_t>(newline - section.data());
    std::string_view rest = section.substr(begin + 1, high - begin - 1);
    std::optional<std::uint32_t> here;
    const char* line = rest.data();
    while (!rest.empty() && !here) {
      line = rest.data();
      here = device_id(next_line(rest));
    }
    const auto at = static_cast<std::size_t>(line - section.data());
    if (here == id) return section.substr(at);
    if (here && *here < id)
      low = std::min(section.find('\n', at), high);
    else
      high = begin;
  }
  return {};
}

std::string_view name_of(std::string_view section, std::size_t skip) {
  const std::string_view line = next_line(section);
  return line.size() <= skip ? std::string_view{} : text::trim(line.substr(skip));
}

}  // namespace

void PciNames::Index::build() {
  constexpr std::size_t kUsualVendors = 4096;
  vendors.reserve(kUsualVendors);
  const std::string_view all = content.text();
  std::vector<Section>* open = nullptr;
  std::size_t open_at = 0;
  const auto close_section = [&](std::size_t end) {
    if (open != nullptr) open->back().text = all.substr(open_at, end - open_at);
    open = nullptr;
  };
  for (std::size_t position = 0; position < all.size();) {
    const char first = all[position];
    const void* newline = std::memchr(all.data() + position, '\n', all.size() - position);
    const std::size_t end =
        newline == nullptr ? all.size() : static_cast<std::size_t>(static_cast<const char*>(newline) - all.data());
    if (first != '\t' && first != '#' && first != '\n' && first != '\r') {
      close_section(position);
      const std::string_view line = all.substr(position, end - position);
      const bool is_class = line.starts_with("C ");
      const std::string_view digits = is_class ? line.substr(2, 2) : line.substr(0, 4);
      if (const auto id = text::number<std::uint32_t>(digits, 16); id && digits.size() == (is_class ? 2 : 4)) {
        open = is_class ? &classes : &vendors;
        open->push_back({*id, line});
        open_at = position;
      }
    }
    position = end + 1;
  }
  close_section(all.size());
  build_subclasses();
  // The file comes sorted; others' may not. Of two entries with one ID the first counts.
  const auto order = [](const Section& section) { return std::pair(section.id, section.text.data()); };
  for (auto* sections : {&vendors, &classes, &subclasses})
    if (!std::ranges::is_sorted(*sections, {}, &Section::id)) std::ranges::sort(*sections, {}, order);
}

void PciNames::Index::build_subclasses() {
  for (const Section& section : classes) {
    std::string_view rest = section.text;
    next_line(rest);
    while (!rest.empty()) {
      const std::string_view line = next_line(rest);
      if (line.size() < 4 || level(line) != 1) continue;
      if (const auto id = text::number<std::uint32_t>(line.substr(1, 2), 16))
        subclasses.push_back({section.id << 8 | *id, text::trim(line.substr(3))});
    }
  }
}

std::string_view PciNames::Index::from_device(std::uint16_t vendor, std::uint16_t device) const {
  const std::string_view section = section_of(vendors, vendor);
  const std::string_view found = from_sorted_entry(section, device);
  return found.empty() ? from_entry(section, device) : found;
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
    names.index_->content = read_names(place);
    if (names.index_->content.size == 0) continue;
    names.index_->build();
    break;
  }
  return names;
}

bool PciNames::loaded() const noexcept { return !index_->vendors.empty(); }

std::string_view PciNames::vendor(std::uint16_t vendor) const {
  return name_of(section_of(index_->vendors, vendor), 4);
}

std::string_view PciNames::device(std::uint16_t vendor, std::uint16_t device) const {
  return name_of(index_->from_device(vendor, device), 5);
}

std::string_view PciNames::subsystem(std::uint16_t vendor, std::uint16_t device, std::uint16_t subsystem_vendor,
                                     std::uint16_t subsystem_device) const {
  std::string_view rest = index_->from_device(vendor, device);
  next_line(rest);
  while (!rest.empty()) {
    const std::string_view line = next_line(rest);
    if (!line.starts_with('#') && level(line) < 2) break;
    const std::string_view below = name_after_id(line.substr(2), subsystem_vendor, 4);
    if (const auto name = name_after_id(below, subsystem_device, 4); !name.empty()) return name;
  }
  return {};
}

std::string_view PciNames::class_name(std::uint32_t class_code) const {
  const std::string_view subclass = section_of(index_->subclasses, class_code >> 8 & 0xffff);
  return subclass.empty() ? name_of(section_of(index_->classes, class_code >> 16 & 0xff), 4) : subclass;
}

std::string PciNames::describe(const PciDeviceInfo& info) const {
  const std::string_view maker = vendor(info.vendor), model = device(info.vendor, info.device);
  return (maker.empty() ? fmt::format("Vendor {:04x}", info.vendor) : std::string(maker)) + " " +
         (model.empty() ? fmt::format("Device {:04x}", info.device) : std::string(model));
}

}  // namespace vm_platform
