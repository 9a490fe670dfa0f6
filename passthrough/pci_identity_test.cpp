#include <gtest/gtest.h>

#include <vm_platform/pci_identity.hpp>

namespace vm_platform {
namespace {

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

std::string found(std::initializer_list<PciDeviceInfo> all, const PciIdentity& identity) {
  const auto address = find_by_identity(std::vector(all), identity);
  return address ? address->to_string() : std::string(to_string(address.error().code()));
}

TEST(PciIdentity, PathsLeaveOutTheNumbersOfBuses) {
  EXPECT_EQ(stable_path("devices/pci0000:00/0000:00:1c.0/0000:01:00.1"), "pci0000:00/1c.0/00.1");
  EXPECT_EQ(stable_path("devices/pci0000:00/0000:00:1c.0/0000:07:00.1"), "pci0000:00/1c.0/00.1");
  EXPECT_EQ(stable_path("devices/LNXSYSTM:00/VMBUS:00/pci0001:00/0001:00:00.0"),
            "LNXSYSTM:00/VMBUS:00/pci0001:00/00.0");
}

TEST(PciIdentity, SurvivesRenumberingAndMoving) {
  const auto before = card("03:00.0", "devices/pci0000:00/0000:00:1c.0/0000:03:00.0", 77);
  const PciIdentity identity = identity_of(before);
  const auto renumbered = card("05:00.0", "devices/pci0000:00/0000:00:1c.0/0000:05:00.0", 77);
  const auto twin = card("03:00.0", "devices/pci0000:00/0000:00:1d.0/0000:03:00.0", 78);
  EXPECT_EQ(found({twin, renumbered}, identity), "0000:05:00.0");
  const auto moved = card("04:00.0", "devices/pci0000:00/0000:00:1e.0/0000:04:00.0", 77);
  EXPECT_EQ(found({twin, moved}, identity), "0000:04:00.0") << "the serial number is the card's own";
  const auto second = card("04:00.1", "devices/pci0000:00/0000:00:1e.0/0000:04:00.1", 77);
  EXPECT_EQ(found({moved, second}, identity), to_string(ErrorCode::Status)) << "two functions, both moved";
  EXPECT_EQ(found({twin}, identity), to_string(ErrorCode::NotFound)) << "of the same kind is not the same";
  const auto other_card = card("03:00.0", "devices/pci0000:00/0000:00:1c.0/0000:03:00.0", 79);
  EXPECT_EQ(found({other_card}, identity), to_string(ErrorCode::NotFound)) << "another card in its slot";
  const auto unreadable = card("05:00.0", "devices/pci0000:00/0000:00:1c.0/0000:05:00.0");
  EXPECT_EQ(found({unreadable}, identity), "0000:05:00.0");
  EXPECT_EQ(found({}, identity), to_string(ErrorCode::NotFound));
}

TEST(PciIdentity, FirmwaresIndexAndThePlaceAreNextBest) {
  const auto a = card("03:00.0", "devices/pci0000:00/0000:00:1c.0/0000:03:00.0", {}, 1);
  const auto b = card("04:00.0", "devices/pci0000:00/0000:00:1d.0/0000:04:00.0", {}, 2);
  EXPECT_EQ(found({a, b}, {0x15b3, 0x1017, "gone", 2, {}}), "0000:04:00.0");
  EXPECT_EQ(found({a, b}, {0x15b3, 0x1017, "pci0000:00/1c.0/00.0", {}, {}}), "0000:03:00.0");
  EXPECT_EQ(found({a, b}, {0x15b3, 0x1018, "pci0000:00/1c.0/00.0", {}, {}}), to_string(ErrorCode::NotFound));
}

}  // namespace
}  // namespace vm_platform
