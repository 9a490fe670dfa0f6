#include "machine/devices/serial.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>

namespace vm_platform {
namespace {

using namespace std::chrono_literals;

struct Wire : InterruptLine {
  void set_level(bool high) override {
    rises += high && !level;
    level = high;
  }
  bool level = false;
  int rises = 0;
};

struct SerialTest : testing::Test {
  SerialTest() {
    port.set_output([this](std::span<const std::byte> bytes) {
      const std::scoped_lock lock(mutex);
      for (const std::byte byte : bytes) output += static_cast<char>(byte);
      ++calls;
    });
  }
  unsigned in(unsigned index) { return port.port_read(static_cast<std::uint16_t>(0x3f8 + index), 1); }
  void out(unsigned index, unsigned value) { port.port_write(static_cast<std::uint16_t>(0x3f8 + index), 1, value); }
  std::size_t type(std::string_view text) { return port.receive(std::as_bytes(std::span(text))); }
  std::string printed() {
    const std::scoped_lock lock(mutex);
    return output;
  }
  std::mutex mutex;
  std::string output;
  int calls = 0;
  Wire wire;
  std::unique_ptr<TimerService> timers = *TimerService::create();
  SerialPort port{wire, *timers};
};

TEST_F(SerialTest, ProbesAs16550A) {
  // What Linux's autoconfig looks at.
  out(1, 0x0f);
  EXPECT_EQ(in(1), 0x0fu);
  out(1, 0xf0);
  EXPECT_EQ(in(1), 0x00u);
  out(4, 0x1a);
  EXPECT_EQ(in(6) & 0xf0, 0x90u) << "loopback: RTS to CTS, OUT2 to DCD";
  out(4, 0x0b);
  EXPECT_EQ(in(6) & 0xf0, 0xb0u);
  EXPECT_EQ(in(2), 0x01u) << "no FIFO yet";
  out(2, 0x01);
  EXPECT_EQ(in(2), 0xc1u);
  out(7, 0x5a);
  EXPECT_EQ(in(7), 0x5au);
  out(3, 0x80);
  out(0, 0x0c);
  out(1, 0x01);
  EXPECT_EQ(in(0), 0x0cu);
  EXPECT_EQ(in(1), 0x01u);
  out(3, 0x03);
  EXPECT_EQ(in(1), 0x00u) << "the divisor is another register";
}

TEST_F(SerialTest, LinesLeaveAtOnceTheRestSoon) {
  for (const char c : std::string_view("hello\n")) {
    EXPECT_EQ(in(5) & 0x60, 0x60u);
    out(0, static_cast<unsigned>(c));
  }
  EXPECT_EQ(printed(), "hello\n");
  EXPECT_EQ(calls, 1);
  out(0, '#');
  for (int i = 0; i < 2000 && printed().back() != '#'; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(printed(), "hello\n#");
  out(0, '!');
  port.flush();
  EXPECT_EQ(printed(), "hello\n#!");
}

TEST_F(SerialTest, AnOutputThatBlocksStopsNoTimer) {
  std::promise<void> reader;
  std::atomic<bool> blocked = false;
  port.set_output([&, comes = reader.get_future().share()](std::span<const std::byte> bytes) {
    blocked = true;
    comes.wait();
    for (const std::byte byte : bytes) output += static_cast<char>(byte);
  });
  std::thread cpu([&] { out(0, '\n'); });
  while (!blocked) std::this_thread::yield();
  out(0, '#');  // another CPU; nobody but the timer hands this on
  std::promise<void> ticked;
  Timer tick(*timers, [&] { ticked.set_value(); });
  tick.arm(monotonic_ns() + 50'000'000);
  EXPECT_EQ(ticked.get_future().wait_for(10s), std::future_status::ready);
  reader.set_value();
  cpu.join();
  port.flush();
  EXPECT_EQ(output, "\n#");
}

TEST_F(SerialTest, AnOutputWithoutRoomIsAskedAgain) {
  std::atomic<bool> room = false;
  std::atomic<int> asked = 0;
  port.set_output(
      [&](std::span<const std::byte> bytes) {
        const std::scoped_lock lock(mutex);
        for (const std::byte byte : bytes) output += static_cast<char>(byte);
      },
      [&] {
        ++asked;
        return room.load();
      });
  out(0, 'a');
  for (int i = 0; i < 2000 && asked < 2; ++i) std::this_thread::sleep_for(1ms);
  EXPECT_GE(asked, 2);
  EXPECT_EQ(printed(), "");
  room = true;
  for (int i = 0; i < 2000 && printed().empty(); ++i) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(printed(), "a");
  port.set_output({});
}

TEST_F(SerialTest, TransmitInterrupt) {
  out(4, 0x08);
  out(1, 0x02);
  EXPECT_TRUE(wire.level) << "the transmitter is empty";
  EXPECT_EQ(in(2) & 0x0f, 0x02u);
  EXPECT_FALSE(wire.level) << "reading the source ends it";
  EXPECT_EQ(in(2) & 0x0f, 0x01u);
  out(0, 'x');
  EXPECT_TRUE(wire.level);
  const int before = wire.rises;
  out(0, 'y');
  EXPECT_EQ(wire.rises, before + 1) << "each byte is an edge";
  out(4, 0x00);
  EXPECT_FALSE(wire.level) << "OUT2 is the gate";
  out(4, 0x08);
  out(1, 0x00);
  EXPECT_FALSE(wire.level);
}

TEST_F(SerialTest, ReceiveWithFifo) {
  int ready = 0;
  port.set_input_ready([&] { ++ready; });
  out(2, 0x81);  // FIFO, trigger at 8
  out(4, 0x08);
  out(1, 0x01);
  EXPECT_EQ(type("abc"), 3u);
  EXPECT_TRUE(wire.level);
  EXPECT_EQ(in(2) & 0x0f, 0x0cu) << "below the trigger: timeout";
  EXPECT_EQ(type("defghijklmnopqrstuvwxyz"), 13u);
  EXPECT_EQ(in(2) & 0x0f, 0x04u);
  std::string got;
  while ((in(5) & 1) != 0) got += static_cast<char>(in(0));
  EXPECT_EQ(got, "abcdefghijklmnop");
  EXPECT_FALSE(wire.level);
  EXPECT_EQ(ready, 1);
  EXPECT_EQ(type("q"), 1u);
  EXPECT_EQ(in(0), unsigned{'q'});
  EXPECT_EQ(ready, 1) << "nobody was refused";
}

TEST_F(SerialTest, ReceiveWithoutFifoIsOneByte) {
  EXPECT_EQ(type("ab"), 1u);
  EXPECT_EQ(in(0), unsigned{'a'});
  EXPECT_EQ(in(5) & 1, 0u);
}

TEST_F(SerialTest, ClearingTheFifoAsksForMore) {
  int ready = 0;
  port.set_input_ready([&] { ++ready; });
  out(2, 0x01);
  EXPECT_EQ(type("0123456789abcdefg"), 16u);
  out(2, 0x03);
  EXPECT_EQ(in(5) & 1, 0u);
  EXPECT_EQ(ready, 1);
}

TEST_F(SerialTest, LoopbackKeepsToItself) {
  int ready = 0;
  port.set_input_ready([&] { ++ready; });
  out(2, 0x01);
  out(4, 0x10);
  EXPECT_EQ(type("outside"), 0u);
  for (unsigned i = 0; i < 17; ++i) out(0, 'a' + i);
  EXPECT_EQ(in(5) & 0x03, 0x03u) << "data, and an overrun";
  EXPECT_EQ(in(5) & 0x02, 0u) << "reading clears it";
  for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(in(0), 'a' + i);
  port.flush();
  EXPECT_EQ(printed(), "");
  ready = 0;
  EXPECT_EQ(type("outside"), 0u);
  out(4, 0x00);
  EXPECT_EQ(ready, 1);
  EXPECT_EQ(type("outside"), 7u);
}

TEST_F(SerialTest, LoweringRtsHoldsInputOff) {
  int ready = 0;
  port.set_input_ready([&] { ++ready; });
  out(2, 0x01);
  EXPECT_EQ(type("a"), 1u) << "a driver that never raised RTS does not use it";
  out(4, 0x0a);
  EXPECT_EQ(type("b"), 1u);
  out(4, 0x08);
  EXPECT_EQ(type("c"), 0u);
  EXPECT_EQ(ready, 0);
  out(4, 0x0a);
  EXPECT_EQ(ready, 1);
  EXPECT_EQ(type("c"), 1u);
}

TEST_F(SerialTest, ModemStatusDeltas) {
  in(6);
  out(1, 0x08);
  out(4, 0x1f);  // all lines of the loop up: ring rises and is no event
  EXPECT_EQ(in(6), 0xf0u);
  out(4, 0x19);  // OUT1 (ring) and RTS (CTS) fall
  EXPECT_EQ(in(6), 0xa5u);
  EXPECT_EQ(in(6), 0xa0u);
}

TEST_F(SerialTest, ResetForgets) {
  out(2, 0x01);
  out(4, 0x08);
  out(1, 0x01);
  type("x");
  port.reset();
  EXPECT_FALSE(wire.level);
  EXPECT_EQ(in(5), 0x60u);
  EXPECT_EQ(in(2), 0x01u);
}

}  // namespace
}  // namespace vm_platform
