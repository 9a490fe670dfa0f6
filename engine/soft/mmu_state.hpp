// The second-level TLB and what tells its entries apart.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/engine.hpp"

namespace vm_platform::soft {

/// One cached translation. `generation` says when it was made: it holds while it equals that of the current address
/// space, or (global pages) that of the global pages; flushing is taking a new number.
struct TlbEntry {
  static constexpr std::uint8_t kWritable = 1, kUser = 2, kNoExecute = 4, kGlobal = 8, kDirty = 16, kRam = 32;
  std::uint64_t page = ~std::uint64_t{0};  ///< Linear page number.
  std::uint64_t generation = 0;
  std::uint64_t physical = 0;  ///< Guest-physical address of the page.
  std::byte* host = nullptr;   ///< Host address of the page, RAM only.
  std::uint8_t flags = 0;
};

struct MmuState {
  static constexpr std::size_t kEntries = 4096, kPcids = 4096;

  struct Ram {
    std::uint64_t base = 0, size = 0;
    std::byte* host = nullptr;
  };

  explicit MmuState(const EngineEnvironment& environment)
      : memory(*environment.memory),
        entries(std::make_unique<TlbEntry[]>(kEntries)),
        pcid_generation(std::make_unique<std::uint64_t[]>(kPcids)) {
    std::size_t count = 0;
    for (const GuestMemory::Region& region : memory.regions())
      ram[count++] = {region.base.value, region.size, region.host};
  }

  GuestMemory& memory;
  Ram ram[2];
  std::unique_ptr<TlbEntry[]> entries;
  std::unique_ptr<std::uint64_t[]> pcid_generation;  ///< 0: the PCID has no translations yet.
  std::size_t pcid = 0;                              ///< Whose translations `generation` counts.
  std::uint64_t newest_generation = 2;
  std::uint64_t generation = 2, global_generation = 1;
};

}  // namespace vm_platform::soft
