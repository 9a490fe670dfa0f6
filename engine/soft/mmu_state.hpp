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

  /// Where translations have come of pages of more than 4 KiB: INVLPG of one address drops all of such a page's (Intel
  /// SDM vol. 3, 4.10.2.3). For each 2 MiB of either half of the address space, modulo 4 GiB; global ones apart.
  struct LargePages {
    std::uint64_t seen[4096 / 64] = {};
    bool giant_seen[2] = {};  ///< 1 GiB, by half.

    /// `shift`: of the page's size.
    [[gnu::always_inline]] void note(std::uint64_t linear, unsigned shift) noexcept {
      if (shift > 22) giant_seen[linear >> 63] = true;
      for (std::uint64_t at = linear & ~((std::uint64_t{1} << 22) - 1), i = 0; i < 2; ++i, at += 1 << 21)
        if (shift == 22 || at >> 21 == linear >> 21) seen[place(at) / 64] |= std::uint64_t{1} << place(at) % 64;
    }
    [[nodiscard, gnu::always_inline]] bool may_hold(std::uint64_t linear) const noexcept {
      return giant_seen[linear >> 63] || (seen[place(linear) / 64] >> place(linear) % 64 & 1) != 0;
    }

   private:
    [[gnu::always_inline]] static unsigned place(std::uint64_t linear) noexcept {
      return static_cast<unsigned>((linear >> 21 & 2047) | linear >> 63 << 11);
    }
  };
  LargePages large, global_large;
};

}  // namespace vm_platform::soft
