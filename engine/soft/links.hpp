// What a CPU's generated code jumps through outside of its own page: slots for direct jumps, the jump cache for
// indirect ones. Both depend on the CPU's page tables, so TLB maintenance empties them.
#pragma once

#include <bitset>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "engine/soft/code_cache.hpp"
#include "engine/soft/context.hpp"

namespace vm_platform::soft {

class Links {
 public:
  /// `tables` is the mapping that starts with the CPU's context (translator.hpp has the layout).
  explicit Links(std::byte* tables, std::uint64_t unlinked);

  /// Slots that were never used lead to the run loop from now on.
  void add_slots(std::uint32_t first, std::uint32_t count);

  void set_slot(std::uint32_t exit_number, std::uint64_t code, const Block& target, bool global);
  void clear_slot(std::uint32_t exit_number);
  /// Before code of this mode runs: a jump cache holds the code of one mode only, since its tags do not say which.
  void use_mode(const Mode& mode) {
    if (jump_mode_[static_cast<unsigned>(mode.tlb)] != mode.key()) change_mode(mode);
  }
  void set_jump(std::uint64_t rip, const Mode& mode, std::uint64_t code, const Block& target, bool global);
  /// The code for `rip` if the jump cache knows it, else 0.
  [[nodiscard]] std::uint64_t find_jump(std::uint64_t rip, const Mode& mode) const;
  void clear_jump(const Block& block, std::uint64_t code);

  // TLB maintenance
  void drop_non_global();
  void drop_page(std::uint64_t linear);
  void drop_all();
  /// How much is listed for it.
  [[nodiscard]] std::size_t remembered() const { return remembered_; }
  static constexpr std::size_t kMaxRemembered = 1 << 18;

 private:
  using Link = std::uint32_t;  // a slot's number, or kJump and the place in the jump cache
  static constexpr Link kJump = 1U << 31;
  void change_mode(const Mode& mode);
  void reset(Link link);
  void remember(Link link, const Block& target, bool global);
  JumpCacheEntry& jump(unsigned place) const { return jumps_[place]; }

  std::uint64_t* slots_;
  JumpCacheEntry* jumps_;  // one cache after the other, by TlbIndex
  std::uint64_t unlinked_;
  std::uint32_t jump_mode_[kTlbSets] = {};
  // What TLB maintenance resets. Some of it may lead elsewhere by now, which does no harm.
  std::size_t remembered_ = 0;  // in both lists
  std::vector<Link> non_global_;
  std::bitset<4096> non_global_pages_;
  std::unordered_map<std::uint64_t, std::vector<Link>> global_;  // by page of the target
};

}  // namespace vm_platform::soft
