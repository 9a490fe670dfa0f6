// Memory for generated code: never writable and executable through one address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// How code gets into memory that is never writable and executable at once.
enum class JitMode : std::uint8_t {
  DualMapping,       ///< Two views of the same pages: written through one, run through the other. The default.
  ProtectionSwitch,  ///< One view; the pages being written lose the right to execute meanwhile.
};

/// What a probe found out about this host, by trying.
struct JitSupport {
  bool dual_mapping = false;
  bool protection_switch = false;
  std::string reason;  ///< Why something is missing, and what to change; empty where nothing is.
};
/// Never fails; the first call takes some ten microseconds. What works and what the host refuses is remembered for the
/// process; what fails for a passing shortage (descriptors, memory, a limit) is tried again at the next call. Any
/// thread.
[[nodiscard]] JitSupport jit_support();

/// What memory for code should be like.
struct JitOptions {
  std::uint64_t size = 0;              ///< Bytes, rounded up to a page.
  const void* near_address = nullptr;  ///< Try to be within 2 GiB of here (see `JitMemory::reaches`).
  std::optional<JitMode> mode = {};    ///< Forces one way; otherwise the best that works at that moment.
  std::string name = "generated-code";
};

/// A piece of a `JitMemory`, handed out by `allocate`.
struct JitBlock {
  std::uint64_t offset = 0;  ///< From `writable()` and `executable()`.
  std::uint64_t size = 0;    ///< Bytes, at least what was asked for.
};

/// How generated code sets up its frame, for stack walks through it.
enum class JitFrame : std::uint8_t {
  Leaf,          ///< Nothing pushed, no calls: the return address is on top.
  FramePointer,  ///< Starts with `push rbp; mov rbp, rsp` (bytes 55 48 89 e5) and ends with `pop rbp; ret` or `leave;
                 ///< ret`.
};

class JitMemory;

/// Access for writing to one range of a `JitMemory`. While it lives, `bytes()` may be written; when it goes, the pages
/// are executable again and the instruction cache has been told. With `ProtectionSwitch`, threads that run into these
/// pages meanwhile wait (in a fault handler), so keep it short, and do not run code of these pages yourself.
class JitWriter {
 public:
  JitWriter(JitWriter&& other) noexcept;
  JitWriter& operator=(JitWriter&&) = delete;
  ~JitWriter();
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  friend class JitMemory;
  JitWriter(const JitMemory* memory, std::uint64_t offset, std::span<std::byte> bytes)
      : memory_(memory), offset_(offset), bytes_(bytes) {}
  const JitMemory* memory_;
  std::uint64_t offset_;
  std::span<std::byte> bytes_;
};

/// Memory for generated code (W^X always). All const members may be called from several threads at once. Do not move
/// it while a `JitWriter` of it lives.
///
/// With `DualMapping` code may be written straight through `writable()`; call `flush_instruction_cache` afterwards
/// (nothing on x86-64, needed on aarch64). `write` and `store` work in both modes: a code generator that writes into
/// `write(offset, size)->bytes()` and patches with `store` needs to know neither.
///
/// Not across `fork`: with `DualMapping` parent and child have the same pages, and what one writes the other runs. A
/// child may run code that its parent leaves alone; to generate code it creates a memory of its own.
class JitMemory {
 public:
  /// Reserves `size` bytes. Fails with `Unsupported` (detail `MemoryError::ExecutableDenied`) where the host allows no
  /// executable memory, or not in the mode that is forced; else with what was short, as `MappedMemory::create` does.
  /// `DualMapping` counts against RLIMIT_FSIZE, as a file would.
  static Result<JitMemory> create(std::uint64_t size);
  static Result<JitMemory> create(const JitOptions& options);

  JitMemory(JitMemory&&) noexcept;
  JitMemory& operator=(JitMemory&&) noexcept;
  ~JitMemory();

  /// Where to write; with `ProtectionSwitch` the same address as `executable()`, and only while a `JitWriter` lives.
  [[nodiscard]] std::byte* writable() const noexcept { return writable_; }
  [[nodiscard]] const std::byte* executable() const noexcept { return executable_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] JitMode mode() const noexcept;
  /// Whether a 32-bit relative call from anywhere in this memory reaches `address`, and the other way round.
  [[nodiscard]] bool reaches(const void* address) const noexcept;

  /// A block of at least `size` bytes, aligned to `alignment` (a power of two up to a page): the best fit among what is
  /// free. `OutOfMemory` where no free stretch is long enough.
  [[nodiscard]] Result<JitBlock> allocate(std::uint64_t size, std::uint64_t alignment = 16) const;
  /// Gives a block back; neighbours that are free join. The caller makes sure that no thread runs it any more.
  /// `InvalidArgument` for anything that is not a block handed out before.
  Result<void> free(JitBlock block) const;
  /// Bytes in blocks that are handed out.
  [[nodiscard]] std::uint64_t allocated_bytes() const;
  /// Bytes in the longest stretch that is free.
  [[nodiscard]] std::uint64_t largest_free() const;

  /// Opens a range for writing.
  [[nodiscard]] Result<JitWriter> write(std::uint64_t offset, std::uint64_t size) const;
  /// Writes `code` at `offset` and makes it ready to run.
  Result<void> store(std::uint64_t offset, std::span<const std::byte> code) const;

  /// Tells the host's unwinder how to walk through a block (Windows: RtlAddFunctionTable, so that exceptions and
  /// debuggers pass through generated code). Forgotten with the block or the memory. `Unsupported` elsewhere, where
  /// nothing in this platform unwinds through generated code.
  Result<void> register_unwind(JitBlock block, JitFrame frame) const;

 private:
  friend class JitWriter;
  struct State;
  JitMemory() noexcept;
  [[nodiscard]] bool holds(std::uint64_t offset, std::uint64_t size) const noexcept;
  void end_write(std::uint64_t offset, std::uint64_t size) const noexcept;
  void close_pages(std::uint64_t first, std::uint64_t end) const noexcept;

  std::byte* writable_ = nullptr;
  std::byte* executable_ = nullptr;
  std::uint64_t size_ = 0;
  std::unique_ptr<State> state_;
};

/// Makes instructions just written visible to instruction fetch on every CPU. `executable` is where they run; where
/// they were written through another address, give that too. Nothing on x86-64; on aarch64 cleans and invalidates by
/// the smallest cache line of any core (big.LITTLE clusters differ).
void flush_instruction_cache(const void* executable, std::uint64_t size, const void* written = nullptr) noexcept;

/// Makes every other running thread of this process pass a point that serialises its instruction stream, so that none
/// runs bytes it fetched before (Linux: membarrier SYNC_CORE; Windows: FlushProcessWriteBuffers). Needed after code
/// that another thread may be running was changed. `Unsupported` on kernels without it.
Result<void> synchronize_cores() noexcept;

}  // namespace vm_platform
