// What the operating system and the machine are asked for.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cstring>

#include "bench/guest/items.hpp"

namespace vm_platform::bench {
namespace {

std::uint64_t system_call(std::uint64_t count) {
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) sum += static_cast<std::uint64_t>(syscall(SYS_getppid));
  return sum;
}
std::uint64_t clock_read(std::uint64_t count) {
  timespec t = {};
  for (std::uint64_t i = 0; i < count; ++i) clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_nsec);
}
std::uint64_t fork_exit(std::uint64_t count) {
  std::uint64_t ok = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    int status = -1;
    waitpid(child, &status, 0);
    ok += status == 0;
  }
  return ok;
}
std::uint64_t fork_exec(std::uint64_t count) {
  std::uint64_t ok = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      execl("/proc/self/exe", "guest_benchmark", "--exit", nullptr);
      _exit(127);
    }
    int status = -1;
    waitpid(child, &status, 0);
    ok += status == 0;
  }
  return ok;
}
std::uint64_t page_faults(std::uint64_t count) {  // 64 fresh pages touched
  for (std::uint64_t i = 0; i < count; ++i) {
    void* at = mmap(nullptr, 64 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (std::size_t p = 0; p < 64; ++p) static_cast<volatile char*>(at)[4096 * p] = 1;
    munmap(at, 64 * 4096);
  }
  return count;
}
std::uint64_t protect(std::uint64_t count) {
  static void* at = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (std::uint64_t i = 0; i < count; ++i) {
    static_cast<volatile char*>(at)[0] = 1;
    mprotect(at, 4096, PROT_READ);
    mprotect(at, 4096, PROT_READ | PROT_WRITE);
  }
  return count;
}
std::uint64_t atomics(std::uint64_t count) {
  static std::atomic<std::uint64_t> a, b;
  for (std::uint64_t i = 0; i < count; ++i) {
    a.fetch_add(i);
    std::uint64_t expected = i;
    b.compare_exchange_strong(expected, i + 1);
    a.exchange(expected);
  }
  return a + b;
}
std::uint64_t pipe_alone(std::uint64_t count) {
  static int ends[2] = {-1, -1};
  if (ends[0] < 0 && pipe(ends) != 0) return 0;
  char c = 'x';
  std::uint64_t moved = 0;
  for (std::uint64_t i = 0; i < count; ++i)
    moved += static_cast<std::uint64_t>(write(ends[1], &c, 1)) + static_cast<std::uint64_t>(read(ends[0], &c, 1));
  return moved;
}
std::uint64_t pipe_between(std::uint64_t count) {  // there and back between two processes on one CPU
  int to[2], from[2];
  if (pipe(to) != 0 || pipe(from) != 0) return 0;
  cpu_set_t before, one;
  sched_getaffinity(0, sizeof before, &before);
  CPU_ZERO(&one);
  for (std::size_t c = 0; c < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++c)
    if (CPU_ISSET(c, &before)) CPU_SET(c, &one);
  sched_setaffinity(0, sizeof one, &one);
  const pid_t child = fork();
  char c = 'x';
  if (child == 0) {
    close(to[1]);
    while (read(to[0], &c, 1) == 1 && write(from[1], &c, 1) == 1) {
    }
    _exit(0);
  }
  std::uint64_t moved = 0;
  for (std::uint64_t i = 0; i < 200 * count; ++i)
    moved += static_cast<std::uint64_t>(write(to[1], &c, 1)) + static_cast<std::uint64_t>(read(from[0], &c, 1));
  for (const int fd : {to[0], to[1], from[0], from[1]}) close(fd);
  waitpid(child, nullptr, 0);
  sched_setaffinity(0, sizeof before, &before);
  return moved;
}
volatile sig_atomic_t signals;
std::uint64_t signal_delivery(std::uint64_t count) {
  struct sigaction action = {};
  action.sa_handler = [](int) { signals = signals + 1; };
  sigaction(SIGUSR1, &action, nullptr);
  const pid_t self = getpid();
  for (std::uint64_t i = 0; i < count; ++i) kill(self, SIGUSR1);
  return static_cast<std::uint64_t>(signals);
}
std::uint64_t file_read(std::uint64_t count) {
  static const int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  static char buffer[4096];
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i)
    sum += static_cast<std::uint64_t>(pread(fd, buffer, sizeof buffer, static_cast<off_t>(4096 * (i & 63))));
  return sum;
}
std::uint64_t modified_code(std::uint64_t count) {  // change a function, then call it
  using Function = std::uint32_t (*)();
  static auto* code = static_cast<std::uint8_t*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  code[0] = 0xb8;
  code[5] = 0xc3;
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto value = static_cast<std::uint32_t>(i);
    std::memcpy(code + 1, &value, 4);
    sum += std::bit_cast<Function>(code)();
  }
  return sum;
}

constexpr Item kItems[] = {
    {"system", "system-call", "getppid", system_call},
    {"system", "clock", "clock_gettime", clock_read},
    {"system", "fork", "fork, exit, wait", fork_exit},
    {"system", "exec", "fork, exec of a static program, wait", fork_exec},
    {"system", "page-faults", "64 fresh pages", page_faults},
    {"system", "mprotect", "a pair, and a write", protect},
    {"system", "atomics", "add, compare-exchange, exchange", atomics},
    {"system", "pipe", "a byte through a pipe", pipe_alone},
    {"system", "pipe-switch", "200 times a byte to another process and back", pipe_between},
    {"system", "signal", "kill and handler", signal_delivery},
    {"system", "file-read", "4 KiB from the page cache", file_read},
    {"system", "modified-code", "change a function and call it", modified_code},
};

}  // namespace

std::span<const Item> system_items() { return kItems; }

}  // namespace vm_platform::bench
