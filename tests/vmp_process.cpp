#include "tests/vmp_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utmp.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <thread>

namespace vm_platform::tests {
namespace {

using Clock = std::chrono::steady_clock;

std::vector<char*> argument_vector(std::vector<std::string>& words) {
  std::vector<char*> vector;
  for (std::string& word : words) vector.push_back(word.data());
  vector.push_back(nullptr);
  return vector;
}

std::vector<std::string> command(const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {VMP_PATH};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

int decode(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

}  // namespace

TemporaryFolder::TemporaryFolder() {
  std::string name = (std::filesystem::temp_directory_path() / "vmp-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
  path_ = name;
}
TemporaryFolder::~TemporaryFolder() { std::filesystem::remove_all(path_); }
std::string TemporaryFolder::write(const std::string& name, std::string_view contents) const {
  std::ofstream(path_ / name, std::ios::binary) << contents;
  return (path_ / name).string();
}

Finished run_vmp(const std::vector<std::string>& arguments, const Streams& streams, std::chrono::seconds limit) {
  auto words = command(arguments);
  const auto vector = argument_vector(words);
  int in[2], out[2], err[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0)
    throw std::runtime_error("pipe");
  const pid_t child = ::fork();
  if (child == 0) {
    if (streams.close_input)
      ::close(0);
    else
      ::dup2(in[0], 0);
    if (streams.close_output)
      ::close(1);
    else
      ::dup2(out[1], 1);
    ::dup2(err[1], 2);
    ::execv(vector[0], vector.data());
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  ::close(err[1]);
  std::thread writer([&] {
    std::string_view left = streams.input;
    while (!left.empty()) {
      const ssize_t count = ::write(in[1], left.data(), left.size());
      if (count <= 0) break;
      left.remove_prefix(static_cast<std::size_t>(count));
    }
    ::close(in[1]);
  });
  Finished finished;
  const auto deadline = Clock::now() + limit;
  bool killed = false;
  std::array<pollfd, 2> waits{{{out[0], POLLIN, 0}, {err[0], POLLIN, 0}}};
  while (waits[0].fd >= 0 || waits[1].fd >= 0) {
    ::poll(waits.data(), 2, 100);
    if (!killed && Clock::now() > deadline) {
      ::kill(child, SIGKILL);
      killed = true;
    }
    for (auto& wait : waits) {
      if (wait.fd < 0 || wait.revents == 0) continue;
      std::array<char, 65536> buffer;
      const ssize_t count = ::read(wait.fd, buffer.data(), buffer.size());
      if (count > 0)
        (wait.fd == out[0] ? finished.out : finished.err).append(buffer.data(), static_cast<std::size_t>(count));
      else
        wait.fd = -1;
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  writer.join();
  ::close(out[0]);
  ::close(err[0]);
  finished.status = decode(status);
  return finished;
}

TerminalVmp::TerminalVmp(const std::vector<std::string>& arguments, unsigned short rows, unsigned short columns) {
  auto words = command(arguments);
  const auto vector = argument_vector(words);
  winsize size{rows, columns, 0, 0};
  // The slave side stays open here, so that its attributes can be looked at after the child is gone.
  if (::openpty(&master_, &slave_, nullptr, nullptr, &size) != 0) throw std::runtime_error("openpty");
  ::fcntl(master_, F_SETFD, FD_CLOEXEC);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::login_tty(::dup(slave_));
    ::close(slave_);
    ::execv(vector[0], vector.data());
    ::_exit(127);
  }
}

TerminalVmp::~TerminalVmp() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(master_);
  ::close(slave_);
}

void TerminalVmp::type(std::string_view text) const {
  if (::write(master_, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    throw std::runtime_error("write to the terminal");
}

void TerminalVmp::resize(unsigned short rows, unsigned short columns) const {
  const winsize size{rows, columns, 0, 0};
  ::ioctl(master_, TIOCSWINSZ, &size);
}

void TerminalVmp::read_some() {
  pollfd wait{master_, POLLIN, 0};
  if (::poll(&wait, 1, 20) <= 0 || (wait.revents & POLLIN) == 0) return;
  std::array<char, 65536> buffer;
  const ssize_t count = ::read(master_, buffer.data(), buffer.size());
  if (count > 0) seen_.append(buffer.data(), static_cast<std::size_t>(count));
}

bool TerminalVmp::expect(std::string_view text, std::chrono::milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  while (true) {
    const auto at = seen_.find(text, expected_from_);
    if (at != std::string::npos) {
      expected_from_ = at + text.size();
      return true;
    }
    if (Clock::now() > deadline) return false;
    read_some();
  }
}

termios TerminalVmp::attributes() const {
  termios value{};
  ::tcgetattr(slave_, &value);
  return value;
}

void TerminalVmp::send_signal(int number) const { ::kill(pid_, number); }

int TerminalVmp::wait(std::chrono::milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  while (Clock::now() < deadline) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      read_some();
      return decode(status);
    }
    read_some();
  }
  return -1;
}

}  // namespace vm_platform::tests
