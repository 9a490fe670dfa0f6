// PIT, RTC and ACPI power management: the devices that measure time.
#include <gtest/gtest.h>

#include <atomic>
#include <ctime>
#include <thread>

#include "machine/devices/acpi_pm.hpp"
#include "machine/devices/pit.hpp"
#include "machine/devices/rtc_cmos.hpp"

namespace vm_platform {
namespace {

struct Wire : InterruptLine {
  void set_level(bool high) override {
    if (high && !level) ++rises;
    level = high;
  }
  std::atomic<bool> level = false;
  std::atomic<int> rises = 0;
};

template <typename Condition>
bool wait_until(Condition condition, int ms = 3000) {
  for (int i = 0; i < ms * 5 && !condition(); ++i) std::this_thread::sleep_for(std::chrono::microseconds(200));
  return condition();
}

struct PitTest : testing::Test {
  unsigned in(std::uint16_t port) { return pit.port_read(port, 1); }
  void out(std::uint16_t port, unsigned value) { pit.port_write(port, 1, value); }
  unsigned count(unsigned channel) {
    out(0x43, channel << 6);
    const unsigned low = in(static_cast<std::uint16_t>(0x40 + channel));
    return low | in(static_cast<std::uint16_t>(0x40 + channel)) << 8;
  }
  Wire wire;
  std::unique_ptr<TimerService> timers = *TimerService::create();
  Pit pit{wire, *timers};
};

TEST_F(PitTest, PeriodicInterruptsKeepTheirPace) {
  out(0x43, 0x34);  // channel 0, mode 2
  out(0x40, 5966 & 0xff);
  out(0x40, 5966 >> 8);  // 5 ms
  const std::int64_t start = monotonic_ns();
  const int before = wire.rises;
  ASSERT_TRUE(wait_until([&] { return wire.rises >= before + 8; }));
  EXPECT_GE(monotonic_ns() - start, 8 * 5'000'000 - 1'000'000);
  EXPECT_LT(monotonic_ns() - start, 2'000'000'000);
}

TEST_F(PitTest, OneShot) {
  out(0x43, 0x30);  // channel 0, mode 0
  EXPECT_FALSE(wire.level);
  const std::int64_t start = monotonic_ns();
  out(0x40, 0x00);
  out(0x40, 0xbf);  // 48896 ticks: 40.98 ms
  EXPECT_FALSE(wire.level);
  ASSERT_TRUE(wait_until([&] { return wire.level.load(); }));
  EXPECT_GE(monotonic_ns() - start, 40'900'000);
  const int rises = wire.rises;
  EXPECT_FALSE(wait_until([&] { return wire.rises > rises; }, 30)) << "once";
}

TEST_F(PitTest, CountsAtItsFrequency) {
  out(0x43, 0x34);
  out(0x40, 0);
  out(0x40, 0);  // 65536
  std::int64_t before = 0, between = 0, between2 = 0, after = 0;
  double ticks = 0;
  do {  // again if the host was so slow that the count went round
    before = monotonic_ns();
    const unsigned first = count(0);
    between = monotonic_ns();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    between2 = monotonic_ns();
    ticks = (first - count(0)) & 0xffff;
    after = monotonic_ns();
  } while (after - before > 50'000'000);
  EXPECT_GE(ticks + 2, static_cast<double>(between2 - between) * 1.193182e-3);
  EXPECT_LE(ticks - 2, static_cast<double>(after - before) * 1.193182e-3);
}

TEST_F(PitTest, ChannelTwoAsTheSpeakerPortShowsIt) {
  // Linux calibrates its TSC like this.
  out(0x61, 0x01);
  out(0x43, 0xb0);  // channel 2, mode 0
  out(0x42, 0x53);
  out(0x42, 0x2e);  // 11859: 9.94 ms
  const std::int64_t start = monotonic_ns();
  EXPECT_EQ(in(0x61) & 0x20, 0u);
  EXPECT_EQ(in(0x61) & 0x03, 0x01u);
  while (monotonic_ns() - start < 9'900'000) {
    const unsigned output = in(0x61) & 0x20;
    if (monotonic_ns() - start < 9'930'000) {
      ASSERT_EQ(output, 0u) << "too early";
    }
  }
  ASSERT_TRUE(wait_until([&] { return monotonic_ns() - start >= 10'000'000; }));
  EXPECT_NE(in(0x61) & 0x20, 0u) << "too late";
  EXPECT_EQ(wire.rises, 0) << "only channel 0 interrupts";
}

TEST_F(PitTest, TheGateHoldsTheCount) {
  std::int64_t running = 0;
  unsigned held = 0, later = 0;
  do {  // again if the host was so slow that the count went round
    out(0x61, 0x01);
    out(0x43, 0xb0);
    const std::int64_t start = monotonic_ns();
    out(0x42, 0xff);
    out(0x42, 0xff);
    out(0x61, 0x00);
    held = count(2);
    running = monotonic_ns() - start;
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    EXPECT_EQ(count(2), held);
    const std::int64_t again = monotonic_ns();
    out(0x61, 0x01);
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    later = count(2);
    running += monotonic_ns() - again;
  } while (running > 50'000'000);
  EXPECT_LT(later, held);
}

TEST_F(PitTest, LatchesHoldAndReadBackTells) {
  out(0x43, 0x36);  // channel 0, mode 3
  out(0x40, 0x00);
  EXPECT_EQ((out(0x43, 0xe2), in(0x40)) & 0x7f, 0x76u) << "count not loaded yet";
  out(0x40, 0x80);
  out(0x43, 0xe2);
  EXPECT_EQ(in(0x40) & 0x7f, 0x36u);
  out(0x43, 0x00);
  const unsigned low = in(0x40);
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  const unsigned value = low | in(0x40) << 8;
  EXPECT_LE(value, 0x8000u);
  EXPECT_EQ(value & 1, 0u) << "mode 3 counts by two";
  out(0x43, 0xd2);  // read back count and no status
  in(0x40), in(0x40);
}

TEST_F(PitTest, BinaryCodedDecimal) {
  out(0x43, 0x35);
  out(0x40, 0x00);
  out(0x40, 0x90);  // 9000
  for (int i = 0; i < 50; ++i) {
    const unsigned value = count(0);
    for (unsigned digit = 0; digit < 4; ++digit) EXPECT_LE(value >> (4 * digit) & 15, 9u) << std::hex << value;
    EXPECT_LE(value, 0x9000u);
  }
}

struct RtcTest : testing::Test {
  unsigned in(unsigned index) {
    rtc.port_write(0x70, 1, index);
    return rtc.port_read(0x71, 1);
  }
  void out(unsigned index, unsigned value) {
    rtc.port_write(0x70, 1, index);
    rtc.port_write(0x71, 1, value);
  }
  /// The registers as a time, in one second.
  std::time_t clock() {
    while (true) {
      const unsigned first = in(0);
      const auto bcd = [this](unsigned index) { return static_cast<int>((in(index) >> 4) * 10 + (in(index) & 15)); };
      std::tm parts{};
      parts.tm_sec = bcd(0), parts.tm_min = bcd(2), parts.tm_hour = bcd(4), parts.tm_mday = bcd(7);
      parts.tm_mon = bcd(8) - 1, parts.tm_year = bcd(0x32) * 100 + bcd(9) - 1900;
      if (in(0) == first) return ::timegm(&parts);
    }
  }
  Wire wire;
  std::unique_ptr<TimerService> timers = *TimerService::create();
  RtcCmos rtc{wire, *timers, 512 * kMiB, 0};
};

TEST_F(RtcTest, ShowsTheHostsTime) {
  EXPECT_NEAR(static_cast<double>(clock()), static_cast<double>(std::time(nullptr)), 1.0);
  EXPECT_EQ(in(0x0d), 0x80u);
  EXPECT_EQ(in(0x0b), 0x02u);
  EXPECT_EQ(in(0x34) | in(0x35) << 8, (512u - 16) * 16);
}

TEST_F(RtcTest, TheGuestCanSetIt) {
  out(0x0b, 0x82);
  out(0, 0x30), out(2, 0x59), out(4, 0x23), out(7, 0x28), out(8, 0x02), out(9, 0x24), out(0x32, 0x20);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  out(0x0b, 0x02);
  std::tm parts{};
  parts.tm_sec = 30, parts.tm_min = 59, parts.tm_hour = 23, parts.tm_mday = 28, parts.tm_mon = 1, parts.tm_year = 124;
  EXPECT_NEAR(static_cast<double>(clock()), static_cast<double>(::timegm(&parts)), 2.0);
  out(0x0b, 0x00);  // 12 hours
  EXPECT_EQ(in(4), 0x91u) << "11 p.m.";
  out(0x0b, 0x06);  // binary
  EXPECT_EQ(in(4), 23u);
  EXPECT_EQ(in(6), 4u) << "a Wednesday";
}

TEST_F(RtcTest, AnyYearThatTheRegistersCanName) {
  const unsigned century = in(0x32), year = in(9);
  for (const unsigned other : {0x00u, 0x18u, 0x25u, 0x99u}) {
    out(0x32, other);
    EXPECT_EQ(in(0x32), other);
    EXPECT_EQ(in(9), year) << "in century " << other;
  }
  out(9, 0x00), out(0x32, 0x00), out(8, 0x00);  // the month before year 0
  EXPECT_EQ(in(8), 0x01u);
  EXPECT_EQ(in(9), 0x00u);
  out(9, year), out(0x32, century);
  EXPECT_NEAR(static_cast<double>(clock()), static_cast<double>(std::time(nullptr)), 366 * 86400.0);
}

TEST_F(RtcTest, WhileStoppedRegistersHoldWhatIsWritten) {
  out(0x0b, 0x82);
  out(7, 0x31), out(8, 0x02);  // on the way to 31 March
  EXPECT_EQ(in(7), 0x31u);
  EXPECT_EQ(in(8), 0x02u);
  out(8, 0x03);
  out(0x0b, 0x02);
  EXPECT_EQ(in(7), 0x31u);
  EXPECT_EQ(in(8), 0x03u);
}

TEST_F(RtcTest, AlarmByTheDateThatTheGuestSet) {
  out(0x0b, 0x82);
  out(0, 0x58), out(2, 0x59), out(4, 0x23), out(7, 0x31), out(8, 0x12), out(9, 0x30), out(0x32, 0x00);
  out(1, 0x00), out(3, 0x00), out(5, 0x00);  // midnight, before year 31
  out(0x0b, 0x22);
  ASSERT_TRUE(wait_until([&] { return wire.level.load(); }, 4000));
  EXPECT_EQ(in(0x0c) & 0xa0, 0xa0u);
  EXPECT_EQ(in(9), 0x31u);
}

TEST_F(RtcTest, PeriodicInterruptWaitsForTheFlagsToBeRead) {
  out(0x0a, 0x26);  // 1024 Hz
  out(0x0b, 0x42);
  ASSERT_TRUE(wait_until([&] { return wire.level.load(); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(wire.rises, 1);
  EXPECT_EQ(in(0x0c) & 0xc0, 0xc0u);
  EXPECT_FALSE(wire.level);
  ASSERT_TRUE(wait_until([&] { return wire.rises == 2; }));
}

TEST_F(RtcTest, UpdateAndAlarm) {
  out(0x0b, 0x12);
  const auto second = clock();
  ASSERT_TRUE(wait_until([&] { return wire.level.load(); }));
  EXPECT_GE(clock(), second + 1);
  EXPECT_EQ(in(0x0c) & 0x90, 0x90u);
  out(0x0b, 0x02);
  EXPECT_EQ(in(0x0c) & 0x80, 0u);
  out(1, 0xff), out(3, 0xff), out(5, 0xff);  // each second
  out(0x0b, 0x22);
  ASSERT_TRUE(wait_until([&] { return wire.level.load(); }));
  EXPECT_EQ(in(0x0c) & 0xa0, 0xa0u);
  const std::time_t next = clock() + 2;
  std::tm parts{};
  ::gmtime_r(&next, &parts);
  const auto bcd = [](int value) { return static_cast<unsigned>(value / 10 << 4 | value % 10); };
  out(1, bcd(parts.tm_sec)), out(3, bcd(parts.tm_min)), out(5, bcd(parts.tm_hour));
  in(0x0c);
  ASSERT_TRUE(wait_until([&] { return wire.level.load(); }, 4000));
  EXPECT_GE(clock(), next);
}

TEST_F(RtcTest, MemoryKeeps) {
  out(0x40, 0x77);
  EXPECT_EQ(in(0x40), 0x77u);
  rtc.port_write(0x72, 1, 0x05);
  rtc.port_write(0x73, 1, 0x66);
  EXPECT_EQ(rtc.port_read(0x73, 1), 0x66u);
  EXPECT_EQ(in(0x40), 0x77u);
}

TEST_F(RtcTest, ResetTakesInterruptsAndLeavesClockAndMemory) {
  out(9, 0x24), out(0x32, 0x20), out(0x40, 0x77), out(0x34, 0), out(5, 0x11);
  const std::time_t set = clock();
  out(0x0b, 0x7a);
  ASSERT_TRUE(wait_until([&] { return wire.level.load(); }));
  rtc.reset();
  EXPECT_FALSE(wire.level);
  EXPECT_EQ(in(0x0b), 0x02u);
  EXPECT_EQ(in(0x0c), 0u);
  EXPECT_EQ(in(0x40), 0x77u);
  EXPECT_EQ(in(5), 0x11u);
  EXPECT_EQ(in(0x34) | in(0x35) << 8, (512u - 16) * 16) << "as firmware writes it at each start";
  EXPECT_NEAR(static_cast<double>(clock()), static_cast<double>(set), 2.0);
}

struct AcpiPmTest : testing::Test {
  Wire sci;
  int offs = 0;
  std::unique_ptr<TimerService> timers = *TimerService::create();
  AcpiPm pm{sci, *timers, [this] { ++offs; }};
};

TEST_F(AcpiPmTest, TimerRunsAtItsFrequency) {
  const std::int64_t start = monotonic_ns();
  const std::uint32_t first = pm.port_read(0x608, 4);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::uint32_t ticks = pm.port_read(0x608, 4) - first;
  const double passed = static_cast<double>(monotonic_ns() - start);
  EXPECT_GE(ticks, 20.0 * 3579.545 - 2);
  EXPECT_LE(ticks, passed * 3.579545e-3 + 2);
}

TEST_F(AcpiPmTest, PowerButton) {
  EXPECT_EQ(pm.port_read(0x604, 2), 1u) << "SCI_EN";
  pm.press_power_button();
  EXPECT_FALSE(sci.level) << "not enabled";
  EXPECT_EQ(pm.port_read(0x600, 2), 0x100u);
  pm.port_write(0x602, 2, 0x100);
  EXPECT_TRUE(sci.level);
  pm.port_write(0x600, 2, 0x20);
  EXPECT_TRUE(sci.level) << "another bit";
  pm.port_write(0x601, 1, 0x01);
  EXPECT_FALSE(sci.level);
  EXPECT_EQ(pm.port_read(0x600, 4), 0x01000000u);
}

TEST_F(AcpiPmTest, OnlyS5PowersOff) {
  pm.port_write(0x604, 2, 5 << 10);
  EXPECT_EQ(offs, 0);
  pm.port_write(0x604, 2, 3 << 10 | 1 << 13);
  EXPECT_EQ(offs, 0);
  pm.port_write(0x604, 2, 5 << 10 | 1 << 13);
  EXPECT_EQ(offs, 1);
  EXPECT_EQ(pm.port_read(0x604, 2), 5u << 10 | 1u) << "SLP_EN reads as zero";
}

}  // namespace
}  // namespace vm_platform
