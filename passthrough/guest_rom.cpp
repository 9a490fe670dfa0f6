// The option ROM that a guest sees: the device's own, or a file in its place.
#include <fmt/format.h>

#include <algorithm>
#include <vm_platform/gpu.hpp>
#include <vm_platform/vfio.hpp>

#include "passthrough/sysfs.hpp"

namespace vm_platform {
namespace {

/// Whole images only: what follows the last one is padding or a flash tool's.
void trim(std::vector<std::uint8_t>& bytes, const OptionRom& rom) {
  const RomImage& first = rom.images.front();
  const RomImage& last = rom.images.back();
  const std::size_t end = std::min<std::size_t>(bytes.size(), last.offset + std::size_t{last.size});
  bytes.resize(end);
  bytes.erase(bytes.begin(), bytes.begin() + first.offset);
}

Result<GuestRom> from_file(const GpuConfig& gpu, const std::filesystem::path& path) {
  const std::string file = path.string();
  const auto content = read_kernel_file(path);
  if (!content) return fail(content.error());
  GuestRom rom{{content->begin(), content->end()}, {}};
  const auto parsed = parse_option_rom(rom.bytes);
  if (!parsed) return fail(VmError(ErrorCode::Corrupt, "use the option ROM", file, parsed.error().reason()));
  if (!parsed->matches(gpu.device.vendor, gpu.device.device)) {
    return fail(VmError(ErrorCode::InvalidArgument, "use the option ROM", file,
                        fmt::format("it is for {:04x}:{:04x}, and {} is {:04x}:{:04x}", parsed->images.front().vendor,
                                    parsed->images.front().device, gpu.device.address.to_string(), gpu.device.vendor,
                                    gpu.device.device)));
  }
  rom.problems = parsed->problems;
  std::erase_if(rom.problems, [](const std::string& problem) { return problem.starts_with("a header of"); });
  trim(rom.bytes, *parsed);
  return rom;
}

}  // namespace

Result<GuestRom> guest_rom(const GpuConfig& gpu, const std::function<Result<std::vector<std::uint8_t>>()>& read_own) {
  if (gpu.rom_file) return from_file(gpu, *gpu.rom_file);
  GuestRom rom;
  auto own = read_own();
  if (!own) {
    rom.problems.push_back(own.error().message());
    return rom;
  }
  const auto parsed = parse_option_rom(*own);
  if (!parsed) {
    rom.problems.push_back(parsed.error().message());
    return rom;
  }
  rom.problems = parsed->problems;
  if (!parsed->matches(gpu.device.vendor, gpu.device.device))
    rom.problems.push_back(fmt::format("no image is for {:04x}:{:04x}", gpu.device.vendor, gpu.device.device));
  rom.bytes = std::move(*own);
  trim(rom.bytes, *parsed);
  return rom;
}

Result<GuestRom> guest_rom(const GpuConfig& gpu, const VfioDevice& device) {
  return guest_rom(gpu, [&]() -> Result<std::vector<std::uint8_t>> {
    const auto region = device.region(VfioRegion::kRom);
    if (!region) return fail(region.error());
    std::vector<std::uint8_t> bytes(std::min<std::uint64_t>(region->size, 32 * kMiB));
    if (bytes.empty()) return fail(ErrorCode::NotFound, "read option ROM of", device.name(), "it has none");
    if (auto read = device.read(VfioRegion::kRom, 0, std::as_writable_bytes(std::span(bytes))); !read)
      return fail(read.error());
    return bytes;
  });
}

}  // namespace vm_platform
