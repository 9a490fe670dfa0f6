#include <algorithm>
#include <unordered_map>

#include "iso/boot_config/boot_config.hpp"

namespace vm_platform {

std::string_view to_string(IsoBootProtocol protocol) noexcept {
  switch (protocol) {
    case IsoBootProtocol::Linux: return "linux";
    case IsoBootProtocol::Multiboot: return "multiboot";
    case IsoBootProtocol::Firmware: return "firmware";
  }
  return "?";
}

namespace {

using namespace iso;

constexpr std::size_t kMaxAskedFiles = 4096, kMaxAskedPath = 4096;

/// The image's files as configurations name them: case aside, since isolinux and EFI do not know it.
class ImageFiles final : public ConfigFiles {
 public:
  explicit ImageFiles(const Iso9660& image) : iso_(image) {}

  std::optional<std::string> read(const std::string& path) override {
    const auto file = iso_.find(path, IsoFollow::Yes, IsoCase::Ignore);
    if (!file || !file->is_file()) return std::nullopt;
    const auto bytes = iso_.read_all(*file, kMaxConfigSize);
    if (!bytes) return std::nullopt;
    return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  }
  bool exists(const std::string& path) override { return kind(path) != Kind::Missing; }
  bool is_directory(const std::string& path) override { return kind(path) == Kind::Directory; }
  std::vector<std::string> list(const std::string& path) override {
    std::vector<std::string> names;
    const auto directory = iso_.find(path, IsoFollow::Yes, IsoCase::Ignore);
    if (!directory || !directory->is_directory()) return names;
    auto opened = iso_.open_directory(*directory);
    IsoEntry entry;
    while (opened && names.size() < kMaxBootEntries) {
      const auto more = opened->next(entry);
      if (!more) break;
      if (!*more) break;
      names.push_back(entry.name);
    }
    return names;
  }
  std::string label() override { return iso_.volume().volume_id; }

 private:
  enum class Kind : std::uint8_t { Missing, File, Directory };
  /// Each path is looked for once: a lookup reads the directories on the way, and a menu can ask without end.
  Kind kind(const std::string& path) {
    const auto known = known_.find(path);
    if (known != known_.end()) return known->second;
    if (path.size() > kMaxAskedPath || known_.size() >= kMaxAskedFiles) return Kind::Missing;
    const auto found = iso_.find(path, IsoFollow::Yes, IsoCase::Ignore);
    return known_[path] = !found ? Kind::Missing : found->is_directory() ? Kind::Directory : Kind::File;
  }
  const Iso9660& iso_;
  std::unordered_map<std::string, Kind> known_;
};

/// Says why an entry's files can't be read, where they can't.
void check_files(ImageFiles& files, IsoBootEntry& entry) {
  if (!entry.problem.empty()) return;
  std::vector<std::string> needed{entry.container.empty() ? entry.kernel : entry.container};
  if (entry.container.empty()) needed.insert(needed.end(), entry.initrds.begin(), entry.initrds.end());
  for (const std::string& path : needed) {
    if (!files.exists(path)) {
      entry.problem = "its file " + path + " is not in the image";
      return;
    }
  }
}

void append_file(std::vector<std::byte>& to, const std::vector<std::byte>& bytes) {
  to.resize((to.size() + 3) / 4 * 4);  // the kernel looks for the next archive on a multiple of 4
  to.insert(to.end(), bytes.begin(), bytes.end());
}

bool names_serial_console(std::string_view command_line) {
  while (!command_line.empty()) {
    const std::string_view word = take_word(command_line);
    if (word.starts_with("console=ttyS") || word.starts_with("console=hvc") || word.starts_with("console=ttyAMA"))
      return true;
  }
  return false;
}

}  // namespace

Result<std::vector<IsoBootEntry>> find_boot_entries(const Iso9660& image) {
  ImageFiles files(image);
  BootMenu menu;
  const auto first_of = [&](std::initializer_list<const char*> paths, auto read) {
    for (const char* path : paths) {
      if (!files.exists(path)) continue;
      read(files, path, menu);
      return;
    }
  };
  first_of({"/boot/isolinux/isolinux.cfg", "/isolinux/isolinux.cfg", "/isolinux.cfg", "/boot/isolinux/syslinux.cfg",
            "/isolinux/syslinux.cfg", "/boot/syslinux/isolinux.cfg", "/syslinux/isolinux.cfg",
            "/boot/syslinux/syslinux.cfg", "/syslinux/syslinux.cfg", "/boot/syslinux.cfg", "/syslinux.cfg"},
           read_syslinux);
  first_of({"/boot/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub/grub.cfg", "/grub2/grub.cfg", "/EFI/BOOT/grub.cfg",
            "/EFI/debian/grub.cfg"},
           read_grub);
  read_systemd_boot(files, menu);
  if (menu.entries.empty()) {
    const bool firmware = image.volume().has_boot_catalog;
    return fail(VmError(ErrorCode::NotFound, "find boot entries", "image",
                        firmware ? "no isolinux, GRUB or systemd-boot menu; the image has boot images for firmware only"
                                 : "no isolinux, GRUB or systemd-boot menu, and no boot images: it is not bootable")
                    .with_hint(firmware ? "boot it through firmware" : "give a kernel by itself"));
  }
  for (IsoBootEntry& entry : menu.entries) check_files(files, entry);
  const auto usable = [](const IsoBootEntry& entry) { return entry.problem.empty(); };
  if (!menu.default_entry || !usable(menu.entries[*menu.default_entry])) {
    const auto first = std::ranges::find_if(menu.entries, usable);
    if (first != menu.entries.end()) menu.default_entry = static_cast<std::size_t>(first - menu.entries.begin());
  }
  if (menu.default_entry && usable(menu.entries[*menu.default_entry]))
    menu.entries[*menu.default_entry].is_default = true;
  return std::move(menu.entries);
}

Result<IsoBootEntry> choose_boot_entry(std::span<const IsoBootEntry> entries, std::string_view name) {
  if (name.empty()) {
    const auto found = std::ranges::find_if(entries, &IsoBootEntry::is_default);
    if (found != entries.end()) return *found;
    return fail(
        VmError(ErrorCode::NotFound, "choose boot entry", "default",
                "none of the image's " + std::to_string(entries.size()) + " entries can be booted without firmware")
            .with_hint(entries.empty() ? "" : "the first: " + entries.front().problem));
  }
  for (const IsoBootEntry& entry : entries) {
    if (entry.id == name) return entry;
  }
  for (const IsoBootEntry& entry : entries) {
    if (entry.title == name) return entry;
  }
  std::size_t number = 0;
  if (name.size() < 5 && std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; }))
    number = std::stoul(std::string(name));
  if (number >= 1 && number <= entries.size()) return entries[number - 1];
  std::string ids;
  for (const IsoBootEntry& entry : entries) ids += (ids.empty() ? "" : ", ") + entry.id;
  return fail(
      VmError(ErrorCode::NotFound, "choose boot entry", "'" + std::string(name) + "'", "the image has no such entry")
          .with_hint("it has: " + ids));
}

Result<IsoBootFiles> load_boot_entry(const Iso9660& image, const IsoBootEntry& entry, std::string_view append) {
  if (!entry.problem.empty() || entry.protocol == IsoBootProtocol::Firmware) {
    return fail(ErrorCode::Unsupported, "boot entry", "'" + entry.id + "'",
                entry.problem.empty() ? "needs firmware" : entry.problem);
  }
  constexpr std::uint64_t kLimit = 2 * kGiB;
  const Iso9660* holder = &image;
  std::vector<std::byte> inner_bytes;
  std::optional<SimpleIso9660> inner;
  if (!entry.container.empty()) {
    auto file = image.find(entry.container, IsoFollow::Yes, IsoCase::Ignore);
    if (!file) return fail(std::move(file.error()));
    std::span<const std::byte> bytes;
    if (auto view = image.view(*file)) {
      bytes = *view;
    } else {
      auto copied = image.read_all(*file, kLimit);
      if (!copied) return fail(std::move(copied.error()));
      inner_bytes = std::move(*copied);
      bytes = inner_bytes;
    }
    auto opened = SimpleIso9660::open_memory(bytes);
    if (!opened) return fail(std::move(opened.error()));
    inner.emplace(std::move(*opened));
    holder = &*inner;
  }
  std::uint64_t left = kLimit;
  const auto read = [&](const std::string& path) -> Result<std::vector<std::byte>> {
    auto file = holder->find(path, IsoFollow::Yes, IsoCase::Ignore);
    if (!file) return fail(std::move(file.error()));
    auto bytes = holder->read_all(*file, left);
    if (bytes) left -= bytes->size();
    return bytes;
  };
  IsoBootFiles files;
  auto kernel = read(entry.kernel);
  if (!kernel) return fail(std::move(kernel.error()));
  files.kernel = std::move(*kernel);
  for (const std::string& path : entry.initrds) {
    auto bytes = read(path);
    if (!bytes) return fail(std::move(bytes.error()));
    if (entry.protocol == IsoBootProtocol::Linux) {
      append_file(files.initramfs, *bytes);
    } else {
      files.modules.push_back(std::move(*bytes));
    }
  }
  files.command_line = entry.command_line;
  const auto add = [&](std::string_view text) {
    if (text.empty()) return;
    if (!files.command_line.empty()) files.command_line += ' ';
    files.command_line += text;
  };
  add(append);
  if (entry.protocol == IsoBootProtocol::Linux && !names_serial_console(files.command_line)) {
    add("console=ttyS0");
    files.console_added = true;
  }
  return files;
}

}  // namespace vm_platform
