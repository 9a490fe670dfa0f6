#include "engine/soft/code_cache.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <ranges>

namespace vm_platform::soft {

Result<std::unique_ptr<CodeCache>> CodeCache::create(std::uint64_t guest_memory_end, std::uint64_t code_bytes,
                                                     std::optional<JitMode> mode) {
  if (code_bytes < EngineOptions::kMinCodeBytes || code_bytes > EngineOptions::kMaxCodeBytes) {
    return fail(VmError(ErrorCode::InvalidArgument, "create code cache", std::to_string(code_bytes) + " bytes",
                        "not a usable size")
                    .with_hint("give 1M to 48M"));
  }
  auto memory = JitMemory::create({.size = code_bytes, .mode = mode, .name = "translated-code"});
  if (!memory) return fail(memory.error());
  return std::unique_ptr<CodeCache>(new CodeCache(std::move(*memory), guest_memory_end));
}

CodeCache::CodeCache(JitMemory memory, std::uint64_t guest_memory_end)
    : pages(guest_memory_end),
      memory_(std::move(memory)),
      staging_(memory_.mode() == JitMode::DualMapping ? nullptr : std::make_unique<std::byte[]>(kStagingBytes)),
      buckets_(std::make_unique<std::atomic<Block*>[]>(kBuckets)) {}

std::size_t CodeCache::bucket(std::uint64_t physical, std::uint64_t rip) {
  return ((physical ^ (rip << 7)) * 0x9e3779b97f4a7c15ULL) >> 48;
}

Block* CodeCache::find(std::uint64_t physical, std::uint64_t rip, std::uint64_t cs_base, const Mode& mode) const {
  for (Block* block = buckets_[bucket(physical, rip)].load(std::memory_order_acquire); block != nullptr;
       block = block->next.load(std::memory_order_acquire)) {
    if (block->physical == physical && block->rip == rip && block->cs_base == cs_base && block->mode == mode)
      return block;
  }
  return nullptr;
}

Block* CodeCache::block_at(std::uint64_t host_address) const {
  const std::uint64_t offset = host_address - code_begin();
  const std::uint32_t count = block_count_.load(std::memory_order_acquire);
  const auto numbers = std::views::iota(std::uint32_t{0}, count);
  const auto after =
      std::ranges::upper_bound(numbers, offset, {}, [this](std::uint32_t number) { return numbered(number)->code; });
  if (after == numbers.begin()) return nullptr;
  Block* found = numbered(*(after - 1)).get();
  return offset - found->code < found->code_size ? found : nullptr;
}

std::uint32_t CodeCache::add_exit(Exit exit) {
  auto& chunk = exits_[exit_count_ / kExitChunk];
  if (chunk == nullptr) chunk = std::make_unique<Exit[]>(kExitChunk);
  if (exit.instruction) ++described_;
  chunk[exit_count_ % kExitChunk] = std::move(exit);
  return exit_count_++;
}

Block* CodeCache::add(std::unique_ptr<Block> owned) {
  Block* block = owned.get();
  if (staging_) write(used_, {staging_.get(), block->code_size});
  used_ = static_cast<std::uint32_t>(round_up(used_ + block->code_size, kBlockAlignment));
  translated_instructions += block->instructions;
  ++translated_blocks;
  const std::uint32_t number = block_count_;
  auto& chunk = blocks_[number / kBlockChunk];
  if (chunk == nullptr) chunk = std::make_unique<std::unique_ptr<Block>[]>(kBlockChunk);
  chunk[number % kBlockChunk] = std::move(owned);
  block_count_.store(number + 1, std::memory_order_release);
  if (!block->kept) return block;
  const auto& [first, second] = block->parts();
  by_page_[first.page()].push_back(block);
  pages.mark(first.physical, first.bytes);
  if (second.bytes != 0) {
    if (second.page() != first.page()) by_page_[second.page()].push_back(block);
    pages.mark(second.physical, second.bytes);
  }
  std::atomic<Block*>& head = buckets_[bucket(block->physical, block->rip)];
  block->next.store(head.load(std::memory_order_relaxed), std::memory_order_relaxed);
  head.store(block, std::memory_order_release);
  return block;
}

void CodeCache::write(std::uint32_t offset, std::span<const std::byte> code) {
  // Threads that run into the pages meanwhile wait in the fault handler of JitMemory.
  if (auto stored = memory_.store(offset, code); !stored) throw VmError(stored.error());
}

void CodeCache::set_distance(std::uint32_t patch, std::uint32_t target) {
  // Aligned, so one store: a CPU running through it sees the old target or the new one.
  const std::uint32_t distance = target - (patch + 4);
  if (staging_) return write(patch, std::as_bytes(std::span(&distance, 1)));
  __atomic_store_n(reinterpret_cast<std::uint32_t*>(memory_.writable() + patch), distance, __ATOMIC_RELEASE);
}

void CodeCache::link(std::uint32_t exit_number, Block& target) {
  Exit& exit = this->exit(exit_number);
  exit.to = &target;
  target.incoming.push_back(exit_number);
  set_distance(exit.patch, target.code);
}

std::vector<Block*> CodeCache::overlapping(std::uint64_t physical, std::uint64_t size) const {
  std::vector<Block*> found;
  const auto page = by_page_.find(physical / 4096);
  if (page == by_page_.end()) return found;
  std::ranges::copy_if(page->second, std::back_inserter(found), [&](const Block* block) {
    return std::ranges::any_of(block->parts(), [&](const Block::Part& part) { return part.overlaps(physical, size); });
  });
  return found;
}

void CodeCache::remove(Block& block) {
  ++invalidated_blocks;
  block.valid = false;
  std::atomic<Block*>* link = &buckets_[bucket(block.physical, block.rip)];
  while (link->load() != &block) link = &link->load()->next;
  link->store(block.next.load());

  for (const Block::Part& gone : block.parts()) {
    const auto entry = by_page_.find(gone.page());
    if (gone.bytes == 0 || entry == by_page_.end()) continue;
    std::erase(entry->second, &block);
    std::uint64_t granules = 0;
    for (const Block* other : entry->second) {
      for (const Block::Part& part : other->parts())
        if (part.bytes != 0 && part.page() == gone.page()) granules |= CodePages::bits(part.physical, part.bytes);
    }
    pages.assign(gone.page() * 4096, granules);
    if (entry->second.empty()) by_page_.erase(entry);
  }
  for (const std::uint32_t number : block.incoming) {
    Exit& exit = this->exit(number);
    if (exit.kind != Exit::Kind::SamePage || exit.to != &block) continue;
    exit.to = nullptr;
    set_distance(exit.patch, exit.stub);
  }
  for (std::uint32_t number = block.first_exit; number < block.first_exit + block.exits; ++number) {
    Exit& exit = this->exit(number);
    if (exit.to != nullptr) std::erase(exit.to->incoming, number);
    exit.to = nullptr;
  }
}

void CodeCache::clear() {
  for (std::size_t i = 0; i < kBuckets; ++i) buckets_[i].store(nullptr, std::memory_order_relaxed);
  for (const auto& [page, blocks] : by_page_) pages.assign(page * 4096, 0);
  by_page_.clear();
  for (std::uint32_t number = 0; number < block_count_; ++number) numbered(number).reset();
  block_count_ = 0;
  for (std::uint32_t number = 0; number < exit_count_; ++number) exit(number) = Exit{};
  exit_count_ = described_ = 0;
  used_ = 0;
  ++generation_;
}

}  // namespace vm_platform::soft
