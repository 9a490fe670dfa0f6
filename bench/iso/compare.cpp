// Compares `vmp iso` with bsdtar, isoinfo, iso-info, 7z and xorriso, all in one run on the same generated images.
//
//   build/release/bench/iso_compare [--dir DIR] [--runs N] [--big MIB]
//
// DIR should be on a tmpfs (default /dev/shm): then nobody waits for a disk. Tools that are not installed are left out.
// Wall time depends on what else the machine does; CPU time (user + system) much less, so both are shown.
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

struct Sample {
  double wall_ms = 0, cpu_ms = 0;
  long private_kib = 0;
  int status = 0;
};

[[noreturn]] void become(const std::vector<std::string>& command, const std::string& output) {
  const int out = ::open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), null = ::open("/dev/null", O_RDWR);
  ::dup2(null, 0);
  ::dup2(out, 1);
  ::dup2(null, 2);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  ::_exit(127);
}

Sample run(const std::vector<std::string>& command, const std::string& output) {
  Sample sample;
  const auto start = std::chrono::steady_clock::now();
  const pid_t child = ::fork();
  if (child == 0) become(command, output);
  rusage usage{};
  ::wait4(child, &sample.status, 0, &usage);
  sample.wall_ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  const auto ms = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_usec) / 1e3;
  };
  sample.cpu_ms = ms(usage.ru_utime) + ms(usage.ru_stime);
  return sample;
}

/// Private memory of a process as it ends (its peak, for these tools), read while it is stopped at its exit.
long private_kib(const std::vector<std::string>& command) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::raise(SIGSTOP);
    become(command, "/dev/null");
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL);
  ::ptrace(PTRACE_CONT, child, nullptr, nullptr);
  long kib = 0;
  while (::waitpid(child, &status, 0) == child && !WIFEXITED(status) && !WIFSIGNALED(status)) {
    if (status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXIT << 8))) {
      std::ifstream rollup("/proc/" + std::to_string(child) + "/smaps_rollup");
      for (std::string line; std::getline(rollup, line);) {
        if (line.starts_with("Private_")) kib += std::strtol(line.c_str() + line.find(':') + 1, nullptr, 10);
      }
      ::ptrace(PTRACE_CONT, child, nullptr, nullptr);
    } else {
      const int signal = WSTOPSIG(status);
      ::ptrace(PTRACE_CONT, child, nullptr, signal == SIGTRAP || signal == SIGSTOP ? 0 : signal);
    }
  }
  return kib;
}

bool installed(const std::string& tool) {
  if (tool.find('/') != std::string::npos) return ::access(tool.c_str(), X_OK) == 0;
  const char* path = std::getenv("PATH");
  std::string rest = path != nullptr ? path : "";
  while (!rest.empty()) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    if (::access((rest.substr(0, end) + "/" + tool).c_str(), X_OK) == 0) return true;
    rest.erase(0, std::min(end + 1, rest.size()));
  }
  return false;
}

struct Contestant {
  std::string name;
  std::vector<std::string> command;
};

class Bench {
 public:
  Bench(fs::path dir, int runs) : dir_(std::move(dir)), runs_(runs) {}

  void compare(const std::string& title, const std::vector<Contestant>& all, const std::string& output,
               const fs::path& clean = {}) {
    std::printf("\n%s\n  %-26s %10s %10s %12s\n", title.c_str(), "", "wall ms", "cpu ms", "private KiB");
    std::vector<std::vector<Sample>> samples(all.size());
    for (int round = 0; round < runs_; ++round) {  // in turns, so that a busy moment is shared
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (!installed(all[i].command[0])) continue;
        if (!clean.empty()) {
          fs::remove_all(clean);
          fs::create_directory(clean);
        }
        samples[i].push_back(run(all[i].command, output));
      }
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (samples[i].empty()) continue;
      const auto median = [&](auto field) {
        std::vector<double> values;
        for (const Sample& sample : samples[i]) values.push_back(sample.*field);
        std::ranges::sort(values);
        return values[values.size() / 2];
      };
      if (!clean.empty()) {
        fs::remove_all(clean);
        fs::create_directory(clean);
      }
      const int status = samples[i].back().status;
      std::printf("  %-26s %10.1f %10.1f %12ld%s\n", all[i].name.c_str(), median(&Sample::wall_ms),
                  median(&Sample::cpu_ms), private_kib(all[i].command), status == 0 ? "" : "  (failed)");
      std::fflush(stdout);
    }
  }

  [[nodiscard]] std::string path(const std::string& name) const { return (dir_ / name).string(); }
  void make(const std::string& image, const std::string& source) const {
    const Sample made =
        run({"xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-iso-level", "3", "-o", path(image), path(source)},
            "/dev/null");
    if (made.status != 0) {
      std::fprintf(stderr, "iso_compare: xorriso could not make %s\n", image.c_str());
      std::exit(1);
    }
    fs::remove_all(path(source));
  }

 private:
  fs::path dir_;
  int runs_;
};

void write_file(const fs::path& path, const std::string& content) { std::ofstream(path, std::ios::binary) << content; }

}  // namespace

int main(int argc, char** argv) {
  std::string base = "/dev/shm";
  int runs = 11, big_mib = 2047;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--dir") base = argv[i + 1];
    if (option == "--runs") runs = std::max(1, std::atoi(argv[i + 1]));
    if (option == "--big") big_mib = std::max(1, std::atoi(argv[i + 1]));
  }
  const fs::path dir = fs::path(base) / ("vmp-iso-bench-" + std::to_string(::getpid()));
  fs::create_directories(dir);
  const std::string vmp = fs::canonical(fs::path(argv[0]).parent_path() / "../vmp").string();
  Bench bench(dir, runs);

  std::puts("making the images: 100,000 small files, one big file, a deep tree");
  for (int d = 0; d < 1000; ++d) {
    const fs::path sub = dir / "small" / ("dir" + std::to_string(d));
    fs::create_directories(sub);
    for (int f = 0; f < 100; ++f)
      write_file(sub / ("file-number-" + std::to_string(f)),
                 std::string(static_cast<std::size_t>(f % 20 + 1) * 100, 'x'));
  }
  bench.make("small.iso", "small");
  fs::path deep = dir / "deep";
  for (int d = 0; d < 200; ++d) {
    deep /= "level" + std::to_string(d);
    fs::create_directories(deep);
    write_file(deep / "file", "deep");
  }
  bench.make("deep.iso", "deep");
  fs::create_directories(dir / "big");
  {
    std::ofstream out(dir / "big/big", std::ios::binary);
    std::string block(1 << 20, '\0');
    for (std::size_t i = 0; i < block.size(); ++i) block[i] = static_cast<char>(i * 31 >> 3);
    for (int i = 0; i < big_mib; ++i) out << block;
  }
  bench.make("big.iso", "big");

  const std::string small = bench.path("small.iso"), big = bench.path("big.iso"), tree = bench.path("deep.iso"),
                    out = bench.path("out");
  const auto lists = [&](const std::string& image) {
    return std::vector<Contestant>{
        {"vmp iso ls -lR", {vmp, "iso", "ls", "-lR", image}},
        {"isoinfo -R -f (bare names)", {"isoinfo", "-R", "-f", "-i", image}},
        {"isoinfo -R -l", {"isoinfo", "-R", "-l", "-i", image}},
        {"iso-info -l", {"iso-info", "-l", "-i", image}},
        {"bsdtar -tv", {"bsdtar", "-tvf", image}},
        {"7z l", {"7z", "l", image}},
        {"xorriso lsdl", {"xorriso", "-indev", "stdio:" + image, "-find", "/", "-exec", "lsdl", "--"}}};
  };
  bench.compare("list 100,000 files", lists(small), "/dev/null");
  bench.compare("list a tree 200 levels deep", lists(tree), "/dev/null");
  const std::string one = "dir500/file-number-50";
  bench.compare("read one path of 100,000",
                {{"vmp version (bare process)", {vmp, "version"}},
                 {"vmp iso cat", {vmp, "iso", "cat", small, one}},
                 {"iso-read", {"iso-read", "-i", small, "-e", "/" + one, "-o", "/dev/null"}},
                 {"isoinfo -R -x", {"isoinfo", "-R", "-x", "/" + one, "-i", small}},
                 {"bsdtar -xO", {"bsdtar", "-xOf", small, one}}},
                "/dev/null");
  const std::vector<Contestant> whole{{"vmp iso cat", {vmp, "iso", "cat", big, "big"}},
                                      {"dd bs=1M (whole image)", {"dd", "if=" + big, "bs=1M"}},
                                      {"bsdtar -xO", {"bsdtar", "-xOf", big, "big"}},
                                      {"isoinfo -R -x", {"isoinfo", "-R", "-x", "/big", "-i", big}}};
  const std::string size = std::to_string(big_mib) + " MiB";
  bench.compare("one file of " + size + " to /dev/null", whole, "/dev/null");
  bench.compare("one file of " + size + " to a file in memory", whole, bench.path("copy"));
  fs::remove(bench.path("copy"));
  bench.compare("extract 100,000 files to memory",
                {{"vmp iso extract", {vmp, "iso", "extract", small, "-C", out}},
                 {"vmp iso extract -j1", {vmp, "iso", "extract", small, "-C", out, "-j", "1"}},
                 {"bsdtar -x", {"bsdtar", "-xf", small, "-C", out}},
                 {"7z x", {"7z", "x", "-y", "-o" + out, small}},
                 {"xorriso -osirrox", {"xorriso", "-osirrox", "on", "-indev", "stdio:" + small, "-extract", "/", out}}},
                "/dev/null", out);
  fs::remove_all(dir);
  return 0;
}
