#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <vm_platform/iso_boot.hpp>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
namespace {

nlohmann::ordered_json to_json(const IsoBootEntry& entry) {
  return {{"id", entry.id},
          {"title", entry.title},
          {"loader", entry.loader},
          {"config", entry.config},
          {"protocol", to_string(entry.protocol)},
          {"kernel", entry.kernel},
          {"initrds", entry.initrds},
          {"command_line", entry.command_line},
          {"container", entry.container},
          {"default", entry.is_default},
          {"problem", entry.problem}};
}

void show(Output& out, std::size_t number, const IsoBootEntry& entry) {
  out.put(entry.is_default ? "* " : "  ");
  out.number(number, 2);
  out.put("  ");
  out.name(entry.id);
  if (entry.title != entry.id) {
    out.put("  \"");
    out.name(entry.title);
    out.put('"');
  }
  out.put("  (" + entry.loader + ")\n");
  const auto line = [&](std::string_view label, std::string_view value) {
    if (value.empty()) return;
    out.put("        ");
    out.put(label);
    out.name(value);
    out.put('\n');
  };
  line("image    ", entry.container);
  line("kernel   ", entry.kernel);
  for (const std::string& initrd : entry.initrds) line("initrd   ", initrd);
  line("options  ", entry.command_line);
  line("problem  ", entry.problem);
}

int run(const ImageOptions& options) {
  auto image = open_image(options);
  if (!image) return report(image.error());
  const auto entries = find_boot_entries(*image);
  const auto catalog = image->boot_catalog();
  const int status = entries || catalog ? kDone : kFailed;
  Output out;
  if (options.json) {
    nlohmann::ordered_json j{{"image", options.image},
                             {"entries", nlohmann::ordered_json::array()},
                             {"boot_images", nlohmann::ordered_json::array()}};
    if (entries) {
      for (const IsoBootEntry& entry : *entries) j["entries"].push_back(to_json(entry));
    }
    if (catalog) {
      for (const IsoBootImage& b : catalog->images) {
        j["boot_images"].push_back({{"platform", iso_boot_platform_name(b.platform)},
                                    {"bootable", b.bootable},
                                    {"emulation", to_string(b.emulation)},
                                    {"load_segment", b.load_segment},
                                    {"offset", b.offset},
                                    {"sectors", b.sector_count}});
      }
    }
    out.document(j);
    return out.finish(status);
  }
  if (entries) {
    out.put("Entries of the boot menu (* is the default; `vmp run --iso IMAGE --entry ID` boots another):\n");
    std::size_t number = 0;
    for (const IsoBootEntry& entry : *entries) show(out, ++number, entry);
  } else {
    out.put("Entries of the boot menu: ");
    out.name(entries.error().reason());
    out.put('\n');
  }
  if (catalog) {
    out.put("Boot images for firmware (El Torito):\n");
    for (const IsoBootImage& b : catalog->images) {
      out.put(fmt::format("  {:<8} {}, emulation {}, {} sectors of 512 at byte {}\n",
                          iso_boot_platform_name(b.platform), b.bootable ? "bootable" : "not bootable",
                          to_string(b.emulation), b.sector_count, b.offset));
    }
  } else if (image->volume().has_boot_catalog) {
    (void)report(catalog.error());
  }
  return out.finish(status);
}

}  // namespace

void add_boot(CLI::App& iso, Action& action) {
  auto* command = iso.add_subcommand("boot", "What an image boots: its menu's entries, and its images for firmware");
  auto options = std::make_shared<ImageOptions>();
  add_image_options(*command, *options);
  command->footer(
      "Reads isolinux / syslinux, GRUB and systemd-boot configurations. Exit status 1: nothing in it boots.\n"
      "Examples:\n  vmp iso boot debian.iso\n  vmp iso boot --json debian.iso");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace vm_platform::vmp::iso
