// The first and only process of the emulated machine: runs every program in /tests and powers off.
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

namespace {

pid_t start(const std::string& program, const char* filter = "*") {
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string tests = std::string("--gtest_filter=") + filter;
    ::execl(program.c_str(), program.c_str(), "--gtest_brief=1", "--gtest_color=no", tests.c_str(), nullptr);
    ::_exit(127);
  }
  return child;
}

int wait_for(pid_t child) {
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

int main() {
  for (const char* folder : {"/proc", "/sys", "/dev", "/tmp"}) ::mkdir(folder, 0755);
  const bool mounted = ::mount("proc", "/proc", "proc", 0, nullptr) == 0 &&
                       ::mount("sys", "/sys", "sysfs", 0, nullptr) == 0 &&
                       ::mount("tmp", "/tmp", "tmpfs", 0, nullptr) == 0;
  ::mount("dev", "/dev", "devtmpfs", 0, nullptr);
  ::setenv("HOME", "/tmp", 1);
  int failed = mounted ? 0 : 1;
  std::vector<std::string> programs;
  for (const auto& entry : std::filesystem::directory_iterator("/tests")) programs.push_back(entry.path().string());
  std::ranges::sort(programs);
  // The clock for a minute, beside the others.
  ::setenv("VMP_TEST_CLOCK_SECONDS", "60", 1);
  const pid_t clock = start("/tests/os_test", "TimerTest.*KeepsToTheMonotonicClock");
  ::unsetenv("VMP_TEST_CLOCK_SECONDS");
  for (const std::string& program : programs) {
    std::printf("== %s\n", program.c_str());
    std::fflush(stdout);
    const int status = wait_for(start(program));
    std::printf("== %s ended with %d\n", program.c_str(), status);
    failed += status != 0 ? 1 : 0;
  }
  const int clock_status = wait_for(clock);
  std::printf("== a minute of the clock ended with %d\n", clock_status);
  failed += clock_status != 0 ? 1 : 0;
  std::printf(failed == 0 && !programs.empty() ? "machine: all passed\n" : "machine: %d failed\n", failed);
  std::fflush(stdout);
  ::sync();
  ::reboot(RB_POWER_OFF);
}
