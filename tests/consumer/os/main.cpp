#include <cstdio>
#include <string>
#include <vm_platform/dirty_tracking.hpp>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>
#include <vm_platform/signals.hpp>
#include <vm_platform/threading.hpp>
#include <vm_platform/timer.hpp>

int main() {
  using namespace vm_platform;
  auto memory = MappedMemory::create_shared(16 * host_page_size(), "user");
  if (!memory) return 1;
  auto tracker = DirtyTracker::start(*memory);
  if (!tracker) return 1;
  memory->data()[0] = std::byte{1};
  DirtyPages pages;
  if (!tracker->collect(pages) || !pages.test(0)) return 1;
  if (!set_thread_affinity_big() || !ensure_alternate_stack() || timestamp_ns() == 0) return 1;
  const auto info = PlatformInfo::detect();
  if (!info) return 1;
  std::printf("%s, changes seen by %s\n", info->cpu_model.c_str(), std::string(to_string(tracker->method())).c_str());
  return 0;
}
