// Devices that do not behave as their capabilities say, each with where that is known from.
//
// The kernel applies its own quirks to what it offers in `reset_method`; they are repeated here because older kernels
// lack some, and because the tool has to say why. vendor-reset's table names the AMD families whose reset needs more
// than the bus can do; with that module loaded the kernel offers `device_specific` for them.
#include <fmt/format.h>

#include <algorithm>
#include <vm_platform/gpu.hpp>

namespace vm_platform {
namespace {

constexpr std::uint16_t kAmdGpu = 0x1002, kAmd = 0x1022, kNvidia = 0x10de, kIntel = 0x8086;
constexpr std::string_view kVendorReset =
    "load the vendor-reset module; without it a guest that ends uncleanly can "
    "need a reboot of the host";
constexpr std::string_view kFromVendorReset = "vendor-reset (gnif), src/device-db.h";
constexpr std::string_view kNoAts = "the kernel leaves ATS off";
constexpr std::string_view kAtsBroken = "its address translation service (ATS) is broken";
constexpr std::string_view kFromAts = "Linux drivers/pci/quirks.c, quirk_amd_harvest_no_ats";
constexpr std::string_view kFromNoFlr = "Linux drivers/pci/quirks.c, quirk_no_flr";
constexpr std::string_view kHangsOnFlr = "hangs on a function-level reset";
constexpr std::string_view kOtherReset = "another reset method is used";

constexpr std::string_view kPolaris = "does not come back from a bus reset (AMD Polaris)";
constexpr std::string_view kVega10 = "does not come back from a bus reset (AMD Vega 10)";
constexpr std::string_view kVega20 = "does not come back from a bus reset (AMD Vega 20)";
constexpr std::string_view kNavi10 = "does not come back from a bus reset (AMD Navi 10)";
constexpr std::string_view kNavi12 = "does not come back from a bus reset (AMD Navi 12)";
constexpr std::string_view kNavi14 = "does not come back from a bus reset (AMD Navi 14)";

constexpr DeviceQuirk kQuirks[] = {
    {kAmdGpu, 0x67c0, 0x67df, kPolaris, kVendorReset, "bus", kFromVendorReset},
    {kAmdGpu, 0x6fdf, 0x6fdf, kPolaris, kVendorReset, "bus", kFromVendorReset},
    {kAmdGpu, 0x67e0, 0x67ff, kPolaris, kVendorReset, "bus", kFromVendorReset},
    {kAmdGpu, 0x6980, 0x699f, kPolaris, kVendorReset, "bus", kFromVendorReset},
    {kAmdGpu, 0x6860, 0x687f, kVega10, kVendorReset, "bus", kFromVendorReset},
    {kAmdGpu, 0x66a0, 0x66af, kVega20, kVendorReset, "bus", kFromVendorReset},
    {kAmdGpu, 0x7310, 0x731f, kNavi10, kVendorReset, "bus", kFromVendorReset},
    {kAmdGpu, 0x7360, 0x7362, kNavi12, kVendorReset, "bus", kFromVendorReset},
    {kAmdGpu, 0x7340, 0x734f, kNavi14, kVendorReset, "bus", kFromVendorReset},
    {kAmdGpu, 0x6900, 0x6900, kAtsBroken, kNoAts, "", kFromAts},
    {kAmdGpu, 0x7310, 0x731f, kAtsBroken, kNoAts, "", kFromAts},
    {kAmdGpu, 0x7340, 0x734f, kAtsBroken, kNoAts, "", kFromAts},
    {kAmdGpu, 0x98e4, 0x98e4, kAtsBroken, kNoAts, "", kFromAts},
    {kNvidia, 0x2340, 0x237f, "does not survive a bus reset", kOtherReset, "bus",
     "Linux drivers/pci/quirks.c, quirk_nvidia_no_bus_reset"},
    {kNvidia, 0x1eb8, 0x1eb8, "does not survive a bus reset (NVIDIA T4)", kOtherReset, "bus",
     "Linux drivers/pci/quirks.c, quirk_nvidia_no_bus_reset (6.3 and later)"},
    {kAmd, 0x1487, 0x1487, kHangsOnFlr, kOtherReset, "flr", kFromNoFlr},
    {kAmd, 0x148c, 0x148c, kHangsOnFlr, kOtherReset, "flr", kFromNoFlr},
    {kAmd, 0x149c, 0x149c, kHangsOnFlr, kOtherReset, "flr", kFromNoFlr},
    {kAmd, 0x7901, 0x7901, kHangsOnFlr, kOtherReset, "flr", kFromNoFlr},
    {kIntel, 0x1502, 0x1503, kHangsOnFlr, kOtherReset, "flr", kFromNoFlr},
    {0x1b21, 0x1164, 0x1164, "does not come back from a bus reset (ASMedia ASM1164)", kOtherReset, "bus",
     "Linux drivers/pci/quirks.c, quirk_no_bus_reset"},
    {0x104c, 0xb005, 0xb005, "does not come back from a bus reset (TI KeyStone C667x)",
     "it keeps what one guest left in it for the next one", "bus", "Linux drivers/pci/quirks.c, quirk_no_bus_reset"},
};

// Quirks that follow from class and place instead of an ID.
constexpr DeviceQuirk kAmdPm = {kAmdGpu,
                                0,
                                0xffff,
                                "says that it resets when it wakes up (D3hot to D0), and does not",
                                kOtherReset,
                                "pm",
                                "Linux drivers/pci/quirks.c, quirk_no_pm_reset"};
constexpr DeviceQuirk kNvidiaAudio = {kNvidia,
                                      0,
                                      0xffff,
                                      "its audio function is hidden by some firmware and turned on by the kernel",
                                      "the audio function goes along with the GPU, and with it to the same guest",
                                      "",
                                      "Linux drivers/pci/quirks.c, quirk_nvidia_hda and quirk_gpu_hda"};
constexpr DeviceQuirk kIntelGraphics = {
    kIntel,
    0,
    0xffff,
    "the guest's driver wants the firmware's OpRegion",
    "hand it over from VFIO's region of type 8086h, subtype 1, and put the device at 00:02.0 in the guest",
    "",
    "Linux drivers/vfio/pci/vfio_pci_igd.c"};

}  // namespace

std::vector<const DeviceQuirk*> device_quirks(const PciDeviceInfo& device) {
  std::vector<const DeviceQuirk*> found;
  for (const DeviceQuirk& quirk : kQuirks)
    if (quirk.vendor == device.vendor && quirk.first_device <= device.device && device.device <= quirk.last_device)
      found.push_back(&quirk);
  const bool display = device.base_class() == 0x03;
  if (display && device.vendor == kAmdGpu && device.address.bus != 0) found.push_back(&kAmdPm);
  if (display && device.vendor == kNvidia) found.push_back(&kNvidiaAudio);
  if (display && device.vendor == kIntel && device.address.bus == 0) found.push_back(&kIntelGraphics);
  return found;
}

ResetChoice choose_reset(const PciDeviceInfo& device) {
  ResetChoice choice;
  const auto quirks = device_quirks(device);
  for (const std::string& method : device.reset_methods) {
    const auto quirk = std::ranges::find_if(quirks, [&](const DeviceQuirk* q) { return q->avoid == method; });
    if (quirk == quirks.end())
      choice.methods.push_back(method);
    else
      choice.avoided.push_back(fmt::format("{} ({})", method, (*quirk)->what));
  }
  choice.differs = choice.methods != device.reset_methods;
  return choice;
}

}  // namespace vm_platform
