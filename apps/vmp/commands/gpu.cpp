// vmp gpu list | rom | resize; vgpu is in gpu_vgpu.cpp
#include "apps/vmp/commands/gpu.hpp"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <bit>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <vm_platform/gpu.hpp>

#include "apps/vmp/pci_json.hpp"
#include "apps/vmp/table.hpp"

namespace vm_platform::vmp {
namespace {

struct Options {
  std::string address, file, save, size, sysfs = "/sys";
  std::uint32_t bar = 0;
  bool json = false, dry_run = false;
};

std::string size_text(std::uint64_t bytes) {
  if (bytes >= kGiB && bytes % kGiB == 0) return fmt::format("{} GiB", bytes / kGiB);
  return bytes >= kMiB ? fmt::format("{} MiB", bytes / kMiB) : fmt::format("{} KiB", bytes / kKiB);
}

/// "64 MiB to 32 GiB" of a resizable BAR.
std::string range_text(const PciResizableBar& bar) {
  if (bar.sizes == 0) return "no other size";
  const auto size = [](int bit) { return size_text(1ULL << (bit + 20)); };
  return fmt::format("{} to {}", size(std::countr_zero(bar.sizes)), size(63 - std::countl_zero(bar.sizes)));
}

nlohmann::ordered_json gpu_json(const GpuConfig& gpu, const PciNames& names) {
  auto json = summary_json(gpu.device, names);
  json["boot_display"] = gpu.boot_display;
  json["vga"] = gpu.needs_vga;
  json["largest_bar"] = gpu.largest_bar;
  json["resizable_bars"] = nlohmann::ordered_json::array();
  for (const PciResizableBar& bar : gpu.resizable)
    json["resizable_bars"].push_back({{"bar", bar.bar}, {"bytes", bar.current}, {"sizes_mib", bar.sizes}});
  json["reset_methods"] = gpu.reset.methods;
  json["reset_avoided"] = gpu.reset.avoided;
  json["hide_hypervisor"] = gpu.hide_hypervisor;
  json["companions"] = nlohmann::ordered_json::array();
  for (const PciDeviceInfo& companion : gpu.companions) json["companions"].push_back(summary_json(companion, names));
  json["quirks"] = nlohmann::ordered_json::array();
  for (const DeviceQuirk* quirk : gpu.quirks)
    json["quirks"].push_back({{"what", quirk->what}, {"advice", quirk->advice}, {"source", quirk->source}});
  return json;
}

void print_gpu(const GpuConfig& gpu, const PciNames& names) {
  fmt::print("{}  {}\n", bold(gpu.device.address.to_string()), names.describe(gpu.device));
  std::vector<std::string> facts = {gpu.device.driver.empty() ? "no driver" : "driver " + gpu.device.driver};
  if (gpu.device.iommu_group) facts.push_back(fmt::format("group {}", *gpu.device.iommu_group));
  if (gpu.boot_display) facts.emplace_back("boot display");
  if (gpu.needs_vga) facts.emplace_back("legacy VGA");
  fmt::print("  {}\n", fmt::join(facts, ", "));
  for (const PciDeviceInfo& companion : gpu.companions)
    fmt::print("  with   {}  {}{}\n", companion.address.to_string(), names.describe(companion),
               companion.driver.empty() ? "" : dim("  " + companion.driver));
  if (gpu.largest_bar != 0) fmt::print("  memory largest BAR {}\n", size_text(gpu.largest_bar));
  for (const PciResizableBar& bar : gpu.resizable)
    fmt::print("         BAR {} is {} and can be {}\n", bar.bar, size_text(bar.current), range_text(bar));
  fmt::print("  reset  {}\n",
             gpu.reset.methods.empty() ? "no way that works" : fmt::format("{}", fmt::join(gpu.reset.methods, ", ")));
  for (const std::string& avoided : gpu.reset.avoided) fmt::print("         not by {}\n", avoided);
  for (const DeviceQuirk* quirk : gpu.quirks)
    fmt::print("  note   {}: {} {}\n", quirk->what, quirk->advice, dim(fmt::format("({})", quirk->source)));
}

int list(const Options& options) {
  const auto gpus = GpuPassthrough::list(options.sysfs);
  if (!gpus) return report(gpus.error());
  const auto names = PciNames::load();
  auto json = nlohmann::ordered_json::array();
  for (const GpuConfig& gpu : *gpus) {
    if (options.json)
      json.push_back(gpu_json(gpu, names));
    else
      print_gpu(gpu, names);
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

/// From the device, or from the file that is given instead.
Result<std::vector<std::uint8_t>> rom_bytes(const Options& options, const std::optional<PciDeviceInfo>& device) {
  if (options.file.empty()) {
    if (!device) return fail(VmError(ErrorCode::InvalidArgument, "read option ROM", {}, "name a device or --file"));
    return read_option_rom(device->address, options.sysfs);
  }
  std::ifstream file(options.file, std::ios::binary);
  if (!file) return fail(VmError::from_os(errno, "open", options.file));
  return std::vector<std::uint8_t>(std::istreambuf_iterator<char>(file), {});
}

int rom(const Options& options) {
  std::optional<PciDeviceInfo> device;
  if (!options.address.empty()) {
    const auto address = PciAddress::parse(options.address);
    if (!address) return report(address.error());
    auto info = read_pci_device(*address, options.sysfs);
    if (!info) return report(info.error());
    device = std::move(*info);
  }
  const auto bytes = rom_bytes(options, device);
  if (!bytes) return report(bytes.error());
  auto parsed = parse_option_rom(*bytes);
  if (!parsed) return report(parsed.error());
  if (device && !parsed->matches(device->vendor, device->device))
    parsed->problems.push_back("no image is for " + id_text(device->vendor, device->device));
  if (!options.save.empty()) {
    std::ofstream out(options.save, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(bytes->data()), static_cast<std::streamsize>(bytes->size()));
    if (!out.flush()) return report(VmError(ErrorCode::Io, "write", options.save));
  }
  nlohmann::ordered_json json{{"bytes", bytes->size()}, {"problems", parsed->problems}};
  json["images"] = nlohmann::ordered_json::array();
  Table table({"OFFSET", "BYTES", "KIND", "FOR", "CHECKSUM"});
  for (const RomImage& image : parsed->images) {
    json["images"].push_back({{"kind", kind_name(image.kind)},
                              {"offset", image.offset},
                              {"size", image.size},
                              {"id", id_text(image.vendor, image.device)},
                              {"checksum_ok", image.checksum_ok}});
    const bool legacy = image.kind == RomImage::Kind::Legacy;
    table.add({fmt::format("{:#x}", image.offset), std::to_string(image.size), kind_name(image.kind),
               id_text(image.vendor, image.device),
               !legacy             ? "none"
               : image.checksum_ok ? "right"
                                   : "wrong"});
  }
  if (options.json)
    fmt::print("{}\n", json.dump(2));
  else
    table.print();
  for (const std::string& problem : parsed->problems) complain(problem);
  return parsed->problems.empty() ? kDone : kFailed;
}

int resize(const Options& options) {
  const auto address = PciAddress::parse(options.address);
  if (!address) return report(address.error());
  const auto size = parse_size(options.size);
  if (!size) return report(size.error());
  const auto device = read_pci_device(*address, options.sysfs);
  if (!device) return report(device.error());
  const auto now = std::ranges::find(device->bars, options.bar, &PciBar::index);
  const std::uint64_t before = now == device->bars.end() ? 0 : now->size;
  if (!options.dry_run) {
    if (auto done = resize_bar(*address, static_cast<std::uint8_t>(options.bar), *size, options.sysfs); !done)
      return report(done.error());
  }
  if (options.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"bar", options.bar}, {"before", before}, {"after", *size}}.dump(2));
  else
    fmt::print("BAR {} of {}: {} -> {}\n", options.bar, address->to_string(), size_text(before), size_text(*size));
  return kDone;
}

}  // namespace

void add_gpu(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  auto* gpu = app.add_subcommand("gpu", "See GPUs, check their option ROMs, and hand out parts of them");
  gpu->require_subcommand(1);
  const auto command = [&](const char* name, const char* text, int (*run)(const Options&)) {
    auto* added = gpu->add_subcommand(name, text);
    added->add_flag("--json", options->json, "Print one JSON document");
    added->add_option("--sysfs", options->sysfs, "Another sysfs tree than /sys");
    added->callback([&action, options, run] { action = [options, run] { return run(*options); }; });
    return added;
  };
  command("list", "List GPUs with what belongs to them, how they are reset, and known troubles", list)
      ->footer("Example:\n  vmp gpu list");

  auto* rom_command = command("rom", "Read an option ROM and check it", rom);
  rom_command->add_option("ADDRESS", options->address, "The device to read it from, or that the file should be for");
  rom_command->add_option("--file", options->file, "Check this file instead");
  rom_command->add_option("--save", options->save, "Write what was read to this file");
  rom_command->footer(
      "Exit status 1 means that something is wrong with it.\n\nExamples:\n"
      "  sudo vmp gpu rom 01:00.0 --save gpu.rom\n  vmp gpu rom 01:00.0 --file downloaded.rom");

  auto* resize_command = command("resize", "Change the size of a resizable BAR of a device without a driver", resize);
  resize_command->add_option("ADDRESS", options->address, "Such as 0000:3b:00.0 or 3b:00.0")->required();
  resize_command->add_option("BAR", options->bar, "0 to 5")->required()->check(CLI::Range(0, 5));
  resize_command->add_option("SIZE", options->size, "Such as 256M or 16G")->required();
  resize_command->add_flag("--dry-run", options->dry_run, "Only say what would change");
  resize_command->footer(
      "`vmp gpu list` shows the sizes a BAR can have. To have it resized while a device is taken:\n"
      "  sudo vmp passthrough take --bar 1=16G 01:00.0\n\nExample:\n  sudo vmp gpu resize 01:00.0 1 16G");
  add_vgpu(*gpu, action);
}

}  // namespace vm_platform::vmp
