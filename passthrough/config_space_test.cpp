#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vm_platform/pci_device.hpp>

#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using test::ConfigBuilder;
using testing::HasSubstr;

std::string value_of(const ConfigSpace& config, const PciCapability& capability, std::string_view name) {
  for (const PciField& field : describe_capability(config, capability))
    if (field.name == name) return field.value;
  return "(no field " + std::string(name) + ")";
}

ConfigBuilder endpoint() { return ConfigBuilder().header(0x8086, 0x10d3, 0x020000).express(0, 0x80); }

TEST(ConfigSpace, ReadsPastItsEndGiveOnes) {
  const ConfigSpace config(std::vector<std::uint8_t>{0x34, 0x12, 0x78});
  EXPECT_EQ(config.u16(0), 0x1234);
  EXPECT_EQ(config.u16(2), 0xffff) << "not even half of it";
  EXPECT_EQ(config.u32(0), 0xffffffffU);
  EXPECT_EQ(config.u8(SIZE_MAX), 0xff);
  EXPECT_EQ(config.u64(SIZE_MAX - 3), UINT64_MAX);
}

TEST(Capabilities, WalksBothLists) {
  const ConfigSpace config(endpoint()
                               .u8(0x80, 0x05)
                               .u8(0x81, 0x90)
                               .u16(0x82, 0x0185 | 1 << 4)
                               .u8(0x90, 0x11)
                               .u16(0x92, 0x8007)
                               .u32(0x94, 0x2003)
                               .u32(0x98, 0x3003)
                               .extended(0x100, 0x0d, 0x140, 1)
                               .u16(0x104, 0x7f)
                               .u16(0x106, 0x1d)
                               .extended(0x140, 0x03, 0)
                               .u32(0x144, 0x89abcdef)
                               .u32(0x148, 0x01234567)
                               .bytes());
  const auto found = walk_capabilities(config);
  EXPECT_TRUE(found.anomalies.empty());
  ASSERT_EQ(found.list.size(), 5U);
  const auto msi = decode_msi(config, found);
  ASSERT_TRUE(msi);
  EXPECT_TRUE(msi->enabled && msi->address64 && msi->maskable);
  EXPECT_EQ(msi->vectors, 4);
  EXPECT_EQ(msi->enabled_vectors, 2);
  const auto msix = decode_msix(config, found);
  ASSERT_TRUE(msix);
  EXPECT_EQ(msix->vectors, 8);
  EXPECT_EQ(msix->table_bar, 3);
  EXPECT_EQ(msix->table_offset, 0x2000U);
  EXPECT_EQ(decode_acs(config, found)->enabled, 0x1d);
  EXPECT_EQ(decode_serial_number(config, found), 0x0123456789abcdefULL);
  EXPECT_EQ(value_of(config, *found.find(PciExtCapId::SerialNumber), "number"), "01-23-45-67-89-ab-cd-ef");
  EXPECT_EQ(value_of(config, *found.find(PciExtCapId::Acs), "enabled"), "SrcValid ReqRedir CmpltRedir UpstreamFwd");
  EXPECT_EQ(capability_name(*found.find(PciCapId::Msix)), "MSI-X");
}

TEST(Capabilities, ResizableBars) {
  // 256M now; 256M, 512M and 16G possible; and the second BAR beyond 128 TiB through the control register's high half.
  const ConfigSpace config(endpoint()
                               .extended(0x200, 0x15, 0)
                               .extended(0x100, 0x0e, 0x200)
                               .u32(0x204, (1U << 8 | 1U << 9 | 1U << 14) << 4)
                               .u32(0x208, 1 | 2 << 5 | 8 << 8)
                               .u32(0x20c, 0)
                               .u32(0x210, 3 | 28 << 8 | 1U << 16)
                               .bytes());
  const auto bars = decode_resizable_bars(config, walk_capabilities(config));
  ASSERT_EQ(bars.size(), 2U);
  EXPECT_EQ(bars[0].bar, 1);
  EXPECT_EQ(bars[0].current, 256 * kMiB);
  EXPECT_EQ(bars[0].sizes, 1ULL << 8 | 1ULL << 9 | 1ULL << 14);
  EXPECT_EQ(bars[1].sizes, 1ULL << 28) << "256 TiB";
  EXPECT_EQ(value_of(config, *walk_capabilities(config).find(PciExtCapId::ResizableBar), "BAR 1"),
            "256M of 256M 512M 16G");
}

/// A conventional capability at 0x80.
ConfigSpace with_conventional(std::uint8_t id, std::uint32_t rest, std::uint32_t next_dword, std::uint32_t third = 0,
                              std::uint8_t header_type = 0) {
  return ConfigSpace(ConfigBuilder()
                         .header(0x1022, 1, 0x060000, header_type)
                         .u8(0x34, 0x80)
                         .u32(0x80, id | rest << 16)
                         .u32(0x84, next_dword)
                         .u32(0x88, third)
                         .bytes());
}

TEST(Capabilities, OlderBuses) {
  const auto field = [](const ConfigSpace& config, std::string_view name) {
    return value_of(config, walk_capabilities(config).list.at(0), name);
  };
  // PCI-X: 2048 of 4096 bytes, 4 of 32 splits, at 02:03.1, 64 bits wide at 133 MHz.
  const auto pci_x = with_conventional(0x07, 2 << 2 | 3 << 4, 0x0219 | 3U << 16 | 3U << 21 | 7U << 23);
  EXPECT_EQ(field(pci_x, "max read"), "2048 of 4096 bytes");
  EXPECT_EQ(field(pci_x, "outstanding splits"), "4 of 32");
  EXPECT_EQ(field(pci_x, "function"), "02:03.1");
  EXPECT_EQ(field(pci_x, "status"), "64-bit 133MHz");
  EXPECT_EQ(field(with_conventional(0x07, 1 | 2 << 6, 0, 0, 1), "secondary clock"), "100 MHz");
  const auto mapping = with_conventional(0x08, 0xa801, 0xfee00000);
  EXPECT_EQ(field(mapping, "kind"), "MSI mapping");
  EXPECT_EQ(field(mapping, "address"), "0xfee00000");
  EXPECT_EQ(field(with_conventional(0x08, 0x2000 | 5 << 2, 0), "device"), "5");
  const auto agp = with_conventional(0x02, 0x30, 0x1f00020b, 0x102);
  EXPECT_EQ(field(agp, "version"), "3.0");
  EXPECT_EQ(field(agp, "rates"), "4x 8x");
  EXPECT_EQ(field(agp, "rate"), "8x");
  EXPECT_EQ(field(with_conventional(0x12, 0x10, 0x48), "index and data"), "BAR 4 + 0x10");
}

TEST(Capabilities, LinksAndTraffic) {
  const auto at_100 = [](std::uint16_t id) { return endpoint().extended(0x100, id, 0); };
  const auto field = [](const ConfigBuilder& builder, std::string_view name) {
    const ConfigSpace config(builder.bytes());
    return value_of(config, walk_capabilities(config).list.back(), name);
  };
  EXPECT_EQ(field(at_100(0x02).u32(0x104, 0).u32(0x114, 0x80000001), "channel 0"),
            "enabled, ID 0, traffic classes 0x01");
  EXPECT_EQ(field(at_100(0x12).u16(0x104, 63).u16(0x106, 0x8001), "groups"), "2 of 64");
  EXPECT_EQ(field(at_100(0x30).u32(0x104, 3 | 3U << 16), "selective streams"), "4");
  EXPECT_EQ(field(at_100(0x2f).u32(0x10c, 0x105), "segment"), "05");
  auto cxl = at_100(0x23).u16(0x104, 0x1e98).u16(0x106, 0x038 << 4).u16(0x108, 0).u16(0x10a, 0x17).u16(0x10c, 6);
  cxl.u32(0x118, 1).u32(0x11c, 0).u32(0x120, 2).u32(0x124, 0);
  EXPECT_EQ(field(cxl, "kind"), "CXL device");
  EXPECT_EQ(field(cxl, "CXL capable"), "cache io mem");
  EXPECT_EQ(field(cxl, "CXL enabled"), "io mem");
  EXPECT_EQ(field(cxl, "CXL range 1"), "4G at 0x200000000");
}

TEST(Capabilities, CyclesAndGarbageEndTheWalk) {
  const auto anomaly = [](const ConfigBuilder& builder) {
    const auto found = walk_capabilities(ConfigSpace(builder.bytes()));
    EXPECT_EQ(found.anomalies.size(), 1U);
    return found.anomalies.empty() ? std::string() : found.anomalies[0];
  };
  EXPECT_THAT(anomaly(endpoint().u8(0x80, 0x01).u8(0x81, 0x40)), HasSubstr("cycle at 0x40"));
  EXPECT_THAT(anomaly(endpoint().u8(0x80, 0x01).u8(0x81, 0x10)), HasSubstr("points into the header"));
  EXPECT_THAT(anomaly(endpoint().u8(0x80, 0xff)), HasSubstr("all ones"));
  EXPECT_THAT(anomaly(endpoint().u8(0x80, 1).extended(0x100, 1, 0x100)), HasSubstr("cycle at 0x100"));
  EXPECT_THAT(anomaly(endpoint().u8(0x80, 1).extended(0x100, 1, 0x044)), HasSubstr("below 0x100"));
  EXPECT_THAT(anomaly(endpoint().u8(0x80, 1).extended(0x100, 1, 0xff0).u32(0xff0, 0xffffffff)), HasSubstr("all ones"));
  ConfigBuilder cut(0x200);
  cut.header(1, 2, 3).express(0).extended(0x100, 1, 0x300);
  EXPECT_THAT(anomaly(cut), HasSubstr("past what was read"));
}

TEST(Capabilities, UnprivilegedHeaderAloneIsNoAnomaly) {
  ConfigBuilder builder(64);
  builder.header(1, 2, 3).u8(0x34, 0x40);
  const auto found = walk_capabilities(ConfigSpace(builder.bytes()));
  EXPECT_TRUE(found.list.empty());
  EXPECT_TRUE(found.anomalies.empty());
}

TEST(Capabilities, ConventionalPciHasNoExtendedList) {
  ConfigBuilder builder;  // no Express capability: 0x100 is not a list whatever it holds
  builder.header(1, 2, 3).extended(0x100, 1, 0);
  EXPECT_TRUE(walk_capabilities(ConfigSpace(builder.bytes())).list.empty());
}

TEST(Capabilities, CutOffCapabilitiesDecodeToNothing) {
  ConfigBuilder builder(256);
  builder.header(1, 2, 3).u8(0x34, 0xfc).u8(0xfc, 0x11);
  const ConfigSpace config(builder.bytes());
  const auto found = walk_capabilities(config);
  ASSERT_EQ(found.list.size(), 1U);
  EXPECT_FALSE(decode_msix(config, found));
  EXPECT_TRUE(describe_capability(config, found.list[0]).empty());
}

}  // namespace
}  // namespace vm_platform
