#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {
namespace {

std::string dump_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(PciDump, ReadsHexBelowVerboseOutput) {
  const char* text =
      "0000:03:00.0 Ethernet controller: Somebody's card (rev 02)\n"
      "\tControl: I/O- Mem+\n"
      "\tCapabilities: [40] MSI: 01: 02\n"
      "00: 86 80 d3 10 07 04 10 00 02 00 00 02 10 00 00 00\r\n"
      "10: 00 00 84 fe 00 00 00 00 01 e0 00 00 04 00 00 d0\n"
      "20: 01 00 00 00 00 00 00 00 00 00 00 00 86 80 1f a0\n"
      "30: 00 00 00 00 00 00 00 00 00 00 00 00 0b 01 00 00\n\n"
      "03:00.1 cut off before a header is whole\n00: 86 80\n";
  const auto functions = parse_pci_dump(text);
  ASSERT_TRUE(functions) << functions.error().message();
  ASSERT_EQ(functions->size(), 1U);
  const PciDeviceInfo& nic = functions->front();
  EXPECT_EQ(nic.address.to_string(), "0000:03:00.0");
  EXPECT_EQ(nic.vendor, 0x8086);
  EXPECT_EQ(nic.device, 0x10d3);
  EXPECT_EQ(nic.class_code, 0x020000U);
  EXPECT_EQ(nic.revision, 2);
  EXPECT_EQ(nic.subsystem_device, 0xa01f);
  ASSERT_EQ(nic.bars.size(), 3U);
  EXPECT_EQ(nic.bars[0].base, 0xfe840000U);
  EXPECT_TRUE(nic.bars[1].io);
  EXPECT_EQ(nic.bars[1].base, 0xe000U);
  EXPECT_TRUE(nic.bars[2].is_64bit);
  EXPECT_EQ(nic.bars[2].base, 0x1'd000'0000ULL);
}

TEST(PciDump, RefusesWhatContradictsItself) {
  const auto gap = parse_pci_dump("00:00.0 Host bridge\n00: 86 80 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n20: 00\n");
  ASSERT_FALSE(gap);
  EXPECT_EQ(gap.error().code(), ErrorCode::Corrupt);
  EXPECT_THAT(gap.error().message(), testing::HasSubstr("line 3"));
  EXPECT_FALSE(parse_pci_dump(""));
  EXPECT_FALSE(parse_pci_dump("hello\n"));
  EXPECT_FALSE(parse_pci_dump("P: /devices/x\n"));
}

TEST(PciDump, ReadsAUdevDatabase) {
  const auto functions = parse_pci_dump(
      "P: /devices/pci0000:00/0000:00:0b.0\nV: intel_vpu\nE: SUBSYSTEM=pci\nE: DRIVER=intel_vpu\nE: PCI_CLASS=120000\n"
      "E: PCI_ID=8086:643E\nE: PCI_SUBSYS_ID=1028:0CDB\nE: PCI_SLOT_NAME=0000:00:0b.0\n\n"
      "P: /devices/pci0000:00/0000:00:0b.0/accel/accel0\nE: SUBSYSTEM=accel\n\n"
      "P: /devices/pci0000:00/0000:00:1c.0\nE: SUBSYSTEM=pci\nE: PCI_CLASS=60400\nE: PCI_ID=8086:A83A\n"
      "E: PCI_SLOT_NAME=0000:00:1c.0\n\n"
      "P: /devices/pci0000:00/0000:00:1c.0/0000:01:00.0\nE: SUBSYSTEM=pci\nE: PCI_CLASS=10802\nE: PCI_ID=144D:A80A\n"
      "E: PCI_SLOT_NAME=0000:01:00.0\n");
  ASSERT_TRUE(functions) << functions.error().message();
  ASSERT_EQ(functions->size(), 3U);
  EXPECT_EQ((*functions)[0].driver, "intel_vpu");
  EXPECT_THAT((*functions)[0].children, testing::ElementsAre("accel/accel0"));
  EXPECT_EQ((*functions)[1].header_type, 1);
  EXPECT_EQ((*functions)[2].parent->to_string(), "0000:00:1c.0");
  EXPECT_EQ((*functions)[2].subsystem_vendor, 0);
}

/// Every configuration space of pciutils' own test cases, where they are at hand: each walk ends, decodes, and the
/// known broken one is called broken.
TEST(PciDumpOfRealMachines, AllAreSurvivedAndDecoded) {
  const std::filesystem::path folder = std::filesystem::path(VM_PLATFORM_PCI_DUMPS) / "pciutils-tests";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no dumps in " << folder;
  std::size_t functions = 0, capabilities = 0, described = 0;
  std::vector<std::string> broken;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto parsed = parse_pci_dump(dump_text(entry.path()));
    ASSERT_TRUE(parsed) << entry.path() << ": " << parsed.error().message();
    for (const PciDeviceInfo& function : *parsed) {
      ++functions;
      capabilities += function.capabilities.list.size();
      for (const PciCapability& capability : function.capabilities.list)
        described += describe_capability(function.config, capability).empty() ? 0U : 1U;
      if (!function.capabilities.anomalies.empty()) broken.push_back(entry.path().filename());
    }
  }
  EXPECT_GT(functions, 100U);
  EXPECT_GT(capabilities, 500U);
  EXPECT_GT(described, capabilities / 2);
  RecordProperty("functions", std::to_string(functions));
  RecordProperty("capabilities", std::to_string(capabilities));
}

TEST(PciDumpOfRealMachines, AsusTreeHasItsGpuBehindTheSwitch) {
  const std::filesystem::path file = std::filesystem::path(VM_PLATFORM_PCI_DUMPS) / "pciutils-tests/tree-asus-p6t6";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no dump " << file;
  const auto functions = parse_pci_dump(dump_text(file));
  ASSERT_TRUE(functions);
  EXPECT_EQ(functions->size(), 53U);
  const auto gpu = std::ranges::find_if(
      *functions, [](const PciDeviceInfo& f) { return f.vendor == 0x10de && f.class_and_subclass() == 0x0300; });
  ASSERT_NE(gpu, functions->end());
  ASSERT_TRUE(gpu->parent);
  const auto port = std::ranges::find(*functions, *gpu->parent, &PciDeviceInfo::address);
  ASSERT_NE(port, functions->end());
  const auto express = decode_express(port->config, port->capabilities);
  ASSERT_TRUE(express);
  EXPECT_TRUE(express->port == PciExpressInfo::Port::DownstreamPort || express->port == PciExpressInfo::Port::RootPort);
}

TEST(PciDumpOfRealMachines, DgxHasEightA100) {
  const std::filesystem::path file = std::filesystem::path(VM_PLATFORM_PCI_DUMPS) / "NVIDIA_DGXA100.txt";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no dump " << file;
  const auto functions = parse_pci_dump(dump_text(file));
  ASSERT_TRUE(functions);
  EXPECT_EQ(functions->size(), 281U);
  EXPECT_EQ(std::ranges::count_if(*functions,
                                  [](const auto& f) { return f.vendor == 0x10de && f.class_and_subclass() == 0x0302; }),
            8);
}

}  // namespace
}  // namespace vm_platform
