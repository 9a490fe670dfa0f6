#include <algorithm>
#include <vm_platform/npu.hpp>

namespace vm_platform {
namespace {

constexpr std::string_view kFirmware = "the guest's driver loads firmware: install it in the guest";

constexpr std::string_view kSva =
    "the driver shares page tables with the device (PASID): the guest needs a virtual IOMMU that offers it";
constexpr std::string_view kQaic = "the guest's driver loads firmware, and wants 32 MSI vectors or makes do with one";

// Each ID as it stands in the driver or list named beside it. All but those of class 1200h would go unnoticed without
// this table: XDNA says 1180h (signal processing), Coral 0880h or 00ffh, NEC's vector engine 0b40h.
constexpr NpuFamily kFamilies[] = {
    {0x8086, 0x7d1d, 0x7d1d, "Intel NPU (Meteor Lake)", "intel_vpu", kFirmware, "Linux drivers/accel/ivpu/ivpu_drv.h"},
    {0x8086, 0xad1d, 0xad1d, "Intel NPU (Arrow Lake)", "intel_vpu", kFirmware, "Linux drivers/accel/ivpu/ivpu_drv.h"},
    {0x8086, 0x643e, 0x643e, "Intel NPU (Lunar Lake)", "intel_vpu", kFirmware, "Linux drivers/accel/ivpu/ivpu_drv.h"},
    {0x8086, 0xb03e, 0xb03e, "Intel NPU (Panther Lake)", "intel_vpu", kFirmware, "Linux drivers/accel/ivpu/ivpu_drv.h"},
    {0x8086, 0xfd3e, 0xfd3e, "Intel NPU (Wildcat Lake)", "intel_vpu", kFirmware, "Linux drivers/accel/ivpu/ivpu_drv.h"},
    {0x8086, 0xd71d, 0xd71d, "Intel NPU (Nova Lake)", "intel_vpu", kFirmware, "Linux drivers/accel/ivpu/ivpu_drv.h"},
    {0x1022, 0x1502, 0x1502, "AMD XDNA (Phoenix, Hawk Point)", "amdxdna", kSva,
     "Linux drivers/accel/amdxdna/amdxdna_pci_drv.c"},
    {0x1022, 0x17f0, 0x17f0, "AMD XDNA 2 (Strix, Krackan)", "amdxdna", kSva,
     "Linux drivers/accel/amdxdna/amdxdna_pci_drv.c"},
    {0x1da3, 0x0001, 0x0001, "Habana Goya", "habanalabs", kFirmware,
     "Linux drivers/accel/habanalabs/common/habanalabs_drv.c"},
    {0x1da3, 0x0030, 0x0030, "Habana Greco", "habanalabs", kFirmware, "pci.ids"},
    {0x1da3, 0x1000, 0x1000, "Habana Gaudi", "habanalabs", kFirmware,
     "Linux drivers/accel/habanalabs/common/habanalabs_drv.c"},
    {0x1da3, 0x1010, 0x1010, "Habana Gaudi (secured)", "habanalabs", kFirmware,
     "Linux drivers/accel/habanalabs/common/habanalabs_drv.c"},
    {0x1da3, 0x1020, 0x1020, "Habana Gaudi 2", "habanalabs", kFirmware,
     "Linux drivers/accel/habanalabs/common/habanalabs_drv.c"},
    {0x17cb, 0xa080, 0xa080, "Qualcomm Cloud AI 80", "qaic", kQaic, "Linux drivers/accel/qaic/qaic_drv.c"},
    {0x17cb, 0xa100, 0xa100, "Qualcomm Cloud AI 100", "qaic", kQaic, "Linux drivers/accel/qaic/qaic_drv.c"},
    {0x1ac1, 0x089a, 0x089a, "Google Coral Edge TPU", "apex", "the guest needs the gasket and apex modules",
     "gasket driver, apex_driver.c; pci.ids"},
    {0x1bcf, 0x001c, 0x001c, "NEC SX-Aurora Vector Engine", "ve_drv", "the guest needs VEOS and room for large BARs",
     "NEC ve_drv, hw.h; pci.ids"},
    {0x1d0f, 0x7064, 0x7064, "AWS Inferentia", "neuron", "", "pci.ids"},
    {0x1d0f, 0x7164, 0x7164, "AWS Trainium", "neuron", "", "pci.ids"},
    {0x1d0f, 0x7264, 0x7264, "AWS Inferentia 2", "neuron", "", "pci.ids"},
    {0x1e60, 0x2864, 0x2864, "Hailo-8", "hailo", kFirmware, "hailort-drivers, linux/pcie; pci.ids"},
    {0x1e60, 0x45c4, 0x45c4, "Hailo-10H", "hailo", kFirmware, "hailort-drivers, linux/pcie"},
    {0x1e60, 0x43a2, 0x43a2, "Hailo-15L", "hailo", kFirmware, "hailort-drivers, linux/pcie"},
    {0x1ed2, 0x0000, 0x0000, "FuriosaAI Warboy", "furiosa", kFirmware, "pci.ids"},
    {0x1e36, 0x0001, 0x0003, "Enflame CloudBlazer T1x", "", "", "pci.ids"},
    {0x1e36, 0x0021, 0x0024, "Enflame CloudBlazer T2x", "", "", "pci.ids"},
    {0x1e36, 0x8001, 0x8001, "Enflame CloudBlazer I20", "", "", "pci.ids"},
    {0x1e36, 0x8011, 0x8012, "Enflame CloudBlazer I10", "", "", "pci.ids"},
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
