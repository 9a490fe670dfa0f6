// The console of `vmp run` in a real pseudo-terminal, and with pipes, files and nothing. The guest is
// tests/guests/bare.S.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "tests/vmp_process.hpp"

namespace vm_platform::tests {
namespace {

using ::testing::HasSubstr;
using namespace std::chrono_literals;

const std::vector<std::string> kRun = {"run", "--kernel", BARE_GUEST, "--memory", "64M"};
std::vector<std::string> run_with(std::vector<std::string> more) {
  more.insert(more.begin(), kRun.begin(), kRun.end());
  return more;
}

bool same(const termios& a, const termios& b) {
  return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag && a.c_lflag == b.c_lflag &&
         std::equal(std::begin(a.c_cc), std::end(a.c_cc), std::begin(b.c_cc));
}

class Terminal : public ::testing::Test {
 protected:
  /// A guest that has greeted, in a terminal that is raw by now.
  void start(std::vector<std::string> more = {}) {
    vmp_.emplace(run_with(std::move(more)));
    before_ = vmp_->attributes();
    ASSERT_TRUE(vmp_->expect("bare guest ready")) << vmp_->seen();
    EXPECT_EQ(vmp_->attributes().c_lflag & (ICANON | ECHO | ISIG), 0U);
  }
  void expect_restored() { EXPECT_TRUE(same(vmp_->attributes(), before_)); }

  std::optional<TerminalVmp> vmp_;
  termios before_{};
};

TEST_F(Terminal, SaysHowToLeaveAndLeaves) {
  start();
  EXPECT_THAT(vmp_->seen(), HasSubstr("Ctrl-]"));
  vmp_->type("hello");
  EXPECT_TRUE(vmp_->expect("hello"));
  vmp_->type("\x1d");
  EXPECT_EQ(vmp_->wait(), 0);
  expect_restored();
}

TEST_F(Terminal, KeysThatMakeSignalsGoToTheGuest) {
  start();
  vmp_->type("a\x03\x1a\x1c\x04z");
  EXPECT_TRUE(vmp_->expect("a\x03\x1a\x1c\x04z")) << vmp_->seen();
  vmp_->type("Q");
  EXPECT_EQ(vmp_->wait(), 43) << "(21 << 1) | 1";
  expect_restored();
}

TEST_F(Terminal, IsRestoredAfterSignals) {
  for (const int number : {SIGTERM, SIGHUP, SIGINT}) {
    start();
    vmp_->send_signal(number);
    EXPECT_EQ(vmp_->wait(), 128 + number);
    expect_restored();
  }
}

TEST_F(Terminal, IsRestoredAfterACrash) {
  for (const int number : {SIGSEGV, SIGABRT, SIGBUS}) {
    start();
    vmp_->send_signal(number);
    EXPECT_NE(vmp_->wait(), 0);
    expect_restored();
  }
}

TEST_F(Terminal, LeavesAGuestThatTakesNoInput) {
  start();
  vmp_->type("H");
  ASSERT_TRUE(vmp_->expect("H"));
  for (const char* key : {"a", "b", "c"}) {  // one stays in the port, the others wait outside
    vmp_->type(key);
    std::this_thread::sleep_for(100ms);
  }
  vmp_->type("\x1d");
  EXPECT_EQ(vmp_->wait(), 0);
  expect_restored();
}

TEST_F(Terminal, StopAndContinue) {
  start();
  vmp_->send_signal(SIGTSTP);
  int status = 0;
  ASSERT_EQ(::waitpid(vmp_->pid(), &status, WUNTRACED), vmp_->pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  expect_restored();
  vmp_->send_signal(SIGCONT);
  for (int i = 0; i < 500 && (vmp_->attributes().c_lflag & ICANON) != 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(vmp_->attributes().c_lflag & ICANON, 0U) << "raw again";
  vmp_->type("again");
  EXPECT_TRUE(vmp_->expect("again"));
  vmp_->type("\x1d");
  EXPECT_EQ(vmp_->wait(), 0);
  expect_restored();
}

TEST_F(Terminal, AGuestThatAsksForTheWindowSizeWithoutReadingGetsItOnce) {
  start({"--serial2", "winsize"});
  vmp_->type("W");
  ASSERT_TRUE(vmp_->expect("W40 100\n")) << vmp_->seen();
  vmp_->type("!");
  ASSERT_TRUE(vmp_->expect("!"));
  std::this_thread::sleep_for(300ms);
  vmp_->type("Q");
  EXPECT_EQ(vmp_->wait(), 43);
  std::size_t answers = 0;
  for (std::size_t at = 0; (at = vmp_->seen().find("40 100", at)) != std::string::npos; ++at) ++answers;
  EXPECT_LE(answers, 3U) << "the one under way, one that was due, one asked for at the end";
  expect_restored();
}

TEST_F(Terminal, ATerminalThatTakesNothingMoreCanBeLeft) {
  for (const bool key : {false, true}) {
    start();
    vmp_->type("BBBB");  // a mebibyte that nobody reads
    std::this_thread::sleep_for(500ms);
    if (key) {
      vmp_->type("\x1d");
      std::this_thread::sleep_for(1500ms);  // the guest's last output has its second; then vmp says that it left
    }
    vmp_->send_signal(SIGTERM);
    siginfo_t end{};
    for (int i = 0; i < 1000 && end.si_pid == 0; ++i) {
      ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(vmp_->pid()), &end, WEXITED | WNOHANG | WNOWAIT), 0);
      std::this_thread::sleep_for(10ms);
    }
    ASSERT_EQ(end.si_pid, vmp_->pid()) << "still running after 10 s";
    EXPECT_EQ(vmp_->wait(), 128 + SIGTERM);
    expect_restored();
  }
}

TEST_F(Terminal, EndsByTheGuest) {
  start();
  vmp_->type("T");
  EXPECT_EQ(vmp_->wait(), 122);
  EXPECT_THAT(vmp_->seen(), HasSubstr("triple fault"));
  expect_restored();
  start({"--debug-dump"});
  vmp_->type("T");
  EXPECT_EQ(vmp_->wait(), 122);
  EXPECT_THAT(vmp_->seen(), HasSubstr("ud2"));
  expect_restored();
}

TEST(Console, PipesBothWays) {
  const Finished finished = run_vmp(run_with({}), {.input = "abcQ"});
  EXPECT_EQ(finished.status, 43) << finished.err;
  EXPECT_EQ(finished.out, "bare guest ready\r\nabcQ");
}

TEST(Console, MoreOutputThanAPipeHolds) {
  const Finished finished = run_vmp(run_with({}), {.input = "BBQ"});
  EXPECT_EQ(finished.status, 43) << finished.err;
  EXPECT_EQ(finished.out.size(), 18U + 2 * 4096 * 64 + 3);
  EXPECT_EQ(finished.out.back(), 'Q') << "nothing is lost at the end";
}

TEST(Console, MoreInputThanThePortHolds) {
  std::string input;
  for (int i = 0; i < 2000; ++i) input += std::to_string(i) + " ";
  const Finished finished = run_vmp(run_with({}), {.input = input + "Q"});
  EXPECT_EQ(finished.status, 43) << finished.err;
  EXPECT_EQ(finished.out, "bare guest ready\r\n" + input + "Q");
}

TEST(Console, ClosedStreams) {
  // Without an input nobody can end the guest but a signal; without an output it runs nevertheless.
  const Finished finished = run_vmp(run_with({}), {.input = "abQ", .close_output = true});
  EXPECT_EQ(finished.status, 43) << finished.err;
  const TemporaryFolder folder;
  const std::string log = (folder.path() / "log").string();
  const Finished closed = run_vmp(run_with({"--console", "file:" + log}), {.close_input = true}, 2s);
  EXPECT_EQ(closed.status, 128 + SIGKILL) << "it runs until it is killed";
  std::ifstream file(log);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "bare guest ready\r\n");
}

TEST(Console, AReaderThatGoesAwayEndsTheGuest) {
  const std::string command =
      "printf 'BBBBBBBB' | '" VMP_PATH "' run --kernel '" BARE_GUEST "' --memory 64M 2>&1 | head -1";
  FILE* pipe = ::popen(("timeout 20 bash -c \"set -o pipefail; " + command + "; echo \\$?\"").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string text;
  for (int c = 0; (c = std::fgetc(pipe)) != EOF;) text += static_cast<char>(c);
  ::pclose(pipe);
  EXPECT_EQ(text, "bare guest ready\r\n1\n");
}

TEST(Console, ThreeResetsAreALoop) {
  const Finished loop = run_vmp(run_with({}), {.input = std::string(8, 'R')});
  EXPECT_EQ(loop.status, 124) << loop.err;
  EXPECT_THAT(loop.err, HasSubstr("reset itself 3 times"));
}

TEST(Console, APanicThatGoesOnAndOnEndsTheGuest) {
  const Finished panicked = run_vmp(run_with({}), {.input = "P"}, 20s);
  EXPECT_EQ(panicked.status, 120) << panicked.err;
}

TEST(Console, Statistics) {
  const Finished table = run_vmp(run_with({"--stats"}), {.input = "Q"});
  EXPECT_EQ(table.status, 43);
  EXPECT_THAT(table.err, HasSubstr("engine soft"));
  EXPECT_EQ(table.out, "bare guest ready\r\nQ");
  // With the console elsewhere, stdout has one JSON document and nothing else.
  const Finished json = run_vmp(run_with({"--json", "--console", "fd:0"}), {.input = "xyzQ"});
  EXPECT_EQ(json.status, 43) << json.err;
  const auto document = nlohmann::json::parse(json.out);
  EXPECT_EQ(document["state"], "stopped");
  EXPECT_EQ(document["console_in_bytes"], 4);
  EXPECT_EQ(document["cpus"].size(), 1U);
}

}  // namespace
}  // namespace vm_platform::tests
