#include <algorithm>
#include <vm_platform/npu.hpp>

namespace vm_platform {
namespace {

constexpr std::string_view kFirmware = "the guest's driver loads firmware: install it in the guest";

// IDs as in the drivers' PCI tables (Linux tree unless said otherwise) and pci.ids.
constexpr NpuFamily kFamilies[] = {
    {0x8086, 0x7d1d, 0x7d1d, "Intel NPU (Meteor Lake)", "intel_vpu", kFirmware, "drivers/accel/ivpu/ivpu_drv.h"},
    {0x8086, 0xad1d, 0xad1d, "Intel NPU (Arrow Lake)", "intel_vpu", kFirmware, "drivers/accel/ivpu/ivpu_drv.h"},
    {0x8086, 0x643e, 0x643e, "Intel NPU (Lunar Lake)", "intel_vpu", kFirmware, "drivers/accel/ivpu/ivpu_drv.h"},
    {0x8086, 0xb03e, 0xb03e, "Intel NPU (Panther Lake)", "intel_vpu", kFirmware, "drivers/accel/ivpu/ivpu_drv.h"},
    {0x1022, 0x1502, 0x1502, "AMD XDNA (Phoenix)", "amdxdna",
     "needs PASID and the IOMMU's second level inside the guest; most hosts cannot offer that yet",
     "drivers/accel/amdxdna"},
    {0x1022, 0x17f0, 0x17f0, "AMD XDNA 2 (Strix)", "amdxdna",
     "needs PASID and the IOMMU's second level inside the guest; most hosts cannot offer that yet",
     "drivers/accel/amdxdna"},
    {0x1da3, 0x0001, 0x0001, "Habana Goya", "habanalabs", kFirmware, "drivers/accel/habanalabs"},
    {0x1da3, 0x1000, 0x1010, "Habana Gaudi", "habanalabs", kFirmware, "drivers/accel/habanalabs"},
    {0x1da3, 0x1020, 0x1020, "Habana Gaudi 2", "habanalabs", kFirmware, "drivers/accel/habanalabs"},
    {0x17cb, 0xa100, 0xa100, "Qualcomm Cloud AI 100", "qaic", kFirmware, "drivers/accel/qaic"},
    {0x17cb, 0xa080, 0xa080, "Qualcomm Cloud AI 80", "qaic", kFirmware, "drivers/accel/qaic"},
    {0x1ac1, 0x089a, 0x089a, "Google Coral Edge TPU", "apex", "its class is 0880h or ff00h on some boards", "pci.ids"},
    {0x1bcf, 0x001c, 0x001c, "NEC SX-Aurora Vector Engine", "ve_drv",
     "large BARs: the guest needs a 64-bit window of 128 GiB", "pci.ids"},
    {0x1d0f, 0x7064, 0x7164, "AWS Inferentia and Trainium", "neuron", "", "pci.ids"},
    {0x1e60, 0x2864, 0x2864, "Hailo-8", "hailo", kFirmware, "pci.ids"},
};

}  // namespace

const NpuFamily* find_npu(const PciDeviceInfo& device) noexcept {
  const auto found = std::ranges::find_if(kFamilies, [&](const NpuFamily& family) {
    return family.vendor == device.vendor && family.first_device <= device.device &&
           device.device <= family.last_device;
  });
  return found == std::end(kFamilies) ? nullptr : &*found;
}

std::vector<NpuConfig> NpuPassthrough::select(const std::vector<PciDeviceInfo>& functions) {
  std::vector<NpuConfig> accelerators;
  for (const PciDeviceInfo& device : functions) {
    const NpuFamily* family = find_npu(device);
    std::vector<std::string> nodes;
    for (const std::string& child : device.children)
      if (child.starts_with("accel/")) nodes.push_back(child.substr(6));
    if (family == nullptr && device.base_class() != 0x12 && nodes.empty()) continue;
    accelerators.push_back({device, std::string(family == nullptr ? "Processing accelerator" : family->name),
                            std::string(family == nullptr ? "" : family->needs), std::move(nodes)});
  }
  return accelerators;
}

Result<std::vector<NpuConfig>> NpuPassthrough::list(const std::filesystem::path& sysfs) {
  const auto functions = scan_pci(sysfs);
  if (!functions) return fail(functions.error());
  return select(*functions);
}

}  // namespace vm_platform
