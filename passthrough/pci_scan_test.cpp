#include <gtest/gtest.h>

#include <vm_platform/pci_device.hpp>

#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using test::ConfigBuilder;
using test::FakeTree;

TEST(PciScan, ReadsATree) {
  const FakeTree tree;
  tree.device({.address = "0000:00:1c.0",
               .ids = "8086:A33C",
               .class_code = "60400",
               .driver = "pcieport",
               .group = 1,
               .config = ConfigBuilder(256).header(0x8086, 0xa33c, 0x060400, 1).bytes()});
  const auto nic = tree.device({.address = "0000:01:00.0",
                                .parents = "pci0000:00/0000:00:1c.0",
                                .driver = "e1000e",
                                .group = 7,
                                .config = ConfigBuilder(256).header(0x8086, 0x10d3, 0x020000, 0x80).bytes()});
  tree.file(nic / "resource",
            "0x00000000fe840000 0x00000000fe85ffff 0x0000000000040200\n"
            "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
            "0x000000000000e000 0x000000000000e01f 0x0000000000040101\n"
            "0x0000000380000000 0x000000038fffffff 0x000000000014220c\n"
            "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
            "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
            "0x00000000fe800000 0x00000000fe83ffff 0x0000000000046200\n");
  tree.file(nic / "net/eth7/address", "x");
  tree.file(nic / "numa_node", "1\n");
  tree.file(nic / "reset_method", "flr bus\n");
  const auto functions = scan_pci(tree.sysfs());
  ASSERT_TRUE(functions) << functions.error().message();
  ASSERT_EQ(functions->size(), 2U);
  EXPECT_TRUE((*functions)[0].is_bridge());
  const PciDeviceInfo& info = (*functions)[1];
  EXPECT_EQ(info.driver, "e1000e");
  EXPECT_EQ(info.iommu_group, 7);
  EXPECT_TRUE(info.multifunction);
  EXPECT_EQ(info.parent->to_string(), "0000:00:1c.0");
  EXPECT_EQ(info.device_path, "devices/pci0000:00/0000:00:1c.0/0000:01:00.0");
  EXPECT_EQ(info.driver_override, "") << "the kernel writes (null)";
  ASSERT_EQ(info.bars.size(), 4U);
  EXPECT_EQ(info.bars[0].size, 128 * kKiB);
  EXPECT_TRUE(info.bars[1].io);
  EXPECT_TRUE(info.bars[2].is_64bit && info.bars[2].prefetchable);
  EXPECT_EQ(info.bars[3].index, 6);
  EXPECT_EQ(info.children, std::vector<std::string>{"net/eth7"});
  EXPECT_EQ(info.numa_node, 1);
  EXPECT_EQ(info.reset_methods, (std::vector<std::string>{"flr", "bus"}));
}

TEST(PciScan, WorksWithoutUeventFiles) {
  const FakeTree tree;
  const auto device = tree.device({.address = "0000:00:02.0", .ids = "10DE:2204", .class_code = "30000"});
  std::filesystem::remove(tree.root() / device / "uevent");
  const auto functions = scan_pci(tree.sysfs(), PciScanDetail::Basic);
  ASSERT_TRUE(functions);
  ASSERT_EQ(functions->size(), 1U);
  EXPECT_EQ((*functions)[0].vendor, 0x10de);
  EXPECT_EQ((*functions)[0].class_code, 0x030000U);
  EXPECT_FALSE((*functions)[0].iommu_group);
}

TEST(PciScan, NoBusIsExplained) {
  const FakeTree tree;
  const auto functions = scan_pci(tree.sysfs());
  ASSERT_FALSE(functions);
  EXPECT_EQ(functions.error().code(), ErrorCode::Unsupported);
  const auto device = read_pci_device(*PciAddress::parse("00:1f.6"), tree.sysfs());
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code(), ErrorCode::NotFound);
}

TEST(PciScan, ThisHostAgreesWithItself) {
  const auto functions = scan_pci();
  if (!functions) GTEST_SKIP() << functions.error().message();
  for (const PciDeviceInfo& function : *functions) {
    EXPECT_NE(function.vendor, 0xffff) << function.address.to_string();
    if (function.config.empty()) continue;
    EXPECT_EQ(function.config.u16(2), function.device) << function.address.to_string();
  }
}

}  // namespace
}  // namespace vm_platform
