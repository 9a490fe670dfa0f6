// Generated code: written through one mapping, run through another.
#include <array>
#include <bit>
#include <cstdio>
#include <vm_platform/jit_memory.hpp>

using namespace vm_platform;

#if defined(__clang__)
__attribute__((no_sanitize("function")))  // reads the bytes before a callee, which here are not its own
#endif
static int
call(const std::byte* entry, int argument) {
  return std::bit_cast<int (*)(int)>(entry)(argument);
}

int main() {
  auto memory = JitMemory::create(64 * kKiB);
  if (!memory) return std::fprintf(stderr, "%s\n", memory.error().message().c_str()), 1;
  constexpr std::array<unsigned char, 4> kTwice = {0x8d, 0x04, 0x3f, 0xc3};  // lea eax, [rdi + rdi]; ret
  const auto block = memory->allocate(kTwice.size());
  if (!block || !memory->store(block->offset, std::as_bytes(std::span(kTwice)))) return 1;
  const int result = call(memory->executable() + block->offset, 21);
  std::printf("%s: %d\n", memory->mode() == JitMode::DualMapping ? "dual mapping" : "protection switching", result);
  return result == 42 && memory->free(*block) ? 0 : 1;
}
