#include <gtest/gtest.h>

#include <vm_platform/pci_device.hpp>

namespace vm_platform {
namespace {

TEST(PciAddress, ReadsBothFormsAndWritesTheFullOne) {
  EXPECT_EQ(PciAddress::parse("0000:3b:00.1")->to_string(), "0000:3b:00.1");
  EXPECT_EQ(PciAddress::parse("3b:1f.7")->to_string(), "0000:3b:1f.7");
  EXPECT_EQ(PciAddress::parse("10000:e0:06.0")->to_string(), "10000:e0:06.0") << "Intel VMD";
  EXPECT_EQ(PciAddress::parse("0001:00:1f.2")->domain, 1U);
  EXPECT_EQ(PciAddress::parse("00:1f.2")->requester_id(), 0x00fa);
  PciAddress longest;
  longest.domain = 0xffffffff, longest.bus = longest.device = longest.function = 0xff;
  EXPECT_EQ(longest.to_string(), "ffffffff:ff:ff.ff") << "no address, but what the type holds";
}

TEST(PciAddress, RefusesWhatIsNone) {
  for (const char* text : {"",
                           ":",
                           ".",
                           "3b",
                           "3b:00",
                           "3b:20.0",
                           "3b:00.8",
                           "3b:00.",
                           "3b:00.00",
                           "100:00.0",
                           "000:3b:00.0",
                           "0000:3b:00.0 ",
                           " 3b:00.0",
                           "0000:3b:00:0",
                           "0000:3b:00.0.0",
                           "0x3b:00.0",
                           "-1:00.0",
                           "123456789:00:00.0",
                           "nvme0",
                           "00000:0:00.-1"}) {
    const auto address = PciAddress::parse(text);
    ASSERT_FALSE(address.has_value()) << text;
    EXPECT_EQ(address.error().code(), ErrorCode::InvalidArgument);
    EXPECT_NE(address.error().message().find("vmp pci list"), std::string::npos);
  }
}

TEST(PciAddress, OrdersAsPeopleReadIt) {
  EXPECT_LT(*PciAddress::parse("00:1f.7"), *PciAddress::parse("01:00.0"));
  EXPECT_LT(*PciAddress::parse("ff:1f.7"), *PciAddress::parse("0001:00:00.0"));
  EXPECT_TRUE(PciAddress::parse("01:00.0")->same_slot(*PciAddress::parse("01:00.7")));
  EXPECT_FALSE(PciAddress::parse("01:00.0")->same_slot(*PciAddress::parse("01:01.0")));
}

}  // namespace
}  // namespace vm_platform
