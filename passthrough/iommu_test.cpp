#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vm_platform/iommu.hpp>

#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using test::ConfigBuilder;
using test::FakeTree;
using testing::ElementsAre;
using testing::HasSubstr;

/// A GPU with its audio function behind a root port, all in one group, and a NIC of its own.
struct Host {
  FakeTree tree;
  explicit Host(const char* audio_driver = "snd_hda_intel", bool port_has_acs = false) {
    ConfigBuilder port;
    port.header(0x8086, 0xa33c, 0x060400, 1).express(4).extended(0x100, port_has_acs ? 0x0d : 0x01, 0);
    port.u16(0x104, 0x1d).u16(0x106, port_has_acs ? 0x0c : 0);
    const auto config = ConfigBuilder().header(0x10de, 0x2204, 0x030000).express(0).bytes();
    tree.device({.address = "0000:00:01.0",
                 .ids = "8086:A33C",
                 .class_code = "60400",
                 .driver = "pcieport",
                 .group = 1,
                 .config = port.bytes()});
    tree.device({.address = "0000:01:00.0",
                 .parents = "pci0000:00/0000:00:01.0",
                 .ids = "10DE:2204",
                 .class_code = "30000",
                 .driver = "vfio-pci",
                 .group = 1,
                 .config = config});
    tree.device({.address = "0000:01:00.1",
                 .parents = "pci0000:00/0000:00:01.0",
                 .ids = "10DE:1AEF",
                 .class_code = "40300",
                 .driver = audio_driver,
                 .group = 1,
                 .config = config});
    tree.device({.address = "0000:00:1f.6", .driver = "e1000e", .group = 12});
  }
};

TEST(Iommu, ListsGroupsInNumberOrder) {
  const Host host;
  const auto groups = IommuManager(host.tree.sysfs(), host.tree.root()).groups();
  ASSERT_TRUE(groups) << groups.error().message();
  ASSERT_EQ(groups->size(), 2U);
  EXPECT_EQ((*groups)[0].devices.size(), 3U);
  EXPECT_EQ((*groups)[1].number, 12);
  EXPECT_EQ((*groups)[0].type, "DMA-FQ");
  ASSERT_EQ((*groups)[0].reserved.size(), 1U);
  EXPECT_EQ((*groups)[0].reserved[0].first, 0xfee00000U);
  EXPECT_EQ((*groups)[0].reserved[0].type, "msi");
}

GroupViability judge(const Host& host) {
  const auto group = IommuManager(host.tree.sysfs(), host.tree.root()).group_of(*PciAddress::parse("01:00.0"));
  EXPECT_TRUE(group);
  const auto all = scan_pci(host.tree.sysfs());
  return IommuManager::viability(*group, *all);
}

TEST(Iommu, OtherEndpointsStandInTheWayAndBridgesDoNot) {
  const auto bad = judge(Host());
  EXPECT_FALSE(bad.viable);
  EXPECT_THAT(bad.reasons, ElementsAre(HasSubstr("0000:01:00.1 is driven by snd_hda_intel")));
  EXPECT_THAT(bad.to_move, ElementsAre(*PciAddress::parse("01:00.1")));
  EXPECT_TRUE(judge(Host("vfio-pci")).viable);
  EXPECT_TRUE(judge(Host("")).viable) << "a function without a driver does no harm";
}

TEST(Iommu, KnowsVfiosDriversByName) {
  for (const char* driver : {"vfio-pci", "vfio_pci", "mlx5_vfio_pci", "hisi-acc-vfio-pci", "nvgrace_gpu_vfio_pci"}) {
    EXPECT_TRUE(is_vfio_driver(driver)) << driver;
    EXPECT_TRUE(driver_is_harmless(driver)) << driver;
  }
  for (const char* driver : {"", "pci-stub", "pcieport", "mlx5_core", "vfio_pci_core_test"})
    EXPECT_FALSE(is_vfio_driver(driver)) << driver;
  EXPECT_FALSE(driver_is_harmless("mlx5_core"));
}

TEST(Iommu, SaysWhichAcsBitIsMissingWhere) {
  EXPECT_THAT(judge(Host()).isolation, testing::Contains(HasSubstr("0000:00:01.0 has no Access Control Services")));
  EXPECT_THAT(judge(Host("vfio-pci", true)).isolation,
              testing::Contains(HasSubstr("0000:00:01.0 has ACS source validation, upstream forwarding turned off")));
  EXPECT_THAT(judge(Host()).isolation, testing::Contains(HasSubstr("0000:01:00.1 shares its slot")));
}

TEST(Iommu, HostWithoutIommuIsToldWhatToDo) {
  const FakeTree tree;
  tree.device({.address = "0000:00:1f.6"});
  tree.file("proc/cpuinfo", "vendor_id : GenuineIntel\n");
  tree.file("proc/cmdline", "quiet\n");
  const IommuManager manager(tree.sysfs(), tree.root());
  const auto groups = manager.groups();
  ASSERT_FALSE(groups);
  EXPECT_EQ(groups.error().code(), ErrorCode::Unsupported);
  EXPECT_THAT(groups.error().message(), HasSubstr("VT-d"));
  tree.file("sys/firmware/acpi/tables/DMAR", "DMAR");
  EXPECT_THAT(manager.groups().error().message(), HasSubstr("intel_iommu=on"));
  EXPECT_FALSE(manager.status().vfio_available);
  tree.file("sys/bus/pci/drivers/vfio-pci/bind", "");
  EXPECT_TRUE(manager.status().vfio_available);
  EXPECT_EQ(manager.group_of(*PciAddress::parse("00:1f.6")).error().code(), ErrorCode::Unsupported);
  EXPECT_EQ(manager.group_of(*PciAddress::parse("00:1f.5")).error().code(), ErrorCode::NotFound);
}

}  // namespace
}  // namespace vm_platform
