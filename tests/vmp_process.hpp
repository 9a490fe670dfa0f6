// Starts the built `vmp` the way a user does: with pipes, or on a pseudo-terminal of its own.
#pragma once

#include <sys/types.h>
#include <termios.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

namespace vm_platform::tests {

/// A folder that goes away with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  /// Writes a file and returns its path.
  [[nodiscard]] std::string write(const std::string& name, std::string_view contents) const;

 private:
  std::filesystem::path path_;
};

struct Finished {
  int status = -1;  ///< Exit status, or 128 + the signal's number.
  std::string out, err;
};

struct Streams {
  std::string input = {};
  bool close_input = false, close_output = false;
};

/// Runs `vmp ARGUMENTS`, and kills it after `limit` (status 128 + 9).
Finished run_vmp(const std::vector<std::string>& arguments, const Streams& streams = {},
                 std::chrono::seconds limit = std::chrono::seconds(60));

/// `vmp` on a pseudo-terminal, as in somebody's terminal window.
class TerminalVmp {
 public:
  explicit TerminalVmp(const std::vector<std::string>& arguments, unsigned short rows = 40,
                       unsigned short columns = 100);
  ~TerminalVmp();
  TerminalVmp(const TerminalVmp&) = delete;
  TerminalVmp& operator=(const TerminalVmp&) = delete;

  void type(std::string_view text) const;
  void resize(unsigned short rows, unsigned short columns) const;
  /// Reads until `text` has been seen since the last call; false after `limit`.
  bool expect(std::string_view text, std::chrono::milliseconds limit = std::chrono::seconds(30));
  /// Everything seen so far.
  [[nodiscard]] const std::string& seen() const { return seen_; }
  [[nodiscard]] termios attributes() const;
  void send_signal(int number) const;
  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Waits for the end; the exit status, or 128 + the signal's number, or -1 after `limit`.
  int wait(std::chrono::milliseconds limit = std::chrono::seconds(30));

 private:
  void read_some();
  int master_ = -1, slave_ = -1;
  pid_t pid_ = -1;
  std::string seen_;
  std::size_t expected_from_ = 0;
};

}  // namespace vm_platform::tests
