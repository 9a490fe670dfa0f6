// From an address the guest wants to run to the block that does it: fetch rights, lookup, translation, invalidation.
#include <algorithm>
#include <cstring>
#include <optional>
#include <span>

#include "engine/soft/mmu.hpp"
#include "engine/soft/page_walk.hpp"
#include "engine/soft/soft_cpu.hpp"
#include "engine/soft/translator.hpp"

namespace vm_platform::soft {

std::uint64_t SoftCpu::page_after(std::uint64_t linear) const {
  const std::uint64_t next = (linear & ~std::uint64_t{4095}) + 4096;
  return in_64bit() ? next : next & 0xffffffff;
}

bool SoftCpu::page_is_global(std::uint64_t at) const {
  const TlbEntry& entry = mmu.entries[(at >> 12) % MmuState::kEntries];
  return entry.page == at >> 12 && (entry.flags & TlbEntry::kGlobal) != 0;
}

bool SoftCpu::is_global(const Block& block) const {
  return page_is_global(block.rip) && (!block.second_page || page_is_global(block.rip + block.guest_size - 1));
}

const TlbEntry& SoftCpu::fetch_page(std::uint64_t linear) {
  const WalkResult result = walk(*this, linear, false, true, cpl == 3 ? Walker::User : Walker::SupervisorOpen);
  if (result.status == WalkStatus::Fault) throw GuestFault{Vector::PageFault, result.error_code, linear};
  if (result.status == WalkStatus::NotCanonical) raise(Vector::GeneralProtection, 0);
  return *result.entry;
}

void SoftCpu::fetch_bytes(std::uint64_t linear, std::span<std::uint8_t> out) {
  const TlbEntry& page = fetch_page(linear);
  const std::uint64_t offset = linear & 4095;
  if (page.host != nullptr) {
    std::memcpy(out.data(), page.host + offset, out.size());
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<std::uint8_t>(environment.mmio->read(Gpa((page.physical | offset) + i), 1, index));
}

Block& SoftCpu::find_block(std::uint64_t at, const Mode& mode) {
  const std::uint64_t linear = fetch_address(at);
  const TlbEntry& page = fetch_page(linear);
  const std::uint64_t cs_base = in_64bit() ? 0 : segments[kCs].base;
  if (page.host == nullptr) return translate_outside_ram(linear, at, cs_base, mode);
  const std::uint64_t physical = page.physical | (linear & 4095);
  if (Block* block = code.find(physical, at, cs_base, mode)) {
    if (!block->second_page) return *block;
    // It goes on in the next page: that one must still be where it was.
    if (fetch_page(page_after(linear)).physical == *block->second_page) return *block;
    invalidate_code(world, code, physical, 1);
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

void SoftCpu::make_room_for_code() {
  if (code.nearly_full()) {
    const World::Stop stop(world);
    for (SoftCpu* cpu : world.cpus) cpu->links.drop_all();
    code.clear();
  }
  // Another CPU may find a block and run it as soon as it is added, so its slots lead to the run loop before that. They
  // do so again after the cache is cleared.
  constexpr std::uint32_t kAtOnce = 4096;
  while (code.exit_count() + CodeCache::kMaxBlockExits > world.slots) {
    for (SoftCpu* cpu : world.cpus) cpu->links.add_slots(world.slots, kAtOnce);
    world.slots += kAtOnce;
  }
}

Block& SoftCpu::translate(std::uint64_t linear, std::uint64_t at, std::uint64_t cs_base, const Mode& mode) {
  Block* block = nullptr;
  {
    const World::Lock lock(world);
    make_room_for_code();
    const TlbEntry first = fetch_page(linear);
    const unsigned offset = static_cast<unsigned>(linear & 4095);
    CodeBytes bytes{
        {reinterpret_cast<const std::uint8_t*>(first.host) + offset, 4096 - offset}, {}, first.physical | offset, 0};
    if (Block* found = code.find(bytes.physical, at, cs_base, mode); found != nullptr && !found->second_page)
      return *found;
    std::optional<World::Stop> stop;
    const auto watch = [&](const TlbEntry& page) {
      if (code.pages.has_code(page.physical)) return;
      if (!stop && !alone) stop.emplace(world);
      revoke_writes(world, page.host);
    };
    watch(first);
    block = Translator(code, host, mode, at, cs_base, bytes).translate();
    if (block == nullptr) {
      const TlbEntry second = fetch_page(page_after(linear));
      if (second.host != nullptr) {
        bytes.second = {reinterpret_cast<const std::uint8_t*>(second.host), 4096};
        bytes.second_page = second.physical;
        watch(second);
        block = Translator(code, host, mode, at, cs_base, bytes).translate();
      }
    }
  }
  return block != nullptr ? *block : translate_outside_ram(linear, at, cs_base, mode);
}

Block& SoftCpu::translate_outside_ram(std::uint64_t linear, std::uint64_t at, std::uint64_t cs_base, Mode mode) {
  mode.checked = true;
  std::uint8_t bytes[15];
  const auto in_page = std::min<std::size_t>(sizeof bytes, 4096 - (linear & 4095));
  // Without the world's lock: a device that is read may have to wait for somebody who waits for it.
  fetch_bytes(linear, std::span(bytes).first(in_page));
  std::size_t size = in_page;
  if (in_page < sizeof bytes && goes_on(bytes, in_page, mode.code)) {
    fetch_bytes(page_after(linear), std::span(bytes).subspan(in_page));
    size = sizeof bytes;
  }
  const World::Lock lock(world);
  make_room_for_code();
  const CodeBytes source{std::span<const std::uint8_t>(bytes).first(size), {}, fetch_page(linear).physical, 0, false};
  return *Translator(code, host, mode, at, cs_base, source).translate();
}

void invalidate_code(World& world, CodeCache& cache, std::uint64_t physical, std::uint64_t size) {
  const World::Lock lock(world);
  const World::Stop stop(world);
  cache.invalidate(physical, size, [&](const Block& block) {
    const auto address = reinterpret_cast<std::uint64_t>(cache.executable(block));
    for (SoftCpu* cpu : world.cpus) {
      for (const std::uint32_t number : block.incoming) cpu->links.clear_slot(number);
      cpu->links.clear_jump(block, address);
    }
  });
}

}  // namespace vm_platform::soft
