// vmp gpu list | rom
#include <fmt/core.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <vm_platform/gpu.hpp>

#include "apps/vmp/command.hpp"
#include "apps/vmp/pci_json.hpp"

namespace vm_platform::vmp {
namespace {

struct Options {
  std::string address, file, save, sysfs = "/sys";
  bool json = false;
};

int list(const Options& options) {
  const auto gpus = GpuPassthrough::list(options.sysfs);
  if (!gpus) return report(gpus.error());
  const auto names = PciNames::load();
  auto json = nlohmann::ordered_json::array();
  for (const GpuConfig& gpu : *gpus) {
    auto entry = summary_json(gpu.device, names);
    entry["boot_display"] = gpu.boot_display;
    entry["vga"] = gpu.needs_vga;
    entry["largest_bar"] = gpu.largest_bar;
    entry["resizable_bars"] = gpu.resizable.size();
    entry["companions"] = nlohmann::ordered_json::array();
    for (const PciDeviceInfo& companion : gpu.companions) entry["companions"].push_back(summary_json(companion, names));
    entry["quirks"] = nlohmann::ordered_json::array();
    for (const GpuQuirk* quirk : gpu.quirks)
      entry["quirks"].push_back({{"what", quirk->what}, {"advice", quirk->advice}, {"source", quirk->source}});
    json.push_back(std::move(entry));
    if (options.json) continue;
    fmt::print("{}  {}  {}{}\n", gpu.device.address.to_string(), names.describe(gpu.device),
               gpu.device.driver.empty() ? "no driver" : gpu.device.driver, gpu.boot_display ? ", boot display" : "");
    for (const PciDeviceInfo& companion : gpu.companions)
      fmt::print("  with {}  {}\n", companion.address.to_string(), names.describe(companion));
    fmt::print("  largest BAR {} MiB{}\n", gpu.largest_bar / kMiB, gpu.resizable.empty() ? "" : ", resizable");
    for (const GpuQuirk* quirk : gpu.quirks) fmt::print("  {}: {} ({})\n", quirk->what, quirk->advice, quirk->source);
  }
  if (options.json)
    fmt::print("{}\n", json.dump(2));
  else if (gpus->empty())
    fmt::print("This host has no display devices.\n");
  return kDone;
}

constexpr const char* kKinds[] = {"legacy", "Open Firmware", "PA-RISC", "UEFI"};
const char* kind_name(RomImage::Kind kind) {
  return kind == RomImage::Kind::Other ? "unknown" : kKinds[static_cast<std::size_t>(kind)];
}

int rom(const Options& options) {
  std::vector<std::uint8_t> bytes;
  std::optional<PciDeviceInfo> device;
  if (!options.address.empty()) {
    const auto address = PciAddress::parse(options.address);
    if (!address) return report(address.error());
    auto info = read_pci_device(*address, options.sysfs);
    if (!info) return report(info.error());
    device = std::move(*info);
  }
  if (options.file.empty()) {
    if (!device) return report(VmError(ErrorCode::InvalidArgument, "read option ROM", {}, "name a device or --file"));
    auto content = read_option_rom(device->address, options.sysfs);
    if (!content) return report(content.error());
    bytes = std::move(*content);
  } else {
    std::ifstream file(options.file, std::ios::binary);
    if (!file) return report(VmError::from_os(errno, "open", options.file));
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  }
  auto parsed = parse_option_rom(bytes);
  if (!parsed) return report(parsed.error());
  if (device && !parsed->matches(device->vendor, device->device))
    parsed->problems.push_back("no image is for " + id_text(device->vendor, device->device));
  if (!options.save.empty()) {
    std::ofstream out(options.save, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!out.flush()) return report(VmError(ErrorCode::Io, "write", options.save));
  }
  nlohmann::ordered_json json{{"bytes", bytes.size()}, {"problems", parsed->problems}};
  json["images"] = nlohmann::ordered_json::array();
  for (const RomImage& image : parsed->images) {
    json["images"].push_back({{"kind", kind_name(image.kind)},
                              {"offset", image.offset},
                              {"size", image.size},
                              {"id", id_text(image.vendor, image.device)},
                              {"checksum_ok", image.checksum_ok}});
    if (!options.json)
      fmt::print("{:#08x}  {} bytes  {} image for {}\n", image.offset, image.size, kind_name(image.kind),
                 id_text(image.vendor, image.device));
  }
  if (options.json) fmt::print("{}\n", json.dump(2));
  for (const std::string& problem : parsed->problems) fmt::print(stderr, "vmp: {}\n", problem);
  return parsed->problems.empty() ? kDone : kFailed;
}

}  // namespace

void add_gpu(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  auto* gpu = app.add_subcommand("gpu", "See GPUs, and read and check their option ROMs");
  gpu->require_subcommand(1);
  const auto common = [&](CLI::App* command, int (*run)(const Options&)) {
    command->add_flag("--json", options->json, "Print one JSON document");
    command->add_option("--sysfs", options->sysfs, "Another sysfs tree than /sys");
    command->callback([&action, options, run] { action = [options, run] { return run(*options); }; });
  };
  auto* list_command = gpu->add_subcommand("list", "List GPUs with what belongs to them and known troubles");
  common(list_command, list);
  list_command->footer("Example:\n  vmp gpu list");
  auto* rom_command = gpu->add_subcommand("rom", "Read an option ROM and check it");
  common(rom_command, rom);
  rom_command->add_option("ADDRESS", options->address, "The device to read it from, or that the file should be for");
  rom_command->add_option("--file", options->file, "Check this file instead");
  rom_command->add_option("--save", options->save, "Write what was read to this file");
  rom_command->footer(
      "Exit status 1 means that something is wrong with it.\n\nExamples:\n"
      "  sudo vmp gpu rom 01:00.0 --save gpu.rom\n  vmp gpu rom 01:00.0 --file downloaded.rom");
}

}  // namespace vm_platform::vmp
