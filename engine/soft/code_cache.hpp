// Translated code: where it lies, which guest memory it came from, and how blocks lead to each other.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>
#include <vm_platform/memory.hpp>

#include "engine/soft/code_pages.hpp"
#include "engine/soft/instruction.hpp"
#include "engine/soft/mode.hpp"

namespace vm_platform::soft {

struct Block;

/// A way out of a block. Its number is what generated code passes to the thunks, and its slot in every CPU's table of
/// jumps to other pages.
struct Exit {
  enum class Kind : std::uint8_t {
    SamePage,   ///< A jump in the code itself, patched when the target is known (and ends in the page, too).
    OtherPage,  ///< A jump through the CPU's slot: what it leads to depends on the CPU's page tables.
    Execute,    ///< An instruction for C++.
    Retry,      ///< An instruction for the checked path.
    Checked,    ///< The end of a checked block.
  };
  Kind kind = Kind::SamePage;
  std::uint64_t target_rip = 0;  ///< Execute: the instruction's own.
  Block* from = nullptr;
  Block* to = nullptr;      ///< SamePage: what the code is patched to.
  std::uint32_t patch = 0;  ///< Where the distance of the jump stands, as an offset into the code buffer.
  std::uint32_t stub = 0;   ///< Where it leads while there is no target.
  std::shared_ptr<const Instruction> instruction = {};  ///< Execute.
};

/// Guest code translated as a unit: a straight run of instructions, left by any of its exits.
struct Block {
  std::uint64_t physical = 0;         ///< Of the first byte.
  std::uint64_t second_physical = 0;  ///< Page of the last bytes, where the last instruction crosses into it; or 0.
  std::uint64_t rip = 0, cs_base = 0;
  Mode mode;
  std::uint32_t code = 0, code_size = 0;  ///< In the code buffer.
  std::uint16_t guest_size = 0, instructions = 0;
  bool valid = true;
  bool locked = false;                 ///< Checked blocks: an atomic instruction, which no other CPU may see half-done.
  std::atomic<Block*> next = nullptr;  ///< In its hash bucket.
  std::uint32_t first_exit = 0, exits = 0;  ///< Its exits' numbers are consecutive.
  std::vector<std::uint32_t> incoming;      ///< Exits patched, or slots set, to lead here.

  /// How many of its bytes lie in the page it begins in.
  [[nodiscard]] unsigned first_page_bytes() const {
    const auto room = static_cast<unsigned>(4096 - (physical & 4095));
    return guest_size < room ? guest_size : room;
  }
};

/// One for all CPUs. Lookups are lock-free; everything that changes it needs the world's lock (world.hpp), and what
/// removes blocks needs the world stopped.
class CodeCache {
 public:
  static constexpr std::uint64_t kCodeBytes = 48 * kMiB;
  static constexpr std::uint32_t kMaxExits = 1 << 20;

  static Result<std::unique_ptr<CodeCache>> create(std::uint64_t guest_memory_end);

  // ---- lock-free
  [[nodiscard]] Block* find(std::uint64_t physical, std::uint64_t rip, std::uint64_t cs_base, const Mode& mode) const;
  [[nodiscard]] const std::byte* executable(const Block& block) const { return memory_.executable() + block.code; }
  [[nodiscard]] Exit& exit(std::uint32_t number) { return exits_[number / kExitChunk][number % kExitChunk]; }
  /// The block that a host address lies in, or null.
  [[nodiscard]] Block* block_at(std::uint64_t host_address) const;

  // ---- with the lock
  /// Where the next block's code goes, and how much room there is.
  [[nodiscard]] std::byte* free_code() const { return memory_.writable() + used_; }
  [[nodiscard]] std::uint32_t free_offset() const { return used_; }
  [[nodiscard]] std::size_t free_bytes() const { return memory_.size() - used_; }
  [[nodiscard]] bool nearly_full() const { return free_bytes() < 256 * kKiB || exit_count_ + 512 > kMaxExits; }
  std::uint32_t add_exit(Exit exit);
  /// Takes a finished block of `code_size` bytes at free_code() in.
  Block* add(std::unique_ptr<Block> block);
  /// Makes a SamePage exit lead to `target`.
  void link(std::uint32_t exit_number, Block& target);

  // ---- with the world stopped
  /// Removes the blocks that hold any of these guest-physical bytes (inside one page) and calls `removed` for each,
  /// with its exits still known. Returns how many.
  template <typename Removed>
  unsigned invalidate(std::uint64_t physical, std::uint64_t size, Removed&& removed) {
    unsigned count = 0;
    for (Block* block : overlapping(physical, size)) {
      remove(*block);
      removed(*block);
      ++count;
    }
    return count;
  }
  /// Forgets everything.
  void clear();

  CodePages pages;
  std::uint64_t translated_instructions = 0, translated_blocks = 0, invalidated_blocks = 0;
  [[nodiscard]] std::uint64_t code_bytes() const { return used_; }
  [[nodiscard]] std::uint64_t code_begin() const { return reinterpret_cast<std::uint64_t>(memory_.executable()); }
  [[nodiscard]] std::uint32_t exit_count() const { return exit_count_; }

 private:
  CodeCache(JitMemory memory, std::uint64_t guest_memory_end);
  static std::size_t bucket(std::uint64_t physical, std::uint64_t rip);
  [[nodiscard]] std::vector<Block*> overlapping(std::uint64_t physical, std::uint64_t size) const;
  void remove(Block& block);
  void set_distance(std::uint32_t patch, std::uint32_t target);

  static constexpr std::size_t kBuckets = 1 << 16;
  JitMemory memory_;
  std::uint32_t used_ = 0;
  std::unique_ptr<std::atomic<Block*>[]> buckets_;
  static constexpr std::uint32_t kExitChunk = 4096;  // chunks stay where they are: other CPUs read while one adds
  std::unique_ptr<Exit[]> exits_[kMaxExits / kExitChunk];
  std::uint32_t exit_count_ = 0;
  std::vector<std::unique_ptr<Block>> blocks_;  // in the order of their code
  std::unordered_map<std::uint64_t, std::vector<Block*>> by_page_;
};

}  // namespace vm_platform::soft
