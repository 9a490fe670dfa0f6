#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <vm_platform/gpu.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

/// "64M, 256M, 16G" of the bit mask that sysfs gives: bit n is 2^(n + 20) bytes.
std::string size_list(std::uint64_t sizes) {
  std::string list;
  for (unsigned n = 0; n < 44; ++n) {
    if ((sizes >> n & 1) == 0) continue;
    list += (list.empty() ? "" : ", ") + (n < 10 ? fmt::format("{}M", 1U << n) : fmt::format("{}G", 1ULL << (n - 10)));
  }
  return list;
}

}  // namespace

Result<void> resize_bar(PciAddress address, std::uint8_t bar, std::uint64_t bytes, const std::filesystem::path& sysfs) {
  const std::string name = address.to_string(), subject = fmt::format("BAR {} of {}", bar, name);
  const auto device = sysfs / "bus/pci/devices" / name;
  const auto info = read_pci_device(address, sysfs);
  if (!info) return fail(info.error());
  const auto file = device / fmt::format("resource{}_resize", bar);
  const auto offered = read_kernel_file(file);
  const auto sizes = offered ? text::number(text::trim(*offered), 16) : std::nullopt;
  if (!sizes || *sizes == 0) {
    return fail(
        VmError(ErrorCode::Unsupported, "resize", subject, "the kernel offers no sizes for it")
            .with_hint("the device has to have the Resizable BAR capability, and the kernel to be 6.1 or later"));
  }
  const bool fits = std::has_single_bit(bytes) && bytes >= kMiB && (*sizes >> (std::countr_zero(bytes) - 20) & 1) != 0;
  if (!fits) {
    return fail(
        VmError(ErrorCode::InvalidArgument, "resize", subject, fmt::format("{} bytes is not a size it has", bytes))
            .with_hint("it can be " + size_list(*sizes)));
  }
  const auto before = std::ranges::find(info->bars, bar, &PciBar::index);
  if (before != info->bars.end() && before->size == bytes) return {};
  if (!info->driver.empty()) {
    return fail(VmError(ErrorCode::Busy, "resize", subject, info->driver + " is bound to the device")
                    .with_hint("BARs move while they are resized: do it while no driver is bound, as take --bar does"));
  }
  const unsigned code = static_cast<unsigned>(std::countr_zero(bytes)) - 20;
  if (auto written = write_kernel_file(file, std::to_string(code), "resize " + subject); !written) {
    return fail(
        VmError(written.error())
            .with_hint("the bridges above it may have no room: turn on \"Above 4G decoding\" and resizable BARs "
                       "in the firmware setup"));
  }
  const auto now = read_pci_device(address, sysfs);
  const auto found = now ? std::ranges::find(now->bars, bar, &PciBar::index) : std::vector<PciBar>::const_iterator{};
  if (!now || found == now->bars.end() || found->size != bytes)
    return fail(ErrorCode::Io, "resize", subject, "the kernel accepted it, and the BAR has another size");
  return {};
}

}  // namespace vm_platform
