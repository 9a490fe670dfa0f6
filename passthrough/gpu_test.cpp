#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vm_platform/gpu.hpp>

#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using test::ConfigBuilder;
using testing::ElementsAre;
using testing::HasSubstr;

/// One image of a ROM: 1 KiB for 10de:2204.
std::vector<std::uint8_t> image(std::uint8_t kind, bool last) {
  ConfigBuilder rom(1024);
  rom.u16(0, 0xaa55).u16(0x18, 0x40).u8(0x40, 'P').u8(0x41, 'C').u8(0x42, 'I').u8(0x43, 'R').u16(0x44, 0x10de);
  rom.u16(0x46, 0x2204).u16(0x4a, 0x18).u8(0x4c, 3).u8(0x4f, 3).u16(0x50, 2).u8(0x54, kind).u8(0x55, last ? 0x80 : 0);
  rom.u16(0x48, 0x20).u16(0x60, 0x2205).u16(0x62, 0);  // the list of further devices
  if (kind == 3) rom.u32(4, 0x0ef1).u16(0x0a, 0x8664).u16(0x0c, 1);
  auto bytes = rom.bytes();
  bytes[1023] = static_cast<std::uint8_t>(0x100 - (std::accumulate(bytes.begin(), bytes.end(), 0U) & 0xff));
  return bytes;
}

std::vector<std::uint8_t> both() {
  auto rom = image(0, false);
  const auto uefi = image(3, true);
  rom.insert(rom.end(), uefi.begin(), uefi.end());
  return rom;
}

TEST(OptionRom, ReadsLegacyAndUefi) {
  const auto rom = parse_option_rom(both());
  ASSERT_TRUE(rom) << rom.error().message();
  ASSERT_EQ(rom->images.size(), 2U);
  EXPECT_TRUE(rom->problems.empty());
  EXPECT_TRUE(rom->has_legacy() && rom->has_uefi());
  EXPECT_EQ(rom->images[0].class_code, 0x030000U);
  EXPECT_EQ(rom->images[1].uefi_machine, 0x8664);
  EXPECT_TRUE(rom->images[1].uefi_compressed);
  EXPECT_TRUE(rom->matches(0x10de, 0x2204));
  EXPECT_TRUE(rom->matches(0x10de, 0x2205)) << "by the list";
  EXPECT_FALSE(rom->matches(0x10de, 0x2206));
  EXPECT_FALSE(rom->matches(0x1002, 0x2204));
}

TEST(OptionRom, SaysWhatIsWrong) {
  auto rom = both();
  rom[500] ^= 1;
  EXPECT_THAT(parse_option_rom(rom)->problems, ElementsAre(HasSubstr("wrong checksum")));
  rom = both();
  rom.resize(1500);
  EXPECT_THAT(parse_option_rom(rom)->problems, ElementsAre(HasSubstr("cut off")));
  rom = image(0, false);
  EXPECT_THAT(parse_option_rom(rom)->problems, ElementsAre(HasSubstr("the last")));
  EXPECT_EQ(parse_option_rom({}).error().code(), ErrorCode::Corrupt);
  EXPECT_EQ(parse_option_rom(std::vector<std::uint8_t>(4096)).error().code(), ErrorCode::Corrupt);
  rom = both();
  rom[0x18] = 0xff;
  rom[0x19] = 0xff;
  EXPECT_THAT(parse_option_rom(rom).error().message(), HasSubstr("no PCI data structure"));
  std::vector<std::uint8_t> framed(1024);
  std::copy_n("NVGI", 4, framed.begin());
  const auto inside = both();
  framed.insert(framed.end(), inside.begin(), inside.end());
  const auto found = parse_option_rom(framed);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->images.size(), 2U);
  EXPECT_THAT(found->problems, ElementsAre(HasSubstr("1024 bytes is in front")));
}

TEST(Gpu, CompanionsOfTheSameSlotBelongToIt) {
  const test::FakeTree tree;
  const auto gpu =
      tree.device({.address = "0000:01:00.0", .ids = "10DE:2204", .class_code = "30000", .driver = "nouveau"});
  tree.file(gpu / "boot_vga", "1\n");
  tree.file(gpu / "resource",
            "0x00000000f6000000 0x00000000f6ffffff 0x0000000000040200\n"
            "0x0000000380000000 0x000000038fffffff 0x000000000014220c\n");
  tree.device({.address = "0000:01:00.1", .ids = "10DE:1AEF", .class_code = "40300"});
  tree.device({.address = "0000:02:00.0", .ids = "1002:731F", .class_code = "30000"});
  const auto gpus = GpuPassthrough::list(tree.sysfs());
  ASSERT_TRUE(gpus);
  ASSERT_EQ(gpus->size(), 2U);
  EXPECT_TRUE((*gpus)[0].boot_display && (*gpus)[0].needs_vga);
  EXPECT_EQ((*gpus)[0].largest_bar, 256 * kMiB);
  ASSERT_EQ((*gpus)[0].companions.size(), 1U);
  EXPECT_EQ((*gpus)[0].companions[0].address.to_string(), "0000:01:00.1");
  EXPECT_EQ(AmdGpuPassthrough::list(tree.sysfs())->size(), 1U);
  const auto nvidia = NvidiaGpuPassthrough::list(tree.sysfs());
  EXPECT_TRUE((*nvidia)[0].hide_hypervisor);
  ASSERT_EQ((*gpus)[1].quirks.size(), 3U) << "reset, ATS, power management";
  EXPECT_THAT(std::string((*gpus)[1].quirks[0]->what), HasSubstr("Navi 10"));
  EXPECT_EQ(read_option_rom({0, 1, 0, 0}, tree.sysfs()).error().code(), ErrorCode::Unsupported);
}

}  // namespace
}  // namespace vm_platform
