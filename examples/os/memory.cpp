// Guest memory: reserved whole, committed where it is used, shared with a second view, given back in part.
#include <cstdio>
#include <cstring>
#include <vm_platform/memory.hpp>

using namespace vm_platform;

int main() {
  auto memory = MappedMemory::create(
      {.size = 256 * kMiB, .name = "guest", .shared = true, .guard_after = kPageSize, .reserve_only = true});
  if (!memory) return std::fprintf(stderr, "%s\n", memory.error().message().c_str()), 1;
  if (auto done = memory->commit(0, 16 * kMiB); !done) return 1;
  std::memset(memory->data(), 0xab, 16 * kMiB);
  auto view = memory->view(MemoryProtection::Read, 0, kMiB);
  if (!view) return 1;
  if (auto done = memory->discard(8 * kMiB, 8 * kMiB); !done) return 1;
  std::printf("%llu MiB in memory; the view reads %02x\n",
              static_cast<unsigned long long>(memory->resident_bytes().value_or(0) / kMiB),
              static_cast<unsigned>(view->data()[5]));
  // What cannot be had says why, and what to do about it:
  const auto refused =
      MappedMemory::create({.size = kGiB, .huge_pages = HugePages::Explicit, .huge_pages_required = true});
  if (!refused) std::printf("%s\n", refused.error().message().c_str());
  return view->data()[5] == std::byte{0xab} ? 0 : 1;
}
