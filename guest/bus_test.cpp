#include "guest/bus.hpp"

#include <gtest/gtest.h>

namespace vm_platform {
namespace {

struct Register : PortDevice, MmioDevice {
  std::uint32_t port_read(std::uint16_t port, unsigned) override { return 0xabcd0000u | port; }
  void port_write(std::uint16_t, unsigned, std::uint32_t written) override { value = written; }
  std::uint64_t mmio_read(std::uint64_t offset, unsigned, unsigned vcpu) override { return offset << 8 | vcpu; }
  void mmio_write(std::uint64_t, unsigned, std::uint64_t written, unsigned) override { value = written; }
  std::uint64_t value = 0;
};

TEST(PortBusTest, RoutesAndMasks) {
  PortBus bus;
  Register device;
  ASSERT_TRUE(bus.attach(0x3f8, 8, device, "serial"));
  EXPECT_EQ(bus.read(0x3f9, 1), 0xf9u);
  EXPECT_EQ(bus.read(0x400, 1), 0xffu) << "nobody there";
  EXPECT_EQ(bus.read(0x3f7, 4), 0xffffffffu);
  bus.write(0x3f8, 1, 0x1234);
  EXPECT_EQ(device.value, 0x34u);
  EXPECT_FALSE(bus.attach(0x3ff, 1, device, "overlap"));
  EXPECT_FALSE(bus.attach(0xffff, 2, device, "past the end"));
}

TEST(MmioBusTest, RoutesOnlyWhatFitsTheWindow) {
  MmioBus bus;
  Register device;
  ASSERT_TRUE(bus.attach(Gpa(0xfee00000), 0x1000, device, "apic"));
  EXPECT_EQ(bus.read(Gpa(0xfee00020), 4, 3), 0x2003u);
  EXPECT_EQ(bus.read(Gpa(0xfee00ffe), 4, 0), 0xffffffffu) << "leaves the window";
  EXPECT_FALSE(bus.attach(Gpa(0xfee00fff), 1, device, "overlap"));
}

}  // namespace
}  // namespace vm_platform
