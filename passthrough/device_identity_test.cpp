#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vm_platform/device_identity.hpp>

namespace vm_platform {
namespace {

using testing::HasSubstr;

TEST(Identity, TopologyLeavesBusNumbersOut) {
  EXPECT_EQ(topology_of("devices/pci0000:00/0000:00:1c.0/0000:3b:00.1"), "pci0000:00/1c.0/00.1");
  EXPECT_EQ(topology_of("devices/LNXSYSTM:00/VMBUS:00/pci0001:00/0001:00:00.0"), "pci0001:00/00.0");
  EXPECT_EQ(topology_of("devices/platform/x"), "");
}

TEST(Identity, FindsADeviceThatWasRenumberedOrMoved) {
  PciDeviceInfo before;
  before.address = {0, 1, 0, 0};
  before.device_path = "devices/pci0000:00/0000:00:1c.0/0000:01:00.0";
  before.vendor = 0x10de;
  before.device = 0x2204;
  const DeviceIdentity plain = identify(before);
  PciDeviceInfo renumbered = before;
  renumbered.address = {0, 3, 0, 0};
  renumbered.device_path = "devices/pci0000:00/0000:00:1c.0/0000:03:00.0";
  PciDeviceInfo other = before;  // a twin in another slot that now has the old number
  other.device_path = "devices/pci0000:00/0000:00:1d.0/0000:01:00.0";
  const std::vector twins{other, renumbered};
  EXPECT_EQ(find_device(plain, twins)->to_string(), "0000:03:00.0");
  EXPECT_EQ(find_device(plain, std::vector{other}).error().code(), ErrorCode::NotFound);
  PciDeviceInfo stranger = renumbered;
  stranger.device = 0x2206;
  EXPECT_THAT(find_device(plain, std::vector{stranger}).error().message(), HasSubstr("0000:03:00.0 is there now"));
  before.serial_number = 42;
  other.serial_number = 42;
  EXPECT_EQ(find_device(identify(before), std::vector{other})->to_string(), "0000:01:00.0") << "moved: by its serial";
  const std::vector same_serial{other, [&] {
                                  PciDeviceInfo copy = renumbered;
                                  copy.serial_number = 42;
                                  return copy;
                                }()};
  EXPECT_EQ(find_device(identify(before), same_serial)->to_string(), "0000:03:00.0") << "a serial twice tells nothing";
}

PciDeviceInfo card(const char* address, const char* path, std::optional<std::uint64_t> serial = {},
                   std::optional<std::uint32_t> index = {}) {
  PciDeviceInfo info;
  info.address = *PciAddress::parse(address);
  info.vendor = 0x15b3;
  info.device = 0x1017;
  info.device_path = path;
  info.serial_number = serial;
  info.acpi_index = index;
  return info;
}

TEST(Identity, AnotherCardInItsSlotIsNotTheSame) {
  const char* path = "devices/pci0000:00/0000:00:1c.0/0000:03:00.0";
  const DeviceIdentity identity = identify(card("03:00.0", path, 77));
  EXPECT_THAT(find_device(identity, std::vector{card("03:00.0", path, 79)}).error().message(),
              HasSubstr("another 15b3:1017"));
  EXPECT_TRUE(find_device(identity, std::vector{card("03:00.0", path)})) << "a serial number that cannot be read now";
}

TEST(Identity, FunctionsOfAMovedCardAreToldApartByTheirNumber) {
  const DeviceIdentity identity = identify(card("03:00.1", "devices/pci0000:00/0000:00:1c.0/0000:03:00.1", 77));
  const std::vector moved{card("04:00.0", "devices/pci0000:00/0000:00:1e.0/0000:04:00.0", 77),
                          card("04:00.1", "devices/pci0000:00/0000:00:1e.0/0000:04:00.1", 77)};
  EXPECT_EQ(find_device(identity, moved)->to_string(), "0000:04:00.1");
}

TEST(Identity, FirmwaresNumberComesBeforeThePlace) {
  const DeviceIdentity identity = identify(card("03:00.0", "devices/pci0000:00/0000:00:1c.0/0000:03:00.0", {}, 2));
  const std::vector both{card("03:00.0", "devices/pci0000:00/0000:00:1c.0/0000:03:00.0", {}, 1),
                         card("04:00.0", "devices/pci0000:00/0000:00:1d.0/0000:04:00.0", {}, 2)};
  EXPECT_EQ(find_device(identity, both)->to_string(), "0000:04:00.0");
}

}  // namespace
}  // namespace vm_platform
