#include <algorithm>
#include <vm_platform/gpu.hpp>

namespace vm_platform {
namespace {

constexpr GpuQuirk kQuirks[] = {
    {0x1002, 0x67c0, 0x67ff, "does not come back from a reset while the host runs (AMD Polaris)",
     "start the host's driver on it once before, or use the vendor-reset module", "github.com/gnif/vendor-reset"},
    {0x1002, 0x6860, 0x687f, "does not come back from a bus reset (AMD Vega 10)",
     "use the vendor-reset module; a guest that ends uncleanly needs a reboot of the host",
     "github.com/gnif/vendor-reset"},
    {0x1002, 0x7310, 0x731f, "does not come back from a bus reset (AMD Navi 10)",
     "use the vendor-reset module; a guest that ends uncleanly needs a reboot of the host",
     "github.com/gnif/vendor-reset"},
    {0x1002, 0x7340, 0x734f, "does not come back from a bus reset (AMD Navi 14)",
     "use the vendor-reset module; a guest that ends uncleanly needs a reboot of the host",
     "github.com/gnif/vendor-reset"},
    {0x1002, 0x98e4, 0x98e4, "its ATS is broken (AMD Stoney)", "the kernel turns ATS off",
     "Linux drivers/pci/quirks.c, quirk_amd_harvest_no_ats"},
    {0x10de, 0x2340, 0x237f, "does not survive a bus reset (NVIDIA GPUs in some server systems)",
     "the kernel uses function-level reset instead", "Linux drivers/pci/quirks.c, quirk_nvidia_no_bus_reset"},
};

bool is_display(const PciDeviceInfo& device) { return device.base_class() == 0x03; }

Result<std::vector<GpuConfig>> list_of(std::uint16_t vendor, const std::filesystem::path& sysfs) {
  auto all = GpuPassthrough::list(sysfs);
  if (all) std::erase_if(*all, [&](const GpuConfig& gpu) { return gpu.device.vendor != vendor; });
  return all;
}

}  // namespace

std::vector<const GpuQuirk*> gpu_quirks(const PciDeviceInfo& device) {
  std::vector<const GpuQuirk*> found;
  for (const GpuQuirk& quirk : kQuirks)
    if (quirk.vendor == device.vendor && quirk.first_device <= device.device && device.device <= quirk.last_device)
      found.push_back(&quirk);
  return found;
}

std::vector<GpuConfig> GpuPassthrough::select(const std::vector<PciDeviceInfo>& functions) {
  std::vector<GpuConfig> gpus;
  for (const PciDeviceInfo& device : functions) {
    if (!is_display(device)) continue;
    GpuConfig gpu;
    gpu.device = device;
    for (const PciDeviceInfo& other : functions)
      if (other.address != device.address && other.address.same_slot(device.address) && !is_display(other) &&
          !other.is_bridge() && other.vendor == device.vendor)
        gpu.companions.push_back(other);
    gpu.boot_display = device.boot_vga;
    gpu.needs_vga = device.class_and_subclass() == 0x0300;
    for (const PciBar& bar : device.bars)
      if (bar.index < 6 && !bar.io) gpu.largest_bar = std::max(gpu.largest_bar, bar.size);
    gpu.resizable = decode_resizable_bars(device.config, device.capabilities);
    gpu.quirks = gpu_quirks(device);
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

}  // namespace vm_platform
