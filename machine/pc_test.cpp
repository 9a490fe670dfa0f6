#include "machine/pc.hpp"

#include <gtest/gtest.h>
namespace vm_platform {
namespace {
struct Events : PcEvents {
  void power_off() override { ++offs; }
  void reset_requested() override { ++resets; }
  void debug_exit(std::uint8_t value) override { exits = value; }
  void guest_panicked(std::uint8_t event) override { panic = event; }
  int offs = 0, resets = 0, exits = -1, panic = -1;
};
TEST(PcTest, EndsAreTold) {
  Events events;
  auto pc = Pc::create({.memory_bytes = 64 * kMiB, .cpus = 2, .tsc = {1'000'000'000, 0}}, events);
  ASSERT_TRUE(pc.has_value()) << pc.error().message();
  PortBus& ports = (*pc)->ports();
  ports.write(0x604, 2, 5 << 10 | 1 << 13);
  EXPECT_EQ(events.offs, 1);
  ports.write(0xcf9, 1, 6);
  ports.write(0x64, 1, 0xfe);
  EXPECT_EQ(events.resets, 2);
  ports.write(0xf4, 1, 21);
  EXPECT_EQ(events.exits, 21);
  ports.write(0x505, 1, 1);
  EXPECT_EQ(events.panic, 1);
}
}  // namespace
}  // namespace vm_platform
