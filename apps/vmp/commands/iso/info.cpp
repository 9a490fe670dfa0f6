#include <fmt/core.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "apps/vmp/commands/iso/common.hpp"

namespace vm_platform::vmp::iso {
namespace {

nlohmann::ordered_json time_json(const IsoTime& time) {
  if (!time.present) return nullptr;
  return {{"unix_seconds", time.seconds}, {"zone_minutes", time.zone_minutes}};
}

nlohmann::ordered_json to_json(const ImageOptions& options, const IsoVolumeInfo& v,
                               const Result<IsoBootCatalog>& catalog) {
  nlohmann::ordered_json j{{"image", options.image},
                           {"image_size", v.image_size},
                           {"sector_format", to_string(v.sector_format)},
                           {"volume_id", v.volume_id},
                           {"system_id", v.system_id},
                           {"volume_set_id", v.volume_set_id},
                           {"publisher", v.publisher},
                           {"preparer", v.preparer},
                           {"application", v.application},
                           {"block_size", v.block_size},
                           {"volume_blocks", v.volume_blocks},
                           {"truncated", v.truncated()},
                           {"created", time_json(v.created)},
                           {"modified", time_json(v.modified)},
                           {"names", to_string(v.names)},
                           {"joliet_level", v.joliet_level},
                           {"rock_ridge", v.rock_ridge_extension},
                           {"udf_bridge", v.udf_bridge},
                           {"xa", v.xa}};
  for (const IsoNameSpace names : v.available_names) j["available_names"].push_back(to_string(names));
  j["sessions"] = nlohmann::ordered_json::array();
  for (const IsoSession& s : v.sessions) {
    j["sessions"].push_back(
        {{"start_block", s.start_block}, {"volume_blocks", s.volume_blocks}, {"volume_id", s.volume_id}});
  }
  j["partitions"] = nlohmann::ordered_json::array();
  for (const IsoPartition& p : v.partitions) {
    j["partitions"].push_back({{"scheme", p.scheme},
                               {"type", p.type},
                               {"name", p.name},
                               {"offset", p.offset},
                               {"size", p.size},
                               {"active", p.active}});
  }
  j["boot_images"] = nlohmann::ordered_json::array();
  if (catalog) {
    for (const IsoBootImage& b : catalog->images) {
      j["boot_images"].push_back({{"platform", iso_boot_platform_name(b.platform)},
                                  {"bootable", b.bootable},
                                  {"emulation", to_string(b.emulation)},
                                  {"offset", b.offset},
                                  {"sectors", b.sector_count}});
    }
  }
  return j;
}

/// A label and its value, where there is one.
void line(Output& out, std::string_view label, std::string_view value) {
  if (value.empty()) return;
  out.put(label);
  out.put(std::string(label.size() < 14 ? 14 - label.size() : 1, ' '));
  out.name(value);
  out.put('\n');
}
void time_line(Output& out, std::string_view label, const IsoTime& time) {
  if (!time.present) return;
  out.put(label);
  out.put(std::string(14 - label.size(), ' '));
  out.time(time);
  out.put(fmt::format(" {}{:02}:{:02}\n", time.zone_minutes < 0 ? '-' : '+', std::abs(time.zone_minutes) / 60,
                      std::abs(time.zone_minutes) % 60));
}

int run(const ImageOptions& options) {
  auto image = open_image(options);
  if (!image) return report(image.error());
  const IsoVolumeInfo& v = image->volume();
  const auto catalog = image->boot_catalog();
  Output out;
  if (options.json) {
    out.document(to_json(options, v, catalog));
    return out.finish(kDone);
  }
  line(out, "image", options.image);
  line(out, "volume", v.volume_id);
  line(out, "system", v.system_id);
  line(out, "volume set", v.volume_set_id);
  line(out, "publisher", v.publisher);
  line(out, "preparer", v.preparer);
  line(out, "application", v.application);
  line(out, "size",
       fmt::format("{} bytes, of which the volume has {} ({} blocks of {})", v.image_size,
                   v.volume_blocks * v.block_size, v.volume_blocks, v.block_size));
  if (v.truncated())
    line(out, "TRUNCATED",
         fmt::format("{} bytes are missing at the end", v.volume_blocks * v.block_size - v.image_size));
  time_line(out, "created", v.created);
  time_line(out, "modified", v.modified);
  time_line(out, "expires", v.expires);
  time_line(out, "effective", v.effective);
  std::string names;
  for (const IsoNameSpace space : v.available_names) {
    names += names.empty() ? "" : ", ";
    names += to_string(space);
    if (space == IsoNameSpace::Joliet) names += fmt::format(" level {}", v.joliet_level);
    if (space == IsoNameSpace::RockRidge && !v.rock_ridge_extension.empty())
      names += " (" + v.rock_ridge_extension + ")";
    if (space == v.names) names += " [used]";
  }
  line(out, "names", names);
  if (v.sector_format != IsoSectorFormat::Cooked2048) line(out, "sectors", to_string(v.sector_format));
  if (v.udf_bridge) line(out, "udf", "bridge: a UDF file system describes the same files");
  if (v.xa) line(out, "xa", "CD-XA");
  if (v.set_size > 1) line(out, "set", fmt::format("volume {} of {}", v.sequence_number, v.set_size));
  if (v.sessions.size() > 1) {
    for (const IsoSession& s : v.sessions) {
      line(out, "session",
           fmt::format("at sector {}, {} sectors, {}{}", s.start_block, s.volume_blocks, s.volume_id,
                       s.start_block == v.session_start ? " [used]" : ""));
    }
  }
  for (const IsoPartition& p : v.partitions) {
    line(out, "partition",
         fmt::format("{} {} at byte {}, {} bytes{}{}{}", p.scheme, p.type, p.offset, p.size, p.name.empty() ? "" : ", ",
                     p.name, p.active ? ", active" : ""));
  }
  if (catalog) {
    for (const IsoBootImage& b : catalog->images) {
      line(out, "boot image",
           fmt::format("{}, {}, emulation {}, {} sectors at byte {}", iso_boot_platform_name(b.platform),
                       b.bootable ? "bootable" : "not bootable", to_string(b.emulation), b.sector_count, b.offset));
    }
  } else if (v.has_boot_catalog) {
    line(out, "boot image", catalog.error().message());
  }
  return out.finish(kDone);
}

}  // namespace

void add_info(CLI::App& iso, Action& action) {
  auto* command = iso.add_subcommand("info", "What an image is: volume, names, sessions, partitions, boot images");
  auto options = std::make_shared<ImageOptions>();
  add_image_options(*command, *options);
  command->footer("Examples:\n  vmp iso info debian.iso\n  vmp iso info --json debian.iso");
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace vm_platform::vmp::iso
