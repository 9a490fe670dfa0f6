#include "machine/interrupt/local_apic.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "machine/interrupt/io_apic.hpp"

namespace vm_platform {
namespace {

using Access = CpuInterruptController::MsrAccess;

struct Signals : CpuSignals {
  void interrupt_pending() noexcept override { ++pending; }
  void raise_nmi() noexcept override { ++nmis; }
  void raise_init() noexcept override { ++inits; }
  void raise_startup(std::uint8_t vector) noexcept override { startup = vector; }
  std::atomic<int> pending = 0, nmis = 0, inits = 0, startup = -1;
};

struct LocalApicTest : testing::Test {
  static constexpr unsigned kCpus = 4;
  LocalApicTest() {
    for (unsigned i = 0; i < kCpus; ++i) {
      bus.apic(i).connect(&signals[i]);
      bus.apic(i).mmio_write(0xf0, 4, 0x1ff);
    }
  }
  static void to_x2apic(LocalApic& apic) {
    std::uint64_t base = 0;
    apic.read_msr(0x1b, base);
    ASSERT_EQ(apic.write_msr(0x1b, base | 0x400), Access::Done);
  }
  static std::uint64_t msr(LocalApic& apic, std::uint32_t index) {
    std::uint64_t value = 0;
    EXPECT_EQ(apic.read_msr(index, value), Access::Done) << std::hex << index;
    return value;
  }
  /// Waits for an interrupt, so that a slow host makes no failure.
  static bool wait_for(LocalApic& apic, int ms = 2000) {
    for (int i = 0; i < ms * 10 && !apic.has_interrupt(); ++i)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    return apic.has_interrupt();
  }
  std::unique_ptr<TimerService> timers = *TimerService::create();
  PicPair pic{[this] {
    for (unsigned i = 0; i < kCpus; ++i) bus.apic(i).lint0_raised();
  }};
  TscClock tsc{host_tsc_frequency(), 0};
  ApicBus bus{kCpus, pic, *timers, tsc, [this](std::uint8_t vector) { io_apic.end_of_interrupt(vector); }};
  IoApic io_apic{bus};
  Signals signals[kCpus];
};

TEST_F(LocalApicTest, ResetState) {
  LocalApic& apic = bus.apic(0);
  apic.reset();
  EXPECT_EQ(msr(apic, 0x1b), 0xfee00900u);
  EXPECT_EQ(msr(bus.apic(1), 0x1b), 0xfee00800u);
  EXPECT_EQ(apic.mmio_read(0x30, 4), 0x50014u);
  EXPECT_EQ(apic.mmio_read(0xf0, 4), 0xffu);
  EXPECT_EQ(apic.mmio_read(0xe0, 4), 0xffffffffu);
  EXPECT_EQ(bus.apic(3).mmio_read(0x20, 4), 3u << 24);
  EXPECT_EQ(apic.mmio_read(0x320, 4), 0x10000u);
}

TEST_F(LocalApicTest, PrioritiesDecideWhatIsTaken) {
  LocalApic& apic = bus.apic(0);
  for (const std::uint8_t vector : std::initializer_list<std::uint8_t>{0x31, 0x52, 0x53})
    apic.accept({.vector = vector});
  EXPECT_EQ(signals[0].pending, 3);
  ASSERT_TRUE(apic.has_interrupt());
  EXPECT_EQ(apic.acknowledge(), 0x53);
  EXPECT_FALSE(apic.has_interrupt()) << "52h is of the class that is in service";
  EXPECT_EQ(apic.mmio_read(0xa0, 4), 0x50u);
  apic.mmio_write(0xb0, 4, 0);
  EXPECT_EQ(apic.acknowledge(), 0x52);
  apic.mmio_write(0xb0, 4, 0);
  apic.set_task_priority(3);
  EXPECT_FALSE(apic.has_interrupt());
  const int before = signals[0].pending;
  apic.set_task_priority(2);
  EXPECT_EQ(signals[0].pending, before + 1) << "a lower task priority makes the CPU look again";
  EXPECT_EQ(apic.acknowledge(), 0x31);
}

TEST_F(LocalApicTest, IpisGoWhereTheySay) {
  LocalApic& apic = bus.apic(0);
  const auto send = [&](std::uint32_t low, std::uint32_t destination) {
    apic.mmio_write(0x310, 4, destination << 24);
    apic.mmio_write(0x300, 4, low);
  };
  const auto taken = [&] {
    std::string who;
    for (unsigned i = 0; i < kCpus; ++i) {
      if (bus.apic(i).has_interrupt()) {
        who += static_cast<char>('0' + i);
        EXPECT_EQ(bus.apic(i).acknowledge(), 0x40);
        bus.apic(i).mmio_write(0xb0, 4, 0);
      }
    }
    return who;
  };
  send(0x40, 2);
  EXPECT_EQ(taken(), "2");
  send(0x40, 0xff);
  EXPECT_EQ(taken(), "0123");
  send(0x40 | 1 << 18, 2);
  EXPECT_EQ(taken(), "0");
  send(0x40 | 2 << 18, 0);
  EXPECT_EQ(taken(), "0123");
  send(0x40 | 3 << 18, 0);
  EXPECT_EQ(taken(), "123");
  for (unsigned i = 0; i < kCpus; ++i) bus.apic(i).mmio_write(0xd0, 4, 1u << (24 + i));
  send(0x40 | 0x800, 0x0a);
  EXPECT_EQ(taken(), "13") << "flat logical";
  send(0x40 | 0x900, 0x0f);
  EXPECT_EQ(taken().size(), 1u) << "lowest priority: one";
  for (unsigned i = 0; i < kCpus; ++i) {
    bus.apic(i).mmio_write(0xe0, 4, 0);
    bus.apic(i).mmio_write(0xd0, 4, ((i / 2) << 4 | 1u << (i % 2)) << 24);
  }
  send(0x40 | 0x800, 0x12);
  EXPECT_EQ(taken(), "3") << "cluster 1, second member";
  send(0x40, 9);
  EXPECT_EQ(taken(), "") << "nobody has that number";
}

TEST_F(LocalApicTest, NmiInitAndStartup) {
  LocalApic& apic = bus.apic(0);
  bus.apic(1).accept({.vector = 0x55});
  apic.mmio_write(0x310, 4, 1 << 24);
  apic.mmio_write(0x300, 4, 0x400);
  EXPECT_EQ(signals[1].nmis, 1);
  apic.mmio_write(0x300, 4, 0xc500);
  EXPECT_EQ(signals[1].inits, 1);
  apic.mmio_write(0x300, 4, 0x8500);
  EXPECT_EQ(signals[1].inits, 1) << "INIT de-assert does nothing";
  apic.mmio_write(0x300, 4, 0x69a);
  EXPECT_EQ(signals[1].startup, 0x9a);
  EXPECT_FALSE(bus.apic(1).has_interrupt()) << "INIT has reset the APIC";
  EXPECT_EQ(bus.apic(1).mmio_read(0xf0, 4), 0xffu);
}

TEST_F(LocalApicTest, X2apicModeAndItsFaults) {
  LocalApic& apic = bus.apic(3);
  std::uint64_t value = 0;
  EXPECT_EQ(apic.read_msr(0x802, value), Access::Fault) << "not in x2APIC mode yet";
  to_x2apic(apic);
  EXPECT_EQ(msr(apic, 0x802), 3u);
  EXPECT_EQ(msr(apic, 0x80d), 8u) << "cluster 0, bit 3";
  EXPECT_EQ(apic.mmio_read(0x30, 4), ~std::uint64_t{0});
  EXPECT_EQ(apic.write_msr(0x80b, 1), Access::Fault);
  EXPECT_EQ(apic.write_msr(0x802, 1), Access::Fault);
  EXPECT_EQ(apic.write_msr(0x808, 0x100), Access::Fault);
  EXPECT_EQ(apic.write_msr(0x80f, std::uint64_t{1} << 32 | 0x1ff), Access::Fault);
  EXPECT_EQ(apic.read_msr(0x80e, value), Access::Fault) << "no DFR in this mode";
  EXPECT_EQ(apic.read_msr(0x900, value), Access::NotMine);
  EXPECT_EQ(apic.write_msr(0x1b, 0xfee00800), Access::Fault) << "not back to xAPIC at once";
  EXPECT_EQ(apic.write_msr(0x1b, 0xfee00000), Access::Done);
  EXPECT_EQ(apic.write_msr(0x1b, 0xfee00c00), Access::Fault) << "not from off to x2APIC at once";
  EXPECT_EQ(apic.write_msr(0x1b, 0xfee00800), Access::Done);
}

TEST_F(LocalApicTest, X2apicInterrupts) {
  for (unsigned i = 0; i < kCpus; ++i) to_x2apic(bus.apic(i));
  LocalApic& apic = bus.apic(0);
  EXPECT_EQ(apic.write_msr(0x830, std::uint64_t{2} << 32 | 0x61), Access::Done);
  EXPECT_EQ(bus.apic(2).acknowledge(), 0x61);
  EXPECT_EQ(apic.write_msr(0x830, std::uint64_t{0x0a} << 32 | 0x862), Access::Done);
  EXPECT_EQ(bus.apic(1).acknowledge(), 0x62);
  EXPECT_EQ(bus.apic(3).acknowledge(), 0x62);
  EXPECT_EQ(apic.write_msr(0x83f, 0x71), Access::Done);
  EXPECT_EQ(msr(apic, 0x823), 1u << 17);
  EXPECT_EQ(apic.acknowledge(), 0x71);
  EXPECT_EQ(msr(apic, 0x813), 1u << 17);
  EXPECT_EQ(apic.write_msr(0x80b, 0), Access::Done);
  EXPECT_EQ(msr(apic, 0x813), 0u);
  EXPECT_EQ(apic.write_msr(0x830, std::uint64_t{0xffffffff} << 32 | 0x93), Access::Done);
  for (unsigned i = 0; i < kCpus; ++i) EXPECT_EQ(bus.apic(i).acknowledge(), 0x93) << i;
}

TEST_F(LocalApicTest, IllegalVectorsAreErrors) {
  LocalApic& apic = bus.apic(0);
  apic.mmio_write(0x370, 4, 0xfe);
  apic.mmio_write(0x300, 4, 0x40005);
  EXPECT_EQ(apic.mmio_read(0x280, 4), 0u) << "until it is written";
  apic.mmio_write(0x280, 4, 0);
  EXPECT_EQ(apic.mmio_read(0x280, 4), 0x20u);
  EXPECT_EQ(apic.acknowledge(), 0xfe);
}

TEST_F(LocalApicTest, DisabledBySoftware) {
  LocalApic& apic = bus.apic(1);
  apic.mmio_write(0x320, 4, 0x40);
  apic.mmio_write(0xf0, 4, 0xff);
  EXPECT_EQ(apic.mmio_read(0x320, 4), 0x10040u) << "masked";
  apic.mmio_write(0x320, 4, 0x40);
  EXPECT_EQ(apic.mmio_read(0x320, 4), 0x10040u) << "and stays so";
  EXPECT_FALSE(apic.accept({.vector = 0x50}));
}

TEST_F(LocalApicTest, OneShotTimer) {
  LocalApic& apic = bus.apic(0);
  apic.mmio_write(0x3e0, 4, 0xb);  // divide by 1
  apic.mmio_write(0x320, 4, 0x41);
  const std::int64_t start = monotonic_ns();
  apic.mmio_write(0x380, 4, 20'000'000);
  const std::uint64_t count = apic.mmio_read(0x390, 4);
  EXPECT_GT(count, 0u);
  EXPECT_LE(count, 20'000'000u);
  ASSERT_TRUE(wait_for(apic));
  EXPECT_GE(monotonic_ns() - start, 20'000'000);
  EXPECT_EQ(apic.acknowledge(), 0x41);
  apic.mmio_write(0xb0, 4, 0);
  EXPECT_EQ(apic.mmio_read(0x390, 4), 0u);
  EXPECT_FALSE(wait_for(apic, 40)) << "once";
}

TEST_F(LocalApicTest, PeriodicTimerKeepsItsPace) {
  LocalApic& apic = bus.apic(0);
  apic.mmio_write(0x3e0, 4, 0x3);  // divide by 16
  apic.mmio_write(0x320, 4, 0x20042);
  const std::int64_t start = monotonic_ns();
  apic.mmio_write(0x380, 4, 5'000'000 / 16);
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(wait_for(apic));
    EXPECT_EQ(apic.acknowledge(), 0x42);
    apic.mmio_write(0xb0, 4, 0);
  }
  EXPECT_GE(monotonic_ns() - start, 8 * 5'000'000 - 1000);
  apic.mmio_write(0x380, 4, 0);
  EXPECT_EQ(apic.mmio_read(0x390, 4), 0u);
}

TEST_F(LocalApicTest, DeadlineTimer) {
  LocalApic& apic = bus.apic(0);
  to_x2apic(apic);
  EXPECT_EQ(apic.write_msr(0x6e0, tsc.now()), Access::Done);
  EXPECT_EQ(msr(apic, 0x6e0), 0u) << "ignored in other modes";
  EXPECT_EQ(apic.write_msr(0x832, 0x40043), Access::Done);
  const std::uint64_t deadline = tsc.now() + tsc.frequency_hz / 20;
  EXPECT_EQ(apic.write_msr(0x6e0, deadline), Access::Done);
  EXPECT_EQ(msr(apic, 0x6e0), deadline);
  EXPECT_FALSE(apic.has_interrupt());
  ASSERT_TRUE(wait_for(apic));
  EXPECT_GE(tsc.now(), deadline);
  EXPECT_EQ(msr(apic, 0x6e0), 0u);
  EXPECT_EQ(apic.acknowledge(), 0x43);
  apic.write_msr(0x80b, 0);
  EXPECT_EQ(apic.write_msr(0x6e0, 1), Access::Done);
  EXPECT_EQ(apic.acknowledge(), 0x43) << "one that has passed comes at once";
  apic.write_msr(0x80b, 0);
  apic.write_msr(0x6e0, tsc.now() + tsc.frequency_hz / 50);
  apic.write_msr(0x6e0, 0);
  EXPECT_FALSE(wait_for(apic, 40)) << "disarmed";
}

TEST_F(LocalApicTest, ExternalInterruptsOfThePic) {
  LocalApic& apic = bus.apic(0);
  pic.port_write(0x20, 1, 0x11);
  for (const unsigned word : {0x30u, 0x04u, 0x01u, 0x00u}) pic.port_write(0x21, 1, word);
  const int before = signals[0].pending;
  apic.mmio_write(0x350, 4, 0x700);
  pic.set_level(4, true);
  EXPECT_GT(signals[0].pending, before);
  EXPECT_TRUE(apic.has_interrupt());
  EXPECT_FALSE(bus.apic(1).has_interrupt()) << "its LINT0 is masked";
  apic.mmio_write(0x350, 4, 0x10700);
  EXPECT_FALSE(apic.has_interrupt());
  apic.mmio_write(0x350, 4, 0x700);
  EXPECT_EQ(apic.acknowledge(), 0x34);
  EXPECT_EQ(apic.mmio_read(0x110, 4), 0u) << "not in service at the APIC";
}

TEST_F(LocalApicTest, MessageSignalled) {
  bus.send_msi(0xfee02000, 0x4051);
  EXPECT_EQ(bus.apic(2).acknowledge(), 0x51);
  bus.send_msi(0xfed02000, 0x4051);
  EXPECT_FALSE(bus.apic(2).has_interrupt());
}

struct IoApicTest : LocalApicTest {
  void entry(unsigned pin, std::uint64_t value) {
    io_apic.mmio_write(0, 4, 0x11 + pin * 2, 0);
    io_apic.mmio_write(0x10, 4, value >> 32, 0);
    io_apic.mmio_write(0, 4, 0x10 + pin * 2, 0);
    io_apic.mmio_write(0x10, 4, value & 0xffffffff, 0);
  }
  std::uint64_t entry(unsigned pin) {
    io_apic.mmio_write(0, 4, 0x10 + pin * 2, 0);
    return io_apic.mmio_read(0x10, 4, 0);
  }
};

TEST_F(IoApicTest, IdentityAndReset) {
  io_apic.mmio_write(0, 4, 1, 0);
  EXPECT_EQ(io_apic.mmio_read(0x10, 4, 0), 0x170020u);
  EXPECT_EQ(entry(23), 0x10000u);
}

TEST_F(IoApicTest, EdgesAreSentOnceAndLostWhenMasked) {
  io_apic.set_level(4, true);
  entry(4, std::uint64_t{1} << 56 | 0x34);
  EXPECT_FALSE(bus.apic(1).has_interrupt()) << "the edge came while it was masked";
  io_apic.set_level(4, false);
  io_apic.set_level(4, true);
  EXPECT_EQ(bus.apic(1).acknowledge(), 0x34);
  bus.apic(1).mmio_write(0xb0, 4, 0);
  EXPECT_FALSE(bus.apic(1).has_interrupt());
}

TEST_F(IoApicTest, LevelsWaitForTheEnd) {
  entry(9, 0x8039);
  io_apic.set_level(9, true);
  EXPECT_EQ(entry(9), 0xc039u) << "remote IRR";
  LocalApic& apic = bus.apic(0);
  EXPECT_EQ(apic.acknowledge(), 0x39);
  io_apic.set_level(9, true);
  EXPECT_FALSE(apic.has_interrupt());
  EXPECT_EQ(apic.mmio_read(0x190, 4), 1u << 25) << "trigger mode";
  apic.mmio_write(0xb0, 4, 0);
  EXPECT_EQ(apic.acknowledge(), 0x39) << "the wire is still up";
  io_apic.set_level(9, false);
  apic.mmio_write(0xb0, 4, 0);
  EXPECT_FALSE(apic.has_interrupt());
  EXPECT_EQ(entry(9), 0x8039u);
}

TEST_F(IoApicTest, UnmaskingALevelThatIsUpSendsIt) {
  io_apic.set_level(16, true);
  entry(16, 0x8047);
  EXPECT_EQ(bus.apic(0).acknowledge(), 0x47);
  io_apic.set_level(16, false);
  io_apic.mmio_write(0x40, 4, 0x47, 0);
  EXPECT_EQ(entry(16), 0x8047u) << "the EOI register ends it too";
}

// What several threads do to one APIC at once; ThreadSanitizer watches, and nothing may be lost.
TEST_F(IoApicTest, NothingIsLostBetweenThreads) {
  constexpr int kRounds = 4'000;
  LocalApic& apic = bus.apic(0);
  entry(5, 0x8085);
  apic.mmio_write(0x320, 4, 0x20090);
  apic.mmio_write(0x3e0, 4, 0xb);
  apic.mmio_write(0x380, 4, 200'000);
  std::atomic<int> sent[2] = {0, 0}, taken[2] = {0, 0};
  std::atomic<bool> done = false;
  const auto sender = [&](unsigned which, std::uint8_t vector) {
    for (int i = 0; i < kRounds; ++i) {
      sent[which] = i + 1;
      bus.deliver({.destination = 0, .vector = vector});
      while (taken[which] <= i) std::this_thread::yield();  // every one is waited for: a lost one hangs
    }
  };
  std::thread first(sender, 0, std::uint8_t{0x61}), second(sender, 1, std::uint8_t{0x72});
  std::thread wire([&] {
    for (int i = 0; !done; ++i) io_apic.set_level(5, i % 2 == 0), std::this_thread::yield();
  });
  int levels = 0;
  while (taken[0] < kRounds || taken[1] < kRounds) {
    if (!apic.has_interrupt()) {
      std::this_thread::yield();
      continue;
    }
    const auto vector = apic.acknowledge();
    if (!vector) continue;
    apic.mmio_write(0xb0, 4, 0);
    if (vector == 0x61) ++taken[0];
    if (vector == 0x72) ++taken[1];
    levels += vector == 0x85;
  }
  done = true;
  first.join(), second.join(), wire.join();
  EXPECT_EQ(sent[0], kRounds);
  EXPECT_GT(levels, 0);
  apic.mmio_write(0x380, 4, 0);
}

}  // namespace
}  // namespace vm_platform
