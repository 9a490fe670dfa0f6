#include <algorithm>
#include <vm_platform/gpu.hpp>

namespace vm_platform {
namespace {

bool is_display(const PciDeviceInfo& device) { return device.base_class() == 0x03; }

Result<std::vector<GpuConfig>> list_of(std::uint16_t vendor, const std::filesystem::path& sysfs) {
  auto all = GpuPassthrough::list(sysfs);
  if (all) std::erase_if(*all, [&](const GpuConfig& gpu) { return gpu.device.vendor != vendor; });
  return all;
}

}  // namespace

std::vector<GpuConfig> GpuPassthrough::select(const std::vector<PciDeviceInfo>& functions) {
  std::vector<GpuConfig> gpus;
  for (const PciDeviceInfo& device : functions) {
    if (!is_display(device)) continue;
    GpuConfig gpu;
    gpu.device = device;
    for (const PciDeviceInfo& other : functions)
      // Of the same maker: an APU's slot also holds USB and security functions, which are the processor's.
      if (other.address != device.address && other.address.same_slot(device.address) && !is_display(other) &&
          !other.is_bridge() && other.vendor == device.vendor)
        gpu.companions.push_back(other);
    gpu.boot_display = device.boot_vga;
    gpu.needs_vga = device.class_and_subclass() == 0x0300;
    for (const PciBar& bar : device.bars)
      if (bar.index < 6 && !bar.io) gpu.largest_bar = std::max(gpu.largest_bar, bar.size);
    gpu.resizable = decode_resizable_bars(device.config, device.capabilities);
    gpu.quirks = device_quirks(device);
    gpu.reset = choose_reset(device);
    gpu.hide_hypervisor = device.vendor == NvidiaGpuPassthrough::kVendor && device.class_and_subclass() == 0x0300;
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

Result<std::vector<GpuConfig>> GpuPassthrough::list(const std::filesystem::path& sysfs) {
  const auto functions = scan_pci(sysfs);
  if (!functions) return fail(functions.error());
  return select(*functions);
}

Result<std::vector<GpuConfig>> NvidiaGpuPassthrough::list(const std::filesystem::path& sysfs) {
  return list_of(kVendor, sysfs);
}
Result<std::vector<GpuConfig>> AmdGpuPassthrough::list(const std::filesystem::path& sysfs) {
  return list_of(kVendor, sysfs);
}
Result<std::vector<GpuConfig>> IntelGpuPassthrough::list(const std::filesystem::path& sysfs) {
  return list_of(kVendor, sysfs);
}

}  // namespace vm_platform
