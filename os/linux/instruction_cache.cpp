// Instruction-cache maintenance. x86-64 keeps its instruction caches coherent; aarch64 leaves it to us.
#include <vm_platform/jit_memory.hpp>

#if defined(__aarch64__)
#include <sched.h>

#include <algorithm>
#include <system_error>
#include <thread>
#endif

namespace vm_platform {

#if defined(__x86_64__)

void flush_instruction_cache(const void* /*executable*/, std::uint64_t /*size*/, const void* /*written*/) noexcept {
  __asm__ __volatile__("" ::: "memory");  // the compiler must not keep the stores back
}

#elif defined(__aarch64__)

namespace {

struct CacheLines {
  std::uint64_t data, instruction;       // bytes
  bool clean_needed, invalidate_needed;  // CTR_EL0.IDC and .DIC say on some cores that one of them is not
};

/// big.LITTLE clusters may have lines of different length, and a thread can move between reading CTR_EL0 and using it:
/// so the smallest line of any core this process may run on counts, found by visiting each once. Where no thread can be
/// started for that, it is the smallest the architecture has, 16 bytes (CCSIDR_EL1.LineSize), and nothing is left out.
CacheLines survey() {
  CacheLines lines{.data = 2048, .instruction = 2048, .clean_needed = false, .invalidate_needed = false};
  const auto visit = [&lines] {
    std::uint64_t ctr = 0;
    __asm__ __volatile__("mrs %0, ctr_el0" : "=r"(ctr));
    lines.data = std::min<std::uint64_t>(lines.data, 4ULL << ((ctr >> 16) & 15));  // DminLine, in words
    lines.instruction = std::min<std::uint64_t>(lines.instruction, 4ULL << (ctr & 15));
    lines.clean_needed |= ((ctr >> 28) & 1) == 0;
    lines.invalidate_needed |= ((ctr >> 29) & 1) == 0;
  };
  const auto visit_all = [&visit] {
    visit();
    cpu_set_t allowed;
    if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      if (::sched_setaffinity(0, sizeof one, &one) == 0) visit();
    }
  };
  try {
    std::thread(visit_all).join();
  } catch (const std::system_error&) {
    return {.data = 16, .instruction = 16, .clean_needed = true, .invalidate_needed = true};
  }
  return lines;
}

}  // namespace

void flush_instruction_cache(const void* executable, std::uint64_t size, const void* written) noexcept {
  static const CacheLines lines = survey();
  const auto start = reinterpret_cast<std::uintptr_t>(executable);
  const auto data = reinterpret_cast<std::uintptr_t>(written != nullptr ? written : executable);
  if (lines.clean_needed) {
    for (auto at = data & ~(lines.data - 1); at < data + size; at += lines.data)
      __asm__ __volatile__("dc cvau, %0" ::"r"(at) : "memory");
  }
  __asm__ __volatile__("dsb ish" ::: "memory");
  if (lines.invalidate_needed) {
    for (auto at = start & ~(lines.instruction - 1); at < start + size; at += lines.instruction)
      __asm__ __volatile__("ic ivau, %0" ::"r"(at) : "memory");
    __asm__ __volatile__("dsb ish" ::: "memory");
  }
  __asm__ __volatile__("isb" ::: "memory");
}

#else
#error "instruction-cache maintenance for this processor is missing"
#endif

}  // namespace vm_platform
