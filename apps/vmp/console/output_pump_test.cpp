#include "apps/vmp/console/output_pump.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <termios.h>
#include <unistd.h>

#include <future>
#include <string>

namespace vm_platform::vmp {
namespace {

using namespace std::chrono_literals;

std::vector<std::byte> text(std::size_t size) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < size; ++i)
    bytes.push_back(std::byte{static_cast<unsigned char>(i % 64 == 63 ? '\n' : 'x')});
  return bytes;
}

/// Whether a pump is gone within a time that no reader has a part in.
bool ends(std::unique_ptr<OutputPump> pump) {
  auto gone = std::make_shared<std::promise<void>>();
  auto waits = gone->get_future();
  std::thread([pump = std::move(pump), gone]() mutable {
    pump.reset();
    gone->set_value();
  }).detach();
  return waits.wait_for(10s) == std::future_status::ready;
}

class Terminals : public ::testing::TestWithParam<bool> {
 protected:
  Terminals() {
    EXPECT_EQ(::openpty(&master_, &slave_, nullptr, nullptr, nullptr), 0);
    termios attributes{};
    ::tcgetattr(slave_, &attributes);
    ::cfmakeraw(&attributes);
    if (GetParam()) attributes.c_oflag |= OPOST | ONLCR;
    ::tcsetattr(slave_, TCSANOW, &attributes);
  }
  ~Terminals() override {
    ::close(master_);
    ::close(slave_);
  }
  int master_ = -1, slave_ = -1;
};

TEST_P(Terminals, ThatNobodyReadsDoNotHoldThePump) {
  auto pump = std::make_unique<OutputPump>(slave_, "terminal", nullptr);
  pump->push(text(1 << 18));
  EXPECT_FALSE(pump->drain(200ms));
  EXPECT_TRUE(ends(std::move(pump)));
  EXPECT_EQ(::fcntl(slave_, F_GETFL) & O_NONBLOCK, 0) << "others have it too";
}

TEST_P(Terminals, GetEverything) {
  OutputPump pump(slave_, "terminal", nullptr);
  const auto sent = text(1 << 18);
  pump.push(sent);
  std::string got;
  const std::size_t expected = sent.size() + (GetParam() ? sent.size() / 64 : 0);  // a newline becomes two characters
  while (got.size() < expected) {
    char buffer[4096];
    const ssize_t count = ::read(master_, buffer, sizeof buffer);
    ASSERT_GT(count, 0);
    got.append(buffer, static_cast<std::size_t>(count));
  }
  EXPECT_TRUE(pump.drain(10s));
  std::erase(got, '\r');
  EXPECT_EQ(got, std::string(reinterpret_cast<const char*>(sent.data()), sent.size()));
}

INSTANTIATE_TEST_SUITE_P(RawAndCooked, Terminals, ::testing::Bool());

TEST(OutputPumps, SayWhenTheyAreFull) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  {
    OutputPump pump(pipe[1], "pipe", nullptr);
    EXPECT_TRUE(pump.has_room());
    const auto bytes = text(1 << 18);
    for (int i = 0; i < 20; ++i) {  // its thread takes a batch now and then, until the pipe is full
      while (pump.has_room()) pump.push(bytes);
      std::this_thread::sleep_for(20ms);
    }
    EXPECT_FALSE(pump.has_room());
    pump.release();
    EXPECT_TRUE(pump.has_room());
  }
  ::close(pipe[0]);
  ::close(pipe[1]);
}

}  // namespace
}  // namespace vm_platform::vmp
