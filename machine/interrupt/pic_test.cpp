#include "machine/interrupt/pic.hpp"

#include <gtest/gtest.h>

namespace vm_platform {
namespace {

struct PicTest : testing::Test {
  PicTest() {
    // As every PC system does: ICW1 to ICW4, vectors from 30h and 38h, all inputs open.
    for (const auto& [port, base, third] :
         {std::tuple<std::uint16_t, unsigned, unsigned>{0x20, 0x30, 4}, {0xa0, 0x38, 2}}) {
      pic.port_write(port, 1, 0x11);
      pic.port_write(static_cast<std::uint16_t>(port + 1), 1, base);
      pic.port_write(static_cast<std::uint16_t>(port + 1), 1, third);
      pic.port_write(static_cast<std::uint16_t>(port + 1), 1, 0x01);
      pic.port_write(static_cast<std::uint16_t>(port + 1), 1, 0x00);
    }
  }
  void pulse(unsigned irq) { pic.set_level(irq, true), pic.set_level(irq, false); }
  int rises = 0;
  PicPair pic{[this] { ++rises; }};
};

TEST_F(PicTest, MaskedUntilInitialized) {
  PicPair fresh([] {});
  fresh.set_level(4, true);
  EXPECT_FALSE(fresh.output());
}

TEST_F(PicTest, AnEdgeIsOneInterrupt) {
  pic.set_level(4, true);
  EXPECT_TRUE(pic.output());
  EXPECT_EQ(rises, 1);
  EXPECT_EQ(pic.acknowledge(), 0x34);
  EXPECT_FALSE(pic.output());
  pic.port_write(0x20, 1, 0x20);
  EXPECT_FALSE(pic.output()) << "the wire is still up, but that is no edge";
  EXPECT_EQ(pic.acknowledge(), std::nullopt);
}

TEST_F(PicTest, PrioritiesAndSpecificEnd) {
  pulse(5);
  EXPECT_EQ(pic.acknowledge(), 0x35);
  pulse(5);
  EXPECT_FALSE(pic.output()) << "it does not interrupt itself";
  pulse(6);
  EXPECT_FALSE(pic.output()) << "lower than what is in service";
  pulse(1);
  EXPECT_EQ(pic.acknowledge(), 0x31);
  pic.port_write(0x20, 1, 0x0b);
  EXPECT_EQ(pic.port_read(0x20, 1), 0x22u) << "in service: 1 and 5";
  pic.port_write(0x20, 1, 0x20);
  EXPECT_FALSE(pic.output());
  pic.port_write(0x20, 1, 0x65);
  EXPECT_EQ(pic.acknowledge(), 0x35);
  pic.port_write(0x20, 1, 0x65);
  EXPECT_EQ(pic.acknowledge(), 0x36);
}

TEST_F(PicTest, TheSlaveGoesThroughTheCascade) {
  pulse(8);
  EXPECT_EQ(pic.acknowledge(), 0x38);
  pic.port_write(0x20, 1, 0x0b);
  pic.port_write(0xa0, 1, 0x0b);
  EXPECT_EQ(pic.port_read(0x20, 1), 0x04u);
  EXPECT_EQ(pic.port_read(0xa0, 1), 0x01u);
  pic.port_write(0x21, 1, 0x04);  // the cascade is masked
  pic.port_write(0xa0, 1, 0x20);
  pic.port_write(0x20, 1, 0x20);
  pulse(12);
  EXPECT_FALSE(pic.output());
  pic.port_write(0x21, 1, 0x00);
  EXPECT_EQ(pic.acknowledge(), 0x3c);
}

TEST_F(PicTest, LevelsComeAgainUntilTheWireFalls) {
  pic.port_write(0x4d1, 1, 0xff);
  EXPECT_EQ(pic.port_read(0x4d1, 1), 0xdeu) << "8 and 13 stay edges";
  pic.set_level(10, true);
  EXPECT_EQ(pic.acknowledge(), 0x3a);
  pic.port_write(0xa0, 1, 0x20);
  pic.port_write(0x20, 1, 0x20);
  EXPECT_EQ(pic.acknowledge(), 0x3a);
  pic.set_level(10, false);
  pic.port_write(0xa0, 1, 0x20);
  pic.port_write(0x20, 1, 0x20);
  EXPECT_FALSE(pic.output());
}

TEST_F(PicTest, AutomaticEndAndPoll) {
  pic.port_write(0x20, 1, 0x13);
  pic.port_write(0x21, 1, 0x30);
  pic.port_write(0x21, 1, 0x03);
  pic.port_write(0x21, 1, 0x00);
  pulse(3);
  pic.port_write(0x20, 1, 0x0c);
  EXPECT_EQ(pic.port_read(0x20, 1), 0x83u);
  pic.port_write(0x20, 1, 0x0b);
  EXPECT_EQ(pic.port_read(0x20, 1), 0x00u) << "nothing stays in service";
}

TEST_F(PicTest, RotationMakesTheServedOneLowest) {
  pulse(2);  // the cascade is no input
  EXPECT_FALSE(pic.output());
  pulse(3);
  EXPECT_EQ(pic.acknowledge(), 0x33);
  pic.port_write(0x20, 1, 0xa0);  // rotate on non-specific EOI
  pulse(3);
  pulse(7);
  EXPECT_EQ(pic.acknowledge(), 0x37);
}

}  // namespace
}  // namespace vm_platform
