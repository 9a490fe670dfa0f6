// What the OS layer costs beside the raw call or instruction, both measured in the same run, in turns.
//
//   os_bench             everything, some 20 s
//   os_bench --quick     little of everything, to see that it runs
//   os_bench --drift N   timestamp_ns against CLOCK_MONOTONIC for N seconds
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>
#include <vm_platform/dirty_tracking.hpp>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>
#include <vm_platform/signals.hpp>
#include <vm_platform/threading.hpp>
#include <vm_platform/timer.hpp>

namespace {

using namespace vm_platform;

bool g_quick = false;
int g_missed = 0;

std::uint64_t raw_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U + static_cast<std::uint64_t>(now.tv_nsec);
}

template <typename T>
void keep(const T& value) {
  __asm__ __volatile__("" ::"r,m"(value) : "memory");
}

template <typename T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "os_bench: %s\n", result.error().message().c_str());
  std::exit(1);
}
void must(const Result<void>& result) {
  if (result) return;
  std::fprintf(stderr, "os_bench: %s\n", result.error().message().c_str());
  std::exit(1);
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

template <typename Function>
double once(int count, Function& function) {
  const std::uint64_t begin = raw_ns();
  for (int i = 0; i < count; ++i) function();
  return static_cast<double>(raw_ns() - begin) / count;
}

/// Ours and the raw way in turns, so that a noisy neighbour hits both; medians of 31 rounds. `limit` is what ours may
/// cost: factor times raw plus `extra` ns.
template <typename Ours, typename Raw>
void compare(const char* name, int count, Ours ours, Raw raw, double factor = 1.1, double extra = 20) {
  if (g_quick) count = std::max(count / 100, 1);
  std::vector<double> a, b;
  once(count / 4 + 1, ours);
  once(count / 4 + 1, raw);
  for (int round = 0; round < (g_quick ? 3 : 31); ++round) {
    a.push_back(once(count, ours));
    b.push_back(once(count, raw));
  }
  const double mine = median(a), theirs = median(b);
  const bool good = mine <= theirs * factor + extra;
  if (!good) ++g_missed;
  std::printf("%-44s %12.1f %12.1f %7.2fx   %s\n", name, mine, theirs, mine / theirs, good ? "ok" : "MISSED");
}

template <typename Ours>
void alone(const char* name, int count, Ours ours) {
  if (g_quick) count = std::max(count / 100, 1);
  std::vector<double> a;
  for (int round = 0; round < (g_quick ? 3 : 31); ++round) a.push_back(once(count, ours));
  std::printf("%-44s %12.1f %12s\n", name, median(a), "-");
}

void memory() {
  constexpr std::uint64_t kSize = 2 * kMiB;
  compare(
      "map + unmap, 2 MiB private", 2000, [] { keep(MappedMemory::create_private(kSize).value().data()); },
      [] {
        void* p = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        keep(p);
        ::munmap(p, kSize);
      });
  compare(
      "map + unmap, 2 MiB shared", 1000, [] { keep(MappedMemory::create_shared(kSize, "bench").value().data()); },
      [] {
        const int fd = ::memfd_create("bench", MFD_CLOEXEC);
        if (::ftruncate(fd, kSize) != 0) std::abort();
        void* p = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        keep(p);
        ::munmap(p, kSize);
        ::close(fd);
      });
  auto memory = must(MappedMemory::create_private(kSize));
  must(memory.prefault());
  compare(
      "protect 64 KiB, there and back", 2000,
      [&] {
        must(memory.protect(0, 64 * kKiB, MemoryProtection::Read));
        must(memory.protect(0, 64 * kKiB, MemoryProtection::ReadWrite));
      },
      [&] {
        ::mprotect(memory.data(), 64 * kKiB, PROT_READ);
        ::mprotect(memory.data(), 64 * kKiB, PROT_READ | PROT_WRITE);
      });
  compare(
      "discard 64 KiB and touch it", 500,
      [&] {
        must(memory.discard(0, 64 * kKiB));
        for (std::uint64_t at = 0; at < 64 * kKiB; at += kPageSize) memory.data()[at] = std::byte{1};
      },
      [&] {
        ::madvise(memory.data(), 64 * kKiB, MADV_DONTNEED);
        for (std::uint64_t at = 0; at < 64 * kKiB; at += kPageSize) memory.data()[at] = std::byte{1};
      });
  std::vector<std::byte> buffer(kPageSize);
  alone("read_at, 4 KiB", 5000, [&] { must(memory.read_at(kPageSize, buffer)); });
}

// mov eax, 42; ret
constexpr unsigned char kReturn42[] = {0xb8, 42, 0, 0, 0, 0xc3};

int call(const std::byte* entry) { return std::bit_cast<int (*)()>(entry)(); }

void jit() {
  auto dual = must(JitMemory::create(kMiB));
  const auto code = std::as_bytes(std::span(kReturn42));
  volatile std::byte* there = dual.writable() + 512 * kKiB;
  auto plain = must(MappedMemory::create_private(kPageSize));
  volatile std::byte* plain_byte = plain.data();
  compare("dual map: write one byte", 1'000'000, [&] { *there = std::byte{1}; }, [&] { *plain_byte = std::byte{1}; });
  compare(
      "dual map: store 6 bytes and call", 20'000,
      [&] {
        must(dual.store(0, code));
        keep(call(dual.executable()));
      },
      [&] {
        std::memcpy(dual.writable(), kReturn42, sizeof kReturn42);
        keep(call(dual.executable()));
      });
  alone("JIT: allocate + store + call + free", 20'000, [&] {
    const auto block = must(dual.allocate(64));
    must(dual.store(block.offset, code));
    keep(call(dual.executable() + block.offset));
    must(dual.free(block));
  });
  auto switching = must(JitMemory::create(JitOptions{.size = kMiB, .mode = JitMode::ProtectionSwitch}));
  compare(
      "switching: store 6 bytes and call", 2000,
      [&] {
        must(switching.store(0, code));
        keep(call(switching.executable()));
      },
      [&] {
        std::byte* page = switching.writable();
        ::mprotect(page, kPageSize, PROT_READ | PROT_WRITE);
        std::memcpy(page, kReturn42, sizeof kReturn42);
        ::mprotect(page, kPageSize, PROT_READ | PROT_EXEC);
        keep(call(page));
      },
      1.1, 100);
  alone("synchronize_cores", 5000, [] { must(synchronize_cores()); });
}

// What a fault costs: a load from nowhere, and a handler that steps over it.
extern "C" char os_bench_fault, os_bench_resume;
__asm__(
    ".text\n.globl os_bench_load\nos_bench_load:\n.globl os_bench_fault\nos_bench_fault:\n movb (%rdi), %al\n"
    ".globl os_bench_resume\nos_bench_resume:\n ret\n");
extern "C" void os_bench_load(const void* address);

void bare_handler(int, siginfo_t*, void* context) {
  static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(&os_bench_resume);
}

void faults() {
  auto memory = must(MappedMemory::create({.size = kPageSize, .protection = MemoryProtection::None}));
  const auto step_over = [](Fault& fault, void*) noexcept {
    fault.set_pc(reinterpret_cast<std::uintptr_t>(&os_bench_resume));
    return FaultAction::Resume;
  };
  // Both on an alternate stack; the handlers are exchanged outside of what is measured.
  must(ensure_alternate_stack());
  std::vector<double> a, b;
  const int count = g_quick ? 50 : 2000;
  const auto load = [&] { os_bench_load(memory.data()); };
  for (int round = 0; round < (g_quick ? 3 : 31); ++round) {
    {
      const auto handler = must(register_sigsegv_handler(memory.bytes(), step_over, nullptr));
      a.push_back(once(count, load));
    }
    struct sigaction bare{}, before{};
    bare.sa_sigaction = bare_handler;
    bare.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigaction(SIGSEGV, &bare, &before);
    b.push_back(once(count, load));
    ::sigaction(SIGSEGV, &before, nullptr);
  }
  const double mine = median(a), theirs = median(b);
  const bool good = mine <= theirs * 1.2;
  g_missed += good ? 0 : 1;
  std::printf("%-44s %12.1f %12.1f %7.2fx   %s\n", "fault and resume (limit 1.2x)", mine, theirs, mine / theirs,
              good ? "ok" : "MISSED");
}

void time_and_barriers() {
  keep(timestamp_ns());
  const auto clock = [] {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    keep(now.tv_nsec);
  };
  if (const TimerInfo info = timer_info(); info.source == TimerSource::SystemClock) {
    std::printf("(timestamp_ns is clock_gettime here: %s)\n", std::string(info.reason).c_str());
    compare("timestamp_ns, by clock_gettime", 100'000, [] { keep(timestamp_ns()); }, clock);
    compare("timestamp_ns_unordered, by clock_gettime", 100'000, [] { keep(timestamp_ns_unordered()); }, clock);
  } else {
    compare("timestamp_ns (limit 1.0x)", 100'000, [] { keep(timestamp_ns()); }, clock, 1.0, 0);
    compare("timestamp_ns_unordered (limit 0.6x)", 100'000, [] { keep(timestamp_ns_unordered()); }, clock, 0.6, 0);
  }
  compare(
      "barrier_full, beside mfence", 100'000, [] { barrier_full(); },
      [] {
        __asm__ __volatile__("mfence" ::: "memory");
      });
  compare(
      "barrier_acquire + barrier_release", 1'000'000,
      [] {
        barrier_acquire();
        barrier_release();
      },
      [] {
        __asm__ __volatile__("" ::: "memory");
      });
}

void threads() {
  const auto allowed = must(thread_affinity());
  const unsigned cpu = allowed.list().front();
  compare(
      "set_thread_cpu (raw: set and read back)", 2000, [&] { must(set_thread_cpu(cpu)); },
      [&] {
        // Ours reads the mask before and after, to tell a CPU that is not there.
        std::uint64_t mask[16] = {};
        ::syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
        std::uint64_t one[16] = {};
        one[cpu / 64] = 1ULL << (cpu % 64);
        ::syscall(SYS_sched_setaffinity, 0, sizeof one, one);
        ::syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
      },
      1.1, 300);
  must(set_thread_affinity(allowed));
  alone("read_topology", 20, [] { keep(must(read_topology()).cpus.size()); });
}

void dirty() {
  const std::uint64_t size = g_quick ? 16 * kMiB : kGiB, pages = size / kPageSize;
  std::printf("\ndirty tracking, %llu MiB            write a page [ns]  collect [us]  collect per dirty page [ns]\n",
              static_cast<unsigned long long>(size / kMiB));
  for (const DirtyMethod method :
       {DirtyMethod::PagemapScan, DirtyMethod::Userfaultfd, DirtyMethod::ProtectFault, DirtyMethod::SoftDirty}) {
    auto memory = must(MappedMemory::create_shared(size, "dirty"));
    must(memory.prefault());
    auto tracker = DirtyTracker::start(memory, {.method = method});
    if (!tracker) {
      std::printf("%-14s %s\n", std::string(to_string(method)).c_str(), tracker.error().message().c_str());
      continue;
    }
    DirtyPages found;
    must(tracker->collect(found));
    for (const unsigned percent : {1U, 10U, 100U}) {
      std::vector<std::uint64_t> order(pages);
      for (std::uint64_t i = 0; i < pages; ++i) order[i] = i;
      std::ranges::shuffle(order, std::minstd_rand(percent));
      order.resize(pages * percent / 100);
      const std::uint64_t begin = raw_ns();
      for (const std::uint64_t page : order) memory.data()[page * kPageSize] = std::byte{1};
      const std::uint64_t written = raw_ns();
      must(tracker->collect(found));
      const std::uint64_t collected = raw_ns();
      std::printf("%-14s %3u %%, scattered %21.0f %13.0f %13.1f%s\n", std::string(to_string(method)).c_str(), percent,
                  static_cast<double>(written - begin) / static_cast<double>(order.size()),
                  static_cast<double>(collected - written) / 1000,
                  static_cast<double>(collected - written) / static_cast<double>(order.size()),
                  found.count == order.size() ? "" : "   (more reported: the mapping limit was hit)");
    }
  }
}

void detection() {
  std::printf("\n");
  compare(
      "host detection without KVM probe (limit 20 ms)", 5,
      [] {
        keep(must(PlatformInfo::detect()).page_size);
        keep(PlatformFeatures::detect({.probe_kvm = false}).max_mappings);
      },
      [] {}, 1, 20e6);
  compare(
      "host detection with KVM probe (limit 100 ms)", 1,
      [] {
        keep(must(PlatformInfo::detect()).page_size);
        keep(PlatformFeatures::detect().max_mappings);
      },
      [] {}, 1, 100e6);
}

int drift(int seconds) {
  std::int64_t worst = 0;
  for (int i = 0; i < seconds * 100; ++i) {
    const std::uint64_t before = raw_ns(), ours = timestamp_ns(), after = raw_ns();
    if (after - before < 2000) {
      const auto error = static_cast<std::int64_t>(ours) - static_cast<std::int64_t>(before + (after - before) / 2);
      worst = std::max(worst, std::abs(error));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  std::printf("largest difference to CLOCK_MONOTONIC in %d s: %lld ns\n", seconds, static_cast<long long>(worst));
  return worst < 20'000 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string option = argc > 1 ? argv[1] : "";
  if (option == "--drift") return drift(argc > 2 ? std::atoi(argv[2]) : 60);
  g_quick = option == "--quick";
  std::printf("%-44s %12s %12s %8s\n", "", "ours [ns]", "raw [ns]", "");
  memory();
  jit();
  faults();
  time_and_barriers();
  threads();
  dirty();
  detection();
  if (g_missed != 0) std::printf("%d missed their limit%s\n", g_missed, g_quick ? " (--quick is no measurement)" : "");
  return 0;
}
