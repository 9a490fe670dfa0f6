// Boot Loader Specification type 1 entries: https://uapi-group.org/specifications/specs/boot_loader_specification/
#include <algorithm>

#include "iso/boot_config/boot_config.hpp"

namespace vm_platform::iso {

void read_systemd_boot(ConfigFiles& files, BootMenu& menu) {
  std::string wanted;
  if (const auto config = files.read("/loader/loader.conf")) {
    std::string_view rest = *config;
    while (const auto line = take_line(rest)) {
      std::string_view text = trimmed(*line);
      if (take_word(text) == "default") wanted = text;
    }
  }
  std::vector<std::string> names = files.list("/loader/entries");
  std::ranges::sort(names, std::greater());  // newest version first, as the menu has it
  for (const std::string& name : names) {
    if (!name.ends_with(".conf") || menu.entries.size() >= kMaxBootEntries) continue;
    IsoBootEntry entry;
    entry.config = "/loader/entries/" + name;
    const auto content = files.read(entry.config);
    if (!content) continue;
    if (!menu.take(2 * content->size())) break;
    entry.id = name.substr(0, name.size() - 5);
    entry.title = entry.id;
    entry.loader = "systemd-boot";
    std::string version;
    std::string_view rest = *content;
    while (const auto line = take_line(rest)) {
      std::string_view value = trimmed(*line);
      const std::string_view key = take_word(value);
      if (key == "title") {
        entry.title = value;
      } else if (key == "version") {
        version = value;
      } else if (key == "linux") {
        entry.kernel = resolve_path("/", value);
      } else if (key == "initrd") {
        entry.initrds.push_back(resolve_path("/", value));
      } else if (key == "options") {
        if (!entry.command_line.empty()) entry.command_line += ' ';
        entry.command_line += value;
      } else if (key == "efi" || key == "uki") {
        entry.protocol = IsoBootProtocol::Firmware;
        entry.kernel = resolve_path("/", value);
        entry.problem = "is an EFI program (" + std::string(value) + ") that needs firmware";
      }
    }
    if (entry.kernel.empty()) continue;
    if (!version.empty()) entry.title += " (" + version + ")";
    entry.command_line = without_initrd(entry.command_line, entry.initrds);
    const bool matches = !wanted.empty() && (iso_glob_match(wanted, name) || iso_glob_match(wanted, entry.id));
    if (menu.add(std::move(entry)) && matches && !menu.default_entry) menu.default_entry = menu.entries.size() - 1;
  }
}

}  // namespace vm_platform::iso
