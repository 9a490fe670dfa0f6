// The program that runs natively and, as init, in the guests. Prints "item CLASS NAME NANOSECONDS" for each item; on
// one line at the end "done". As init it first prints "init" and, at the end, powers the machine off.
//   --ms N        time for each measurement (default 40); the best of three counts
//   --only NAME   one item
//   --list        what there is
// As init the same, without dashes, comes from the kernel command line: bench.ms=N bench.only=NAME bench.mode=…
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "bench/guest/items.hpp"

namespace vm_platform::bench {
namespace {

struct Settings {
  double ms = 40;
  std::string only, mode = "items";
};

double now_ns() {
  timespec t = {};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return 1e9 * static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec);
}

double measure(const Item& item, double ms) {
  std::uint64_t sink = item.run(1), count = 1;
  for (;;) {  // how many fill the time
    const double begin = now_ns();
    sink += item.run(count);
    const double took = now_ns() - begin;
    if (took > ms * 1e6 / 2) {
      count = static_cast<std::uint64_t>(static_cast<double>(count) * ms * 1e6 / took) + 1;
      break;
    }
    count *= took < ms * 1e6 / 64 ? 16 : 2;
  }
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const double begin = now_ns();
    sink += item.run(count);
    const double each = (now_ns() - begin) / static_cast<double>(count);
    if (i == 0 || each < best) best = each;
  }
  keep(sink);
  return best;
}

template <typename Visit>
void for_each_item(Visit visit) {
  for (const auto items : {integer_items(), memory_items(), floating_items(), system_items()})
    for (const Item& item : items) visit(item);
}

void run_items(const Settings& s) {
  // A guest that has just booted still has work of its own; an engine warms up.
  for (const double begin = now_ns(); now_ns() - begin < 500e6;) integer_items()[0].run(10000);
  for_each_item([&](const Item& item) {
    if (!s.only.empty() && s.only != item.name) return;
    std::printf("item %s %s %.3f\n", item.class_name, item.name, measure(item, s.ms));
    std::fflush(stdout);
  });
  std::printf("done\n");
  std::fflush(stdout);
}

/// Prints the guest's clocks once a second, for as long as the machine runs: to compare with the host's.
[[noreturn]] void print_clocks() {
  for (;;) {
    timespec real = {}, mono = {};
    clock_gettime(CLOCK_REALTIME, &real);
    clock_gettime(CLOCK_MONOTONIC, &mono);
    std::printf("clock %.6f %.6f\n", static_cast<double>(real.tv_sec) + 1e-9 * static_cast<double>(real.tv_nsec),
                static_cast<double>(mono.tv_sec) + 1e-9 * static_cast<double>(mono.tv_nsec));
    std::fflush(stdout);
    timespec next = {mono.tv_sec + 1, 0};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, nullptr);
  }
}

int as_init() {
  std::printf("init\n");
  std::fflush(stdout);
  mkdir("/proc", 0755);
  mount("proc", "/proc", "proc", 0, nullptr);
  Settings s;
  char line[2048] = "";
  if (const int fd = open("/proc/cmdline", O_RDONLY); fd >= 0) {
    const ssize_t size = read(fd, line, sizeof line - 1);
    line[size > 0 ? size : 0] = 0;
    close(fd);
  }
  for (const char* word = std::strtok(line, " \n"); word != nullptr; word = std::strtok(nullptr, " \n")) {
    if (std::strncmp(word, "bench.ms=", 9) == 0) s.ms = std::atof(word + 9);
    if (std::strncmp(word, "bench.only=", 11) == 0) s.only = word + 11;
    if (std::strncmp(word, "bench.mode=", 11) == 0) s.mode = word + 11;
  }
  if (s.mode == "items") run_items(s);
  if (s.mode == "clocks") print_clocks();
  if (s.mode == "wait")
    for (;;) pause();
  sync();
  reboot(RB_POWER_OFF);
  return 1;
}

}  // namespace
}  // namespace vm_platform::bench

int main(int argc, char** argv) {
  using namespace vm_platform::bench;
  if (argc == 2 && std::strcmp(argv[1], "--exit") == 0) _exit(0);
  if (getpid() == 1) return as_init();
  Settings s;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--list") == 0) {
      for_each_item([](const Item& item) { std::printf("%-10s %-16s %s\n", item.class_name, item.name, item.what); });
      return 0;
    }
    if (i + 1 < argc && std::strcmp(argv[i], "--ms") == 0) {
      s.ms = std::atof(argv[++i]);
    } else if (i + 1 < argc && std::strcmp(argv[i], "--only") == 0) {
      s.only = argv[++i];
    } else {
      std::fprintf(stderr, "usage: guest_benchmark [--ms N] [--only NAME] [--list]\n");
      return 2;
    }
  }
  run_items(s);
}
