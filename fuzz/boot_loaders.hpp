// What holds for every loader, whatever the image: what it places lies in RAM, and no two things over each other.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "boot/detect.hpp"
#include "boot/test_images.hpp"
#include "guest/guest_memory.hpp"

namespace vm_platform::boot {

inline void fuzz_loader(BootMethod method, const std::uint8_t* data, std::size_t size) {
  static const GuestMemory memory = std::move(*GuestMemory::create(64 * kMiB));
  static const auto map = test::small_map();
  const MemorySource kernel("kernel", std::as_bytes(std::span(data, size)));
  const MemorySource module("module", std::as_bytes(std::span(data, size / 2)));
  BootInput input{.kernel = &kernel, .command_line = "console=ttyS0", .memory_map = map, .rsdp = Gpa(0x3f00000)};
  if (size > 1) input.modules.push_back({&module, "argument"});
  auto boot = plan(method, input);
  if (!boot) return;
  std::uint64_t bytes = 0;
  const auto placed = boot->plan.placed();
  for (std::size_t i = 0; i < placed.size(); ++i) {
    bytes += placed[i].size;
    const std::uint64_t begin = placed[i].address.value, end = begin + placed[i].size;
    const bool in_ram = end > begin && (end <= 0x9f000 || (begin >= kMiB && end <= 63 * kMiB));
    if (!in_ram) std::abort();
    for (std::size_t j = 0; j < i; ++j) {
      if (begin < placed[j].address.value + placed[j].size && placed[j].address.value < end) std::abort();
    }
  }
  if (bytes < kMiB && !boot->plan.write(memory)) std::abort();
  CpuState cpu;
  boot->set_cpu(cpu);
}

}  // namespace vm_platform::boot
