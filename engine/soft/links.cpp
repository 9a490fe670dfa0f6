#include "engine/soft/links.hpp"

#include "engine/soft/translator.hpp"

namespace vm_platform::soft {
namespace {

/// A tag no RIP can match at this place: of another place.
std::uint64_t empty_tag(unsigned place) { return (place & 0xffff) == 0 ? ~std::uint64_t{0} : 0; }

}  // namespace

Links::Links(std::byte* tables, std::uint64_t unlinked)
    : slots_(reinterpret_cast<std::uint64_t*>(tables + kSlotsOffset)),
      jumps_(reinterpret_cast<JumpCacheEntry*>(tables + kJumpCacheOffset)),
      unlinked_(unlinked) {
  // Fresh memory is zero: a tag of 0 is right for every place but the first of each cache.
  for (unsigned set = 0; set < kTlbSets; ++set) jumps_[std::size_t{set} * kJumpCacheEntries].tag = empty_tag(0);
}

void Links::add_slots(std::uint32_t first, std::uint32_t count) {
  for (std::uint32_t i = 0; i < count; ++i) slots_[first + i] = unlinked_;
}

void Links::remember(Link link, const Block& target, bool global) {
  // A place is listed anew whenever it leads somewhere else, so a guest could make the lists grow for ever.
  if (remembered_ >= kMaxRemembered) drop_all();  // but for `link`, which is set already and listed below
  ++remembered_;
  const std::uint64_t page = target.rip >> 12;
  const bool crosses = target.second_page.has_value();
  if (!global) {
    non_global_.push_back(link);
    non_global_pages_.set(page % 4096);
    if (crosses) non_global_pages_.set((page + 1) % 4096);
    return;
  }
  global_[page].push_back(link);
  if (crosses) global_[page + 1].push_back(link), ++remembered_;
}

void Links::set_slot(std::uint32_t exit_number, std::uint64_t code, const Block& target, bool global) {
  __atomic_store_n(&slots_[exit_number], code, __ATOMIC_RELEASE);
  remember(exit_number, target, global);
}

void Links::clear_slot(std::uint32_t exit_number) {
  __atomic_store_n(&slots_[exit_number], unlinked_, __ATOMIC_RELEASE);
}

void Links::change_mode(const Mode& mode) {
  const auto set = static_cast<unsigned>(mode.tlb);
  for (unsigned place = 0; place < kJumpCacheEntries; ++place)
    jumps_[set * kJumpCacheEntries + place].tag = empty_tag(place);
  jump_mode_[set] = mode.key();
}

void Links::set_jump(std::uint64_t rip, const Mode& mode, std::uint64_t code, const Block& target, bool global) {
  use_mode(mode);
  const auto set = static_cast<unsigned>(mode.tlb);
  const unsigned place = set * kJumpCacheEntries + static_cast<unsigned>(rip & 0xffff);
  jumps_[place] = {0 - rip, code};
  remember(kJump | place, target, global);
}

std::uint64_t Links::find_jump(std::uint64_t rip, const Mode& mode) const {
  const auto set = static_cast<unsigned>(mode.tlb);
  if (jump_mode_[set] != mode.key()) return 0;
  const JumpCacheEntry& entry = jumps_[set * kJumpCacheEntries + static_cast<unsigned>(rip & 0xffff)];
  return entry.tag == 0 - rip ? entry.target : 0;
}

void Links::clear_jump(const Block& block, std::uint64_t code) {
  const unsigned place =
      static_cast<unsigned>(block.mode.tlb) * kJumpCacheEntries + static_cast<unsigned>(block.rip & 0xffff);
  if (jumps_[place].target == code) jumps_[place].tag = empty_tag(place);
}

void Links::reset(Link link) {
  if ((link & kJump) != 0) {
    jumps_[link & ~kJump].tag = empty_tag(link & 0xffff);
  } else {
    clear_slot(link);
  }
}

void Links::drop_non_global() {
  for (const Link link : non_global_) reset(link);
  remembered_ -= non_global_.size();
  non_global_.clear();
  non_global_pages_.reset();
}

void Links::drop_page(std::uint64_t linear) {
  const std::uint64_t page = linear >> 12;
  if (non_global_pages_.test(page % 4096)) drop_non_global();
  const auto entry = global_.find(page);
  if (entry == global_.end()) return;
  for (const Link link : entry->second) reset(link);
  remembered_ -= entry->second.size();
  global_.erase(entry);
}

void Links::drop_all() {
  drop_non_global();
  for (const auto& [page, links] : global_)
    for (const Link link : links) reset(link);
  global_.clear();
  remembered_ = 0;
}

}  // namespace vm_platform::soft
