// Translated code: where it lies, which guest memory it came from, and how blocks lead to each other.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>
#include <vm_platform/jit_memory.hpp>

#include "engine/engine.hpp"
#include "engine/soft/code_pages.hpp"
#include "engine/soft/counter.hpp"
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
  std::uint64_t physical = 0;  ///< Of the first byte.
  /// Page of the last bytes, where the last instruction crosses into it. It may be the same page once more.
  std::optional<std::uint64_t> second_page;
  std::uint64_t rip = 0, cs_base = 0;
  Mode mode;
  std::uint32_t code = 0, code_size = 0;  ///< In the code buffer.
  std::uint16_t guest_size = 0, instructions = 0;
  bool valid = true;
  bool kept = true;                    ///< False: of bytes that are not RAM; run once, never found again or led to.
  bool locked = false;                 ///< Checked blocks: an atomic instruction, which no other CPU may see half-done.
  std::atomic<Block*> next = nullptr;  ///< In its hash bucket.
  std::uint32_t first_exit = 0, exits = 0;  ///< Its exits' numbers are consecutive.
  std::vector<std::uint32_t> incoming;      ///< Exits patched, or slots set, to lead here.

  /// Guest-physical memory inside one page.
  struct Part {
    std::uint64_t physical;
    unsigned bytes;  ///< 0: there is no such part.

    [[nodiscard]] std::uint64_t page() const { return physical / 4096; }
    [[nodiscard]] bool overlaps(std::uint64_t begin, std::uint64_t size) const {
      return physical < begin + size && begin < physical + bytes;
    }
  };
  /// What it was translated from.
  [[nodiscard]] std::array<Part, 2> parts() const {
    const auto room = static_cast<unsigned>(4096 - (physical & 4095));
    if (!second_page) return {{{physical, guest_size}, {physical, 0}}};
    return {{{physical, room}, {*second_page, guest_size - room}}};
  }
};

/// One for all CPUs. Lookups are lock-free; everything that changes it needs the world's lock (world.hpp), and what
/// removes blocks needs the world stopped.
class CodeCache {
 public:
  static constexpr std::uint32_t kMaxExits = 1 << 20, kMaxBlockExits = 512;

  /// `mode` forces a way of writing code; otherwise the best that the host allows.
  static Result<std::unique_ptr<CodeCache>> create(std::uint64_t guest_memory_end, std::uint64_t code_bytes,
                                                   std::optional<JitMode> mode);

  // ---- lock-free
  [[nodiscard]] Block* find(std::uint64_t physical, std::uint64_t rip, std::uint64_t cs_base, const Mode& mode) const;
  [[nodiscard]] const std::byte* executable(const Block& block) const { return memory_.executable() + block.code; }
  /// Generated code told the number: that its block was added before is seen by looking at how many there are.
  [[nodiscard]] Exit& exit(std::uint32_t number) {
    static_cast<void>(block_count_.load(std::memory_order_acquire));
    return exits_[number / kExitChunk][number % kExitChunk];
  }
  /// The block that a host address lies in, or null.
  [[nodiscard]] Block* block_at(std::uint64_t host_address) const;

  // ---- with the lock
  /// Where the next block's code is to be written, what its offset in the buffer will be, and how much room there is.
  [[nodiscard]] std::byte* free_code() const { return staging_ ? staging_.get() : memory_.writable() + used_; }
  [[nodiscard]] std::uint32_t free_offset() const { return used_; }
  [[nodiscard]] std::size_t free_bytes() const { return staging_ ? kStagingBytes : memory_.size() - used_; }
  [[nodiscard]] bool nearly_full() const {
    return memory_.size() - used_ < kStagingBytes || exit_count_ + kMaxBlockExits > memory_.size() / kBytesForExit ||
           described_ + kMaxBlockExits > memory_.size() / kBytesForDescribed;
  }
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
  /// Forgets everything: no pointer to a block and no exit's number means anything afterwards.
  void clear();
  /// How often that was done. Whoever waits for the lock, or writes to the guest's memory, looks whether it has changed
  /// before using what is known of blocks.
  [[nodiscard]] std::uint64_t generation() const { return generation_; }

  CodePages pages;
  Counter translated_instructions, translated_blocks, invalidated_blocks;
  [[nodiscard]] std::uint64_t code_bytes() const { return used_; }
  [[nodiscard]] std::span<const std::byte> executable_bytes() const { return {memory_.executable(), memory_.size()}; }
  [[nodiscard]] std::uint64_t code_begin() const { return reinterpret_cast<std::uint64_t>(memory_.executable()); }
  [[nodiscard]] std::uint32_t exit_count() const { return exit_count_; }

 private:
  CodeCache(JitMemory memory, std::uint64_t guest_memory_end);
  static std::size_t bucket(std::uint64_t physical, std::uint64_t rip);
  [[nodiscard]] std::vector<Block*> overlapping(std::uint64_t physical, std::uint64_t size) const;
  void remove(Block& block);
  void write(std::uint32_t offset, std::span<const std::byte> code);
  void set_distance(std::uint32_t patch, std::uint32_t target);

  static constexpr std::size_t kBuckets = 1 << 16;
  static constexpr std::size_t kStagingBytes = 256 * kKiB;  // more than any block takes
  JitMemory memory_;
  std::unique_ptr<std::byte[]> staging_;  // where code cannot be written in place
  std::atomic<std::uint32_t> used_ = 0;
  std::unique_ptr<std::atomic<Block*>[]> buckets_;
  // Exits and blocks are kept in chunks, which stay where they are: other CPUs read while one adds.
  static constexpr std::uint32_t kExitChunk = 4096;
  std::unique_ptr<Exit[]> exits_[kMaxExits / kExitChunk];
  std::uint32_t exit_count_ = 0;
  std::uint32_t described_ = 0;  // exits that hold an instruction
  // What is known of blocks takes memory too (some 300 bytes for an exit and its block, 1.2 KiB for an instruction),
  // and is limited with the code: a guest may have nothing but one-byte instructions for C++.
  static constexpr std::uint64_t kBytesForExit = 48, kBytesForDescribed = 768;
  static_assert(EngineOptions::kMaxCodeBytes / kBytesForExit <= kMaxExits);
  static_assert(EngineOptions::kMinCodeBytes / kBytesForDescribed > 2 * kMaxBlockExits);
  static constexpr std::uint32_t kBlockChunk = 4096, kBlockAlignment = 16;
  [[nodiscard]] std::unique_ptr<Block>& numbered(std::uint32_t number) const {
    return blocks_[number / kBlockChunk][number % kBlockChunk];
  }
  /// In the order of their code.
  std::unique_ptr<std::unique_ptr<Block>[]> blocks_[EngineOptions::kMaxCodeBytes / kBlockAlignment / kBlockChunk];
  std::atomic<std::uint32_t> block_count_ = 0;
  std::unordered_map<std::uint64_t, std::vector<Block*>> by_page_;
  std::uint64_t generation_ = 0;
};

}  // namespace vm_platform::soft
