// From an address the guest wants to run to the block that does it: fetch rights, lookup, translation, invalidation.
#include <optional>
#include <span>

#include "engine/soft/mmu.hpp"
#include "engine/soft/page_walk.hpp"
#include "engine/soft/soft_cpu.hpp"
#include "engine/soft/translator.hpp"

namespace vm_platform::soft {

bool SoftCpu::page_is_global(std::uint64_t at) const {
  const TlbEntry& entry = mmu.entries[(at >> 12) % MmuState::kEntries];
  return entry.page == at >> 12 && (entry.flags & TlbEntry::kGlobal) != 0;
}

bool SoftCpu::is_global(const Block& block) const {
  return page_is_global(block.rip) && (block.second_physical == 0 || page_is_global(block.rip + block.guest_size - 1));
}

Block& SoftCpu::find_block(std::uint64_t at, const Mode& mode) {
  const std::uint64_t linear = fetch_address(at);
  const WalkResult result = walk(*this, linear, false, true, cpl == 3 ? Walker::User : Walker::SupervisorOpen);
  if (result.status == WalkStatus::Fault) throw GuestFault{Vector::PageFault, result.error_code, linear};
  if (result.status == WalkStatus::NotCanonical) raise(Vector::GeneralProtection, 0);
  if (result.entry->host == nullptr)
    throw VmError(ErrorCode::Unsupported, "run guest code", "outside of RAM", "nothing to execute there");
  const std::uint64_t physical = result.entry->physical | (linear & 4095);
  const std::uint64_t cs_base = in_64bit() ? 0 : segments[kCs].base;
  if (Block* block = code.find(physical, at, cs_base, mode)) {
    if (block->second_physical == 0) return *block;
    // It goes on in the next page: that one must still be where it was.
    const std::uint64_t next_page = (linear & ~std::uint64_t{4095}) + 4096;
    const WalkResult next = walk(*this, next_page, false, true, cpl == 3 ? Walker::User : Walker::SupervisorOpen);
    if (next.status == WalkStatus::Fault) throw GuestFault{Vector::PageFault, next.error_code, next_page};
    if (next.status == WalkStatus::Done && next.entry->physical == (block->second_physical & ~std::uint64_t{4095}))
      return *block;
    invalidate_code(world, code, physical, 1, true);
  }
  return translate(linear, at, cs_base, mode);
}

namespace {

/// No CPU may go on writing directly to a page that code is being translated from.
void revoke_writes(World& world, const std::byte* host_page) {
  const auto host = reinterpret_cast<std::uint64_t>(host_page);
  for (SoftCpu* cpu : world.cpus) {
    for (TlbSet& set : cpu->tlb) {
      if (set.used == 0) continue;
      for (unsigned slot = 0; slot < kTlbEntries; ++slot) {
        const std::uint64_t page = 0 - set.write_tag[slot];
        if (page + set.addend[slot] == host) set.write_tag[slot] = TlbSet::empty_tag(slot);
      }
    }
  }
}

}  // namespace

Block& SoftCpu::translate(std::uint64_t linear, std::uint64_t at, std::uint64_t cs_base, const Mode& mode) {
  const auto fetch = [&](std::uint64_t page) -> const TlbEntry& {
    const WalkResult result = walk(*this, page, false, true, cpl == 3 ? Walker::User : Walker::SupervisorOpen);
    if (result.status == WalkStatus::Fault) throw GuestFault{Vector::PageFault, result.error_code, page};
    if (result.status == WalkStatus::NotCanonical) raise(Vector::GeneralProtection, 0);
    if (result.entry->host == nullptr)
      throw VmError(ErrorCode::Unsupported, "run guest code", "outside of RAM", "nothing to execute there");
    return *result.entry;
  };
  const World::Lock lock(world);
  if (code.nearly_full()) {
    const World::Stop stop(world);
    for (SoftCpu* cpu : world.cpus) cpu->links.drop_all();
    code.clear();
  }
  const TlbEntry first = fetch(linear);
  const unsigned offset = static_cast<unsigned>(linear & 4095);
  CodeBytes bytes{
      {reinterpret_cast<const std::uint8_t*>(first.host) + offset, 4096 - offset}, {}, first.physical | offset, 0};
  if (Block* block = code.find(bytes.physical, at, cs_base, mode); block != nullptr && block->second_physical == 0)
    return *block;
  std::optional<World::Stop> stop;
  const auto watch = [&](const TlbEntry& page) {
    if (code.pages.has_code(page.physical)) return;
    if (!stop && !alone) stop.emplace(world);
    revoke_writes(world, page.host);
  };
  watch(first);
  Block* block = Translator(code, mode, at, cs_base, bytes).translate();
  if (block == nullptr) {
    const TlbEntry second = fetch((linear & ~std::uint64_t{4095}) + 4096);
    bytes.second = {reinterpret_cast<const std::uint8_t*>(second.host), 4096};
    bytes.second_physical = second.physical | 1;  // never 0; the address of the page is what counts
    watch(second);
    block = Translator(code, mode, at, cs_base, bytes).translate();
  }
  for (SoftCpu* cpu : world.cpus) cpu->links.add_slots(block->first_exit, block->exits);
  return *block;
}

void invalidate_code(World& world, CodeCache& cache, std::uint64_t physical, std::uint64_t size, bool inside) {
  const World::Lock lock(world, inside);
  const World::Stop stop(world, inside);
  cache.invalidate(physical, size, [&](const Block& block) {
    const auto address = reinterpret_cast<std::uint64_t>(cache.executable(block));
    for (SoftCpu* cpu : world.cpus) {
      for (const std::uint32_t number : block.incoming) cpu->links.clear_slot(number);
      cpu->links.clear_jump(block, address);
    }
  });
}

}  // namespace vm_platform::soft
