#include <fmt/format.h>
#include <gtest/gtest.h>

#include <vm_platform/pci_device.hpp>

#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

constexpr const char* kFile =
    "# comment\n\n10de  NVIDIA Corporation\n\t2204  GA102 [GeForce RTX 3090]\n\t\t1458 403b  RTX 3090 GAMING OC\n"
    "# between\n\t\t10de 1467  Founders Edition\n\t2205  Next one\n8086  Intel Corporation\n\t10d3  82574L\n"
    "C 03  Display controller\n\t00  VGA compatible controller\n\t\t00  VGA controller\n\t02  3D controller\n"
    "C 12  Processing accelerators\n";

TEST(PciNames, FindsEachLevel) {
  const test::FakeTree tree;
  tree.file("pci.ids", kFile);
  const auto names = PciNames::load(tree.root() / "pci.ids");
  ASSERT_TRUE(names.loaded());
  EXPECT_EQ(names.vendor(0x10de), "NVIDIA Corporation");
  EXPECT_EQ(names.device(0x10de, 0x2204), "GA102 [GeForce RTX 3090]");
  EXPECT_EQ(names.device(0x10de, 0x2205), "Next one");
  EXPECT_EQ(names.device(0x8086, 0x2204), "") << "of another vendor";
  EXPECT_EQ(names.subsystem(0x10de, 0x2204, 0x10de, 0x1467), "Founders Edition");
  EXPECT_EQ(names.subsystem(0x10de, 0x2205, 0x10de, 0x1467), "");
  EXPECT_EQ(names.class_name(0x030000), "VGA compatible controller");
  EXPECT_EQ(names.class_name(0x030200), "3D controller");
  EXPECT_EQ(names.class_name(0x038000), "Display controller");
  EXPECT_EQ(names.class_name(0x120000), "Processing accelerators");
  EXPECT_EQ(names.class_name(0x990000), "");
  PciDeviceInfo unknown;
  unknown.vendor = 0x1234;
  unknown.device = 0x11e8;
  EXPECT_EQ(names.describe(unknown), "Vendor 1234 Device 11e8");
}

TEST(PciNames, EveryDeviceIsFoundSortedOrNot) {
  const test::FakeTree tree;
  for (const bool sorted : {true, false}) {
    std::string file = "8086  Intel Corporation\n";
    for (unsigned i = 0; i < 300; ++i) {
      const unsigned id = sorted ? i * 7 : i * 7919 % 0x1000;
      file += fmt::format("\t{:04x}  Device {}\n", id, i);
      for (unsigned below = 0; below < i % 5; ++below) file += fmt::format("\t\t8086 {:04x}  Board {}\n", below, below);
      if (i % 11 == 0) file += "# a comment\n\n";
    }
    file += "10de  NVIDIA Corporation\n\t0001  Another's\nC 01  Storage\n";
    tree.file("pci.ids", file);
    const auto names = PciNames::load(tree.root() / "pci.ids");
    for (unsigned i = 0; i < 300; ++i) {
      const auto id = static_cast<std::uint16_t>(sorted ? i * 7 : i * 7919 % 0x1000);
      EXPECT_EQ(names.device(0x8086, id), fmt::format("Device {}", i)) << sorted;
      EXPECT_EQ(names.subsystem(0x8086, id, 0x8086, 3), i % 5 == 4 ? "Board 3" : "") << sorted << i;
    }
    EXPECT_EQ(names.device(0x8086, 0xffff), "");
    EXPECT_EQ(names.device(0x10de, 1), "Another's");
    EXPECT_EQ(names.vendor(0x10de), "NVIDIA Corporation") << "vendors are not sorted here either";
  }
}

TEST(PciNames, WithoutAFileEverythingIsUnnamed) {
  const auto names = PciNames::load("/nonexistent/pci.ids");
  EXPECT_FALSE(names.loaded());
  EXPECT_EQ(names.vendor(0x8086), "");
}

}  // namespace
}  // namespace vm_platform
