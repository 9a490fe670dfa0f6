#include "machine/pc.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>
#include <string>
#include <thread>

namespace vm_platform {
namespace {

struct Events : PcEvents {
  void power_off() override { log += "off "; }
  void reset_requested() override { log += "reset "; }
  void debug_exit(std::uint8_t value) override { log += "exit" + std::to_string(value) + " "; }
  void guest_panicked(std::uint8_t event) override { log += "panic" + std::to_string(event) + " "; }
  std::string log;
};

struct Signals : CpuSignals {
  void interrupt_pending() noexcept override { ++pending; }
  void raise_nmi() noexcept override { ++nmis; }
  void raise_init() noexcept override {}
  void raise_startup(std::uint8_t) noexcept override {}
  std::atomic<int> pending = 0, nmis = 0;
};

struct PcTest : testing::Test {
  PcTest() {
    auto made = Pc::create({.memory_bytes = 64 * kMiB, .cpus = 2, .tsc = {host_tsc_frequency(), 0}}, events);
    if (!made) throw std::runtime_error(made.error().message());
    pc = std::move(*made);
    for (unsigned i = 0; i < 2; ++i) pc->connect_cpu(i, cpus[i]);
    pc->mmio().write(Gpa(0xfee000f0), 4, 0x1ff, 0);
  }
  void route(unsigned pin, std::uint32_t low) const {
    pc->mmio().write(Gpa(0xfec00000), 4, 0x11 + pin * 2, 0);
    pc->mmio().write(Gpa(0xfec00010), 4, 0, 0);
    pc->mmio().write(Gpa(0xfec00000), 4, 0x10 + pin * 2, 0);
    pc->mmio().write(Gpa(0xfec00010), 4, low, 0);
  }
  std::optional<std::uint8_t> take(unsigned cpu = 0) const {
    const auto vector = pc->local_apic(cpu).acknowledge();
    if (vector) pc->mmio().write(Gpa(0xfee000b0), 4, 0, cpu);
    return vector;
  }
  template <typename T>
  T read(Gpa at) {
    T value{};
    EXPECT_TRUE(pc->memory().read(at, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  Events events;
  Signals cpus[2];
  std::unique_ptr<Pc> pc;
};

TEST_F(PcTest, EndsAreToldAfterTheLastOutput) {
  PortBus& ports = pc->ports();
  pc->serial(0).set_output([this](std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) events.log += static_cast<char>(byte);
    events.log += ' ';
  });
  ports.write(0x3f8, 1, 'x');
  ports.write(0x604, 2, 5 << 10 | 1 << 13);
  ports.write(0xcf9, 1, 2);
  ports.write(0xcf9, 1, 6);
  ports.write(0x64, 1, 0xfe);
  ports.write(0x64, 1, 0xd1);
  ports.write(0x92, 1, 3);
  ports.write(0xf4, 1, 21);
  ports.write(0xf4, 4, 0x10);
  EXPECT_EQ(ports.read(0x505, 1), 3u);
  ports.write(0x505, 1, 1);
  ports.write(0x505, 1, 4);  // an event that nobody knows
  EXPECT_EQ(events.log, "x off reset reset reset exit21 exit16 panic1 ");
}

TEST_F(PcTest, NobodyAnswersWithOnes) {
  for (const std::uint16_t port : std::initializer_list<std::uint16_t>{0x60, 0x64, 0x80, 0x2e8, 0x3d4, 0x510, 0xc000})
    EXPECT_EQ(pc->ports().read(port, 1), 0xffu) << std::hex << port;
  EXPECT_EQ(pc->mmio().read(Gpa(0xd0000000), 4, 0), 0xffffffffu);
  EXPECT_EQ(pc->mmio().read(Gpa(0xfed00000), 8, 0), ~std::uint64_t{0}) << "no HPET";
}

TEST_F(PcTest, MemoryMapIsSortedAndHoldsTheTables) {
  Gpa end;
  std::uint64_t ram = 0;
  for (const E820Entry& entry : pc->e820()) {
    EXPECT_GE(entry.base, end);
    end = entry.base + entry.size;
    if (entry.type == E820Entry::Type::Ram) {
      EXPECT_NE(pc->memory().host(entry.base, entry.size), nullptr);
      ram += entry.size;
    }
  }
  EXPECT_EQ(ram, 64 * kMiB - (kMiB - 0x9fc00));
  const auto signature = read<std::array<char, 8>>(pc->rsdp());
  EXPECT_EQ(std::string_view(signature.data(), signature.size()), "RSD PTR ");
  const Gpa xsdt(read<std::uint64_t>(pc->rsdp() + 24));
  const Gpa last = xsdt + read<std::uint32_t>(xsdt + 4);
  bool covered = false;
  for (const E820Entry& entry : pc->e820())
    covered |= entry.type == E820Entry::Type::AcpiReclaimable && xsdt >= entry.base && last <= entry.base + entry.size;
  EXPECT_TRUE(covered);
}

TEST_F(PcTest, LargeMemoryContinuesAbove4G) {
  auto large = Pc::create({.memory_bytes = 8 * kGiB, .cpus = 1, .tsc = {1'000'000'000, 0}}, events);
  ASSERT_TRUE(large.has_value());
  const E820Entry last = (*large)->e820().back();
  EXPECT_EQ(last.base, Gpa(4 * kGiB));
  EXPECT_EQ(last.size, 5 * kGiB);
}

TEST_F(PcTest, AbsurdConfigurationsAreRefused) {
  for (const PcConfig& config : {PcConfig{64 * kMiB, 0, {1, 0}}, PcConfig{64 * kMiB, Pc::kMaxCpus + 1, {1, 0}},
                                 PcConfig{0, 1, {1, 0}}, PcConfig{64 * kMiB, 1, {0, 0}}}) {
    const auto refused = Pc::create(config, events);
    ASSERT_FALSE(refused.has_value());
    EXPECT_EQ(refused.error().code(), ErrorCode::InvalidArgument);
  }
  const auto most = Pc::create({.memory_bytes = kMiB, .cpus = Pc::kMaxCpus, .tsc = {1, 0}}, events);
  EXPECT_TRUE(most.has_value());
}

TEST_F(PcTest, IsaInterruptsReachTheIoApicAndThePic) {
  route(4, 0x34);
  pc->ports().write(0x3fc, 1, 0x08);
  pc->ports().write(0x3f9, 1, 0x02);  // transmitter empty
  EXPECT_EQ(take(), 0x34);
  pc->ports().write(0x20, 1, 0x0a);
  EXPECT_EQ(pc->ports().read(0x20, 1) & 0x10, 0x10u) << "requested at the PIC too";
}

TEST_F(PcTest, TheTimerIsOnInputTwo) {
  route(2, 0x30);
  pc->ports().write(0x43, 1, 0x34);
  static_cast<void>(take());
  pc->ports().write(0x40, 1, 0xff);
  pc->ports().write(0x40, 1, 0x0f);
  for (int i = 0; i < 20'000 && !pc->local_apic(0).has_interrupt(); ++i)
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  EXPECT_EQ(take(), 0x30);
}

TEST_F(PcTest, ThePowerButtonIsALevelOnTheSci) {
  route(9, 0x8039);
  pc->ports().write(0x602, 2, 0x100);
  pc->press_power_button();
  EXPECT_EQ(take(), 0x39);
  EXPECT_EQ(take(), 0x39) << "until the status is cleared";
  pc->ports().write(0x600, 2, 0x100);
  static_cast<void>(take());
  EXPECT_EQ(take(), std::nullopt);
}

TEST_F(PcTest, NmisGoWhereLint1TakesThem) {
  pc->inject_nmi();
  EXPECT_EQ(cpus[0].nmis, 1);
  EXPECT_EQ(cpus[1].nmis, 0) << "masked after reset";
}

TEST_F(PcTest, EachCpuSeesItsOwnApic) {
  EXPECT_EQ(pc->mmio().read(Gpa(0xfee00020), 4, 0), 0u);
  EXPECT_EQ(pc->mmio().read(Gpa(0xfee00020), 4, 1), 1u << 24);
}

/// A function with one of each kind of BAR, as simple as they come.
struct Function : PciFunction {
  std::uint32_t config_read(std::uint16_t offset, unsigned size) override {
    std::uint32_t value = 0;
    std::memcpy(&value, &config[offset], size);
    return value;
  }
  void config_write(std::uint16_t offset, unsigned size, std::uint32_t value) override {
    std::memcpy(&config[offset], &value, size);
  }
  std::size_t ranges(std::span<PciRange, 6> out) override {
    if ((config[4] & 3) != 3) return 0;
    out[0] = {PciRange::Space::Memory, config_read(0x10, 4), 0x1000, 0};
    out[1] = {PciRange::Space::Io, config_read(0x14, 4), 0x20, 1};
    return 2;
  }
  std::uint64_t bar_read(unsigned bar, std::uint64_t offset, unsigned) override { return bar << 16 | offset; }
  void bar_write(unsigned bar, std::uint64_t offset, unsigned, std::uint64_t value) override {
    written = std::to_string(bar) + ":" + std::to_string(offset) + "=" + std::to_string(value);
  }
  void reset() override { config[4] = 0; }
  std::array<std::uint8_t, 4096> config{};
  std::string written;
};

TEST_F(PcTest, HostBridgeByPortsAndByMemory) {
  pc->ports().write(0xcf8, 4, 0x80000000);
  EXPECT_EQ(pc->ports().read(0xcf8, 4), 0x80000000u);
  EXPECT_EQ(pc->ports().read(0xcfc, 4), 0x29c08086u);
  EXPECT_EQ(pc->ports().read(0xcfe, 2), 0x29c0u);
  EXPECT_EQ(pc->mmio().read(Gpa(0xe0000000), 4, 0), 0x29c08086u);
  EXPECT_EQ(pc->mmio().read(Gpa(0xe000000a), 2, 0), 0x0600u);
  EXPECT_EQ(pc->mmio().read(Gpa(0xe0008000), 4, 0), 0xffffffffu) << "nobody at 00:01.0";
  EXPECT_EQ(pc->mmio().read(Gpa(0xe0100000), 4, 0), 0xffffffffu) << "no bus 1";
  pc->ports().write(0xcf8, 4, 0);
  EXPECT_EQ(pc->ports().read(0xcfc, 4), 0xffffffffu) << "the enable bit is clear";
}

TEST_F(PcTest, BarsAreDecodedWhereTheGuestPutsThem) {
  Function function;
  ASSERT_TRUE(pc->pci().attach(3, 0, function));
  EXPECT_EQ(pc->pci().attach(3, 0, function).error().code(), ErrorCode::Busy);
  EXPECT_EQ(pc->pci().attach(0, 0, function).error().code(), ErrorCode::Busy) << "the host bridge";
  EXPECT_EQ(pc->pci().attach(32, 0, function).error().code(), ErrorCode::InvalidArgument);
  pc->mmio().write(Gpa(0xe0018010), 4, 0xc0004000, 0);
  pc->mmio().write(Gpa(0xe0018014), 4, 0xc100, 0);
  EXPECT_EQ(pc->mmio().read(Gpa(0xc0004010), 4, 0), 0xffffffffu) << "decoding is off";
  pc->mmio().write(Gpa(0xe0018004), 2, 3, 0);
  EXPECT_EQ(pc->mmio().read(Gpa(0xc0004010), 4, 0), 0x10u);
  EXPECT_EQ(pc->ports().read(0xc104, 1), 0x04u);
  EXPECT_EQ(pc->ports().read(0xc104, 4), 0x10004u);
  pc->ports().write(0xc108, 2, 77);
  EXPECT_EQ(function.written, "1:8=77");
  EXPECT_EQ(pc->mmio().read(Gpa(0xc0004ffe), 4, 0), 0xffffffffu) << "leaves the range";
  pc->ports().write(0xcf8, 4, 0x80001810);
  pc->ports().write(0xcfc, 4, 0xd0000000);
  EXPECT_EQ(pc->mmio().read(Gpa(0xd0000020), 2, 0), 0x20u) << "moved";
  EXPECT_EQ(pc->mmio().read(Gpa(0xc0004010), 4, 0), 0xffffffffu);
  pc->reset();
  EXPECT_EQ(pc->mmio().read(Gpa(0xd0000020), 2, 0), 0xffffu);
}

TEST_F(PcTest, PciPinsShareTheirWires) {
  InterruptLine& first = pc->pci().interrupt(1, 0);
  InterruptLine& second = pc->pci().interrupt(5, 0);  // the same wire: 1 and 5 differ by four
  route(17, 0x8041);
  first.set_level(true);
  EXPECT_EQ(take(), 0x41);
  second.set_level(true);
  first.set_level(false);
  EXPECT_EQ(take(), 0x41) << "the second one still pulls";
  second.set_level(false);
  static_cast<void>(take());
  EXPECT_EQ(take(), std::nullopt);
  pc->pci().msi().send_msi(0xfee00000, 0x42);
  EXPECT_EQ(take(), 0x42);
}

// Two CPUs, an input thread and the timers at work on the same devices: for ThreadSanitizer, and against deadlocks.
TEST_F(PcTest, ManyThreadsAtOnce) {
  pc->mmio().write(Gpa(0xfee000f0), 4, 0x1ff, 1);
  for (const unsigned pin : {2u, 3u, 4u, 8u}) route(pin, 0x30 + pin);
  route(9, 0x8039);
  pc->ports().write(0x602, 2, 0x100);
  std::atomic<int> interrupts[2] = {0, 0};
  std::atomic<bool> done = false;
  const auto cpu = [&](unsigned index) {
    PortBus& ports = pc->ports();
    for (unsigned i = 0; !done; ++i) {
      pc->mmio().write(Gpa(0xfee00310), 4, (1 - index) << 24, index);
      pc->mmio().write(Gpa(0xfee00300), 4, 0x61, index);
      while (const auto vector = pc->local_apic(index).acknowledge()) {
        ++interrupts[index];
        if (vector == 0x39) ports.write(0x600, 2, 0x100);
        pc->mmio().write(Gpa(0xfee000b0), 4, 0, index);
      }
      ports.write(0x43, 1, 0x34);
      ports.write(0x40, 1, 0);
      ports.write(0x40, 1, 1);  // 215 us
      ports.write(0x70, 1, 0x0b);
      ports.write(0x71, 1, 0x42);
      ports.write(0x70, 1, 0x0c);
      static_cast<void>(ports.read(0x71, 1));
      ports.write(0x3fc, 1, 0x08);
      ports.write(0x3f9, 1, 0x0f);
      ports.write(0x3f8, 1, i % 8 == 0 ? '\n' : 'x');
      static_cast<void>(ports.read(0x3f8, 1));
      static_cast<void>(ports.read(0x608, 4));
      pc->mmio().write(Gpa(0xfee00320), 4, 0x20090, index);
      pc->mmio().write(Gpa(0xfee00380), 4, 100'000, index);
      static_cast<void>(pc->mmio().read(Gpa(0xe0000000), 4, index));
    }
  };
  std::thread first(cpu, 0), second(cpu, 1);
  std::thread outside([&] {
    const std::array<std::byte, 3> typed{};
    for (int i = 0; i < 300; ++i) {
      static_cast<void>(pc->serial(0).receive(typed));
      pc->press_power_button();
      pc->inject_nmi();
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
    done = true;
  });
  outside.join(), first.join(), second.join();
  EXPECT_GT(interrupts[0], 0);
  EXPECT_GT(interrupts[1], 0);
  EXPECT_GT(cpus[0].nmis, 0);
}

TEST_F(PcTest, ResetIsPowerOn) {
  const auto checksum = [this] { return read<std::array<std::uint8_t, 36>>(pc->rsdp()); };
  const auto before = checksum();
  const std::array<std::byte, 36> rubbish{};
  EXPECT_TRUE(pc->memory().write(pc->rsdp(), rubbish));
  route(4, 0x34);
  pc->ports().write(0x3fc, 1, 0x08);
  pc->ports().write(0x3f9, 1, 0x02);
  pc->reset();
  EXPECT_EQ(checksum(), before);
  EXPECT_FALSE(pc->local_apic(0).has_interrupt());
  EXPECT_EQ(pc->mmio().read(Gpa(0xfee000f0), 4, 0), 0xffu);
  EXPECT_EQ(pc->ports().read(0x3f9, 1), 0u);
  EXPECT_EQ(pc->ports().read(0x21, 1), 0xffu);
}

}  // namespace
}  // namespace vm_platform
