// Which pages changed: what a live migration or an incremental snapshot asks in every round.
#include <cstdio>
#include <vm_platform/dirty_tracking.hpp>

using namespace vm_platform;

int main() {
  auto memory = MappedMemory::create_shared(64 * kMiB, "guest");
  if (!memory) return 1;
  auto tracker = DirtyTracker::start(*memory);
  if (!tracker) return std::fprintf(stderr, "%s\n", tracker.error().message().c_str()), 1;
  DirtyPages pages;
  std::uint64_t total = 0;
  for (unsigned round = 1; round <= 3; ++round) {
    for (std::uint64_t at = 0; at < 64 * kMiB; at += round * kMiB) memory->data()[at] = std::byte{1};
    if (!tracker->collect(pages)) return 1;
    total += pages.count;
    std::printf("round %u: %llu pages, by %s\n", round, static_cast<unsigned long long>(pages.count),
                std::string(to_string(tracker->method())).c_str());
  }
  return total == 64 + 32 + 22 ? 0 : 1;
}
