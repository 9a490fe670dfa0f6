#include "apps/vmp/console/serial_input.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <string>

namespace vm_platform::vmp {
namespace {

/// A guest that takes as much as it is told to.
class Port final : public RuntimeSerial {
 public:
  void set_output(std::function<void(std::span<const std::byte>)>, std::function<bool()>) override {}
  std::size_t send(std::span<const std::byte> bytes) override {
    const std::size_t count = std::min(bytes.size(), takes);
    for (const std::byte byte : bytes.first(count)) got += static_cast<char>(byte);
    takes -= count;
    return count;
  }
  void set_input_ready(std::function<void()>) override {}
  std::size_t takes = 0;
  std::string got;
};

class SerialInputs : public ::testing::Test {
 protected:
  SerialInputs() { EXPECT_EQ(::pipe(pipe_), 0); }
  ~SerialInputs() override {
    ::close(pipe_[0]);
    ::close(pipe_[1]);
  }
  void write(const std::string& text) const {
    ASSERT_EQ(::write(pipe_[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  int pipe_[2] = {-1, -1};
  Port port_;
};

TEST_F(SerialInputs, APipeWaitsForTheGuest) {
  SerialInput input(port_, pipe_[0], InputMode::Raw, false);
  port_.takes = 2;
  write("abc\x1d");
  EXPECT_TRUE(input.wants_input());
  EXPECT_TRUE(input.read()) << "nothing but bytes to a pipe";
  EXPECT_FALSE(input.wants_input());
  port_.takes = 100;
  input.push();
  EXPECT_EQ(port_.got, "abc\x1d");
  EXPECT_TRUE(input.wants_input());
}

TEST_F(SerialInputs, TheKeyToLeaveIsSeenBehindWhatTheGuestDoesNotTake) {
  SerialInput input(port_, pipe_[0], InputMode::Raw, true);
  write("abc");
  EXPECT_TRUE(input.read());
  ASSERT_TRUE(input.wants_input());
  write("d\x1d");
  EXPECT_FALSE(input.read());
}

TEST_F(SerialInputs, KeysThatNobodyTakesAreKeptUpToALimit) {
  SerialInput input(port_, pipe_[0], InputMode::Raw, true);
  std::string typed;
  while (typed.size() < 2 * SerialInput::kKeptKeys) {
    const std::string piece(1000, static_cast<char>('a' + typed.size() / 1000 % 26));
    typed += piece;
    write(piece);
    ASSERT_TRUE(input.read());
    if (typed.size() == 10'000) {
      port_.takes = 2500;
      input.push();
    }
  }
  port_.takes = typed.size();
  input.push();
  EXPECT_EQ(port_.got.size(), SerialInput::kKeptKeys + 2500);
  EXPECT_TRUE(typed.starts_with(port_.got)) << "in order, and without a hole";
  write("later");
  ASSERT_TRUE(input.read());
  EXPECT_TRUE(port_.got.ends_with("later"));
}

}  // namespace
}  // namespace vm_platform::vmp
