// JitMemory on every host: the choice of mode, the books of blocks, and who writes where.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vm_platform/memory.hpp>
#include <vm_platform/signals.hpp>

#include "os/jit_host.hpp"
#include "os/mapping.hpp"
#include "os/range_allocator.hpp"

namespace vm_platform {

namespace {
struct UnwindRecord {
  std::unique_ptr<jit_host::Unwind> record;
  JitBlock description;
};
}  // namespace

struct JitMemory::State {
  State(JitMode m, std::uint64_t size)
      : mode(m), blocks(size), writers(m == JitMode::ProtectionSwitch ? size / host_page_size() : 0) {}

  const JitMode mode;
  std::string name;
  mutable std::mutex mutex;  // blocks, unwind
  RangeAllocator blocks;
  std::unordered_map<std::uint64_t, UnwindRecord> unwind;  // by block offset
  std::mutex writing;                                      // writers; held while pages switch
  std::vector<std::atomic<std::uint32_t>> writers;         // per page: how many write to it
  std::atomic<bool> broken = false;                        // a page could not be made executable again
  const std::byte* executable = nullptr;
  SignalHandler waiting;  // last: gone first

  /// A thread ran into a page that is being written (ProtectionSwitch): it waits here, in its fault handler, and then
  /// runs the instruction again.
  static FaultAction wait_for_writer(Fault& fault, void* user) noexcept {
    const auto& state = *static_cast<const State*>(user);
    if (fault.access() == FaultAccess::Read || fault.access() == FaultAccess::Write) return FaultAction::Pass;
    const auto page = (fault.address() - reinterpret_cast<std::uintptr_t>(state.executable)) / host_page_size();
    while (state.writers[page].load(std::memory_order_acquire) != 0 && !state.broken) std::this_thread::yield();
    return state.broken ? FaultAction::Pass : FaultAction::Resume;
  }
};

namespace {

/// What trying each way gave. A way that is neither there nor refused failed for want of something that may be there
/// later: descriptors, memory, a limit.
struct Probe {
  JitSupport support;
  bool dual_mapping_refused = false, protection_switch_refused = false;

  [[nodiscard]] bool settled() const {
    return (support.dual_mapping || dual_mapping_refused) && (support.protection_switch || protection_switch_refused);
  }
};

bool is_refusal(const VmError& error) {
  return error.code() == ErrorCode::Unsupported || error.detail() == make_error_code(MemoryError::ExecutableDenied) ||
         error.detail() == make_error_code(MemoryError::Denied);
}

/// Each way is tried with one page; nothing is run, the host refuses the mapping where it refuses at all.
Probe try_each_way() {
  Probe probe;
  const std::uint64_t page = host_page_size();
  const auto attempt = [&](JitMode mode, bool& refused) {
    auto pages = jit_host::map(mode, page, nullptr, "jit-probe");
    Result<void> works;
    if (!pages) {
      works = fail(pages.error());
    } else {
      if (mode == JitMode::ProtectionSwitch) {
        works = jit_host::make_writable(pages->writable, page);
        if (works) works = jit_host::make_executable(pages->writable, page);
      }
      jit_host::unmap(*pages, page);
    }
    if (works) return true;
    refused = is_refusal(works.error());
    probe.support.reason += (probe.support.reason.empty() ? "" : "; ") + works.error().message();
    return false;
  };
  probe.support.dual_mapping = attempt(JitMode::DualMapping, probe.dual_mapping_refused);
  probe.support.protection_switch = attempt(JitMode::ProtectionSwitch, probe.protection_switch_refused);
  return probe;
}

/// Tried until it is settled, and then remembered.
Probe probe() {
  static std::mutex mutex;
  static std::optional<Probe> settled;
  const std::lock_guard lock(mutex);
  if (settled) return *settled;
  Probe now = try_each_way();
  if (now.settled()) settled = now;
  return now;
}

}  // namespace

JitSupport jit_support() { return probe().support; }

Result<JitMemory> JitMemory::create(std::uint64_t size) { return create(JitOptions{.size = size}); }

Result<JitMemory> JitMemory::create(const JitOptions& options) {
  const std::string subject = std::to_string(options.size) + " bytes of " + options.name;
  if (options.size == 0 || options.size > kLargestMapping)
    return fail(ErrorCode::InvalidArgument, "map executable memory", subject, "size");
  const auto& [support, dual_mapping_refused, protection_switch_refused] = probe();
  JitMode mode = JitMode::DualMapping;
  if (options.mode) {
    mode = *options.mode;
  } else if (!support.dual_mapping && support.protection_switch) {
    mode = JitMode::ProtectionSwitch;
  }
  if (mode == JitMode::DualMapping ? dual_mapping_refused : protection_switch_refused) {
    return fail(memory_error(ErrorCode::Unsupported, MemoryError::ExecutableDenied, "map executable memory", subject,
                             support.reason));
  }
  const std::uint64_t size = round_up(options.size, host_page_size());
  const auto pages = jit_host::map(mode, size, options.near_address, options.name);
  if (!pages) return fail(pages.error());
  JitMemory memory;
  memory.writable_ = pages->writable;
  memory.executable_ = pages->executable;
  memory.size_ = size;
  memory.state_ = std::make_unique<State>(mode, size);
  memory.state_->name = options.name;
  memory.state_->executable = memory.executable_;
  if (mode == JitMode::ProtectionSwitch) {
    auto handler = register_sigsegv_handler({memory.executable_, size}, &State::wait_for_writer, memory.state_.get());
    if (!handler) return fail(handler.error());
    memory.state_->waiting = std::move(*handler);
  }
  return memory;
}

JitMemory::JitMemory() noexcept = default;
JitMemory::JitMemory(JitMemory&& other) noexcept
    : writable_(std::exchange(other.writable_, nullptr)),
      executable_(std::exchange(other.executable_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      state_(std::move(other.state_)) {}
JitMemory& JitMemory::operator=(JitMemory&& other) noexcept {
  std::swap(writable_, other.writable_);
  std::swap(executable_, other.executable_);
  std::swap(size_, other.size_);
  std::swap(state_, other.state_);
  return *this;
}
JitMemory::~JitMemory() {
  if (executable_ == nullptr) return;
  state_.reset();  // the unwind records first
  jit_host::unmap({writable_, executable_}, size_);
}

JitMode JitMemory::mode() const noexcept { return state_ ? state_->mode : JitMode::DualMapping; }

bool JitMemory::reaches(const void* address) const noexcept {
  const auto target = reinterpret_cast<std::uintptr_t>(address);
  const auto first = reinterpret_cast<std::uintptr_t>(executable_);
  const auto last = first + size_;
  const std::uint64_t distance = std::max(target > first ? target - first : first - target,  //
                                          target > last ? target - last : last - target);
  return distance < (1ULL << 31);
}

Result<JitBlock> JitMemory::allocate(std::uint64_t size, std::uint64_t alignment) const {
  if (size == 0 || size > size_ || !std::has_single_bit(alignment) || alignment > host_page_size()) {
    return fail(ErrorCode::InvalidArgument, "allocate code",
                std::to_string(size) + " bytes aligned to " + std::to_string(alignment));
  }
  // Sixteen bytes is what processors like to jump to, and keeps the pieces few.
  const std::uint64_t rounded = round_up(size, 16);
  const std::lock_guard lock(state_->mutex);
  const auto offset = state_->blocks.allocate(rounded, std::max<std::uint64_t>(alignment, 16));
  if (!offset) {
    return fail(ErrorCode::OutOfMemory, "allocate code", std::to_string(size) + " bytes of " + state_->name,
                "the longest free stretch has " + std::to_string(state_->blocks.largest_free()) + " bytes");
  }
  return JitBlock{*offset, rounded};
}

Result<void> JitMemory::free(JitBlock block) const {
  const std::lock_guard lock(state_->mutex);
  if (auto known = state_->unwind.extract(block.offset)) {
    known.mapped().record.reset();
    if (known.mapped().description.size != 0) state_->blocks.free(known.mapped().description.offset);
  }
  if (state_->blocks.free(block.offset)) return {};
  return fail(ErrorCode::InvalidArgument, "free code", state_->name + " + " + std::to_string(block.offset),
              "no block begins there");
}

std::uint64_t JitMemory::allocated_bytes() const {
  const std::lock_guard lock(state_->mutex);
  return state_->blocks.allocated();
}

std::uint64_t JitMemory::largest_free() const {
  const std::lock_guard lock(state_->mutex);
  return state_->blocks.largest_free();
}

bool JitMemory::holds(std::uint64_t offset, std::uint64_t size) const noexcept {
  return size != 0 && offset <= size_ && size <= size_ - offset;
}

namespace {
VmError outside(std::uint64_t offset, std::uint64_t size) {
  return memory_error(ErrorCode::InvalidArgument, MemoryError::OutOfRange, "write code",
                      std::to_string(size) + " bytes at " + std::to_string(offset), "not within the memory");
}
}  // namespace

Result<JitWriter> JitMemory::write(std::uint64_t offset, std::uint64_t size) const {
  if (!holds(offset, size)) return fail(outside(offset, size));
  if (state_->mode == JitMode::ProtectionSwitch) {
    const std::uint64_t page = host_page_size();
    const std::lock_guard lock(state_->writing);
    const std::uint64_t first = offset / page, last = (offset + size - 1) / page;
    // Only the pages nobody has open yet are switched; usually all of them, in one call. They are counted first: a
    // thread that runs into one meanwhile must find somebody to wait for.
    for (std::uint64_t at = first; at <= last;) {
      std::uint64_t end = at;
      for (; end <= last && state_->writers[end] == 0; ++end) state_->writers[end] = 1;
      if (end != at) {
        if (auto done = jit_host::make_writable(writable_ + at * page, (end - at) * page); !done) {
          close_pages(first, end);
          return fail(done.error());
        }
      }
      for (at = end; at <= last && state_->writers[at] != 0; ++at) ++state_->writers[at];
    }
  }
  return JitWriter(this, offset, {writable_ + offset, size});
}

void JitMemory::close_pages(std::uint64_t first, std::uint64_t end) const noexcept {
  const std::uint64_t page = host_page_size();
  for (std::uint64_t at = first; at < end;) {
    std::uint64_t stop = at;
    while (stop < end && state_->writers[stop] == 1) ++stop;
    if (stop != at && !jit_host::make_executable(writable_ + at * page, (stop - at) * page)) state_->broken = true;
    for (; at < stop; ++at) state_->writers[at] = 0;
    for (; at < end && state_->writers[at] > 1; ++at) --state_->writers[at];
  }
}

void JitMemory::end_write(std::uint64_t offset, std::uint64_t size) const noexcept {
  if (state_->mode == JitMode::ProtectionSwitch) {
    const std::uint64_t page = host_page_size();
    const std::lock_guard lock(state_->writing);
    flush_instruction_cache(executable_ + offset, size, writable_ + offset);
    close_pages(offset / page, (offset + size - 1) / page + 1);
    return;
  }
  flush_instruction_cache(executable_ + offset, size, writable_ + offset);
}

Result<void> JitMemory::store(std::uint64_t offset, std::span<const std::byte> code) const {
  if (state_->mode == JitMode::DualMapping) {  // nothing to open and close: a copy is all, and as quick as one
    if (!holds(offset, code.size())) return fail(outside(offset, code.size()));
    std::memcpy(writable_ + offset, code.data(), code.size());
    flush_instruction_cache(executable_ + offset, code.size(), writable_ + offset);
    return {};
  }
  const auto writer = write(offset, code.size());
  if (!writer) return fail(writer.error());
  std::memcpy(writer->bytes().data(), code.data(), code.size());
  return {};
}

Result<void> JitMemory::register_unwind(JitBlock block, JitFrame frame) const {
  if (!holds(block.offset, block.size))
    return fail(ErrorCode::InvalidArgument, "register unwind information", state_->name, "no such block");
  JitBlock description;
  if (jit_host::Unwind::kDescriptionSize != 0) {
    const auto room = allocate(jit_host::Unwind::kDescriptionSize);
    if (!room) return fail(room.error());
    description = *room;
  }
  auto record = jit_host::Unwind::create(*this, block, frame, description);
  const std::lock_guard lock(state_->mutex);
  if (!record) {
    if (description.size != 0) state_->blocks.free(description.offset);
    return fail(record.error());
  }
  state_->unwind[block.offset] = UnwindRecord{std::move(*record), description};
  return {};
}

JitWriter::JitWriter(JitWriter&& other) noexcept
    : memory_(std::exchange(other.memory_, nullptr)), offset_(other.offset_), bytes_(other.bytes_) {}
JitWriter::~JitWriter() {
  if (memory_ != nullptr) memory_->end_write(offset_, bytes_.size());
}

}  // namespace vm_platform
