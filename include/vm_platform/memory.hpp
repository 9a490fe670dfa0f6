// Memory of the host: mappings of every kind, their protection and their residency. Memory for generated code is in
// jit_memory.hpp, which this header includes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// What may be done with the bytes of a mapping; combine with `|`. No call of this library accepts `Write | Execute`
/// together (W^X): generated code lives in `JitMemory`.
enum class MemoryProtection : std::uint8_t {
  None = 0,
  Read = 1,
  Write = 2,
  Execute = 4,
  ReadWrite = Read | Write,
  ReadExecute = Read | Execute,
};
[[nodiscard]] constexpr MemoryProtection operator|(MemoryProtection a, MemoryProtection b) noexcept {
  return static_cast<MemoryProtection>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
[[nodiscard]] constexpr MemoryProtection operator&(MemoryProtection a, MemoryProtection b) noexcept {
  return static_cast<MemoryProtection>(static_cast<unsigned>(a) & static_cast<unsigned>(b));
}
/// Whether `set` allows everything in `wanted`.
[[nodiscard]] constexpr bool allows(MemoryProtection set, MemoryProtection wanted) noexcept {
  return (set & wanted) == wanted;
}
/// "rw-", "r-x", "---", as /proc/PID/maps writes it.
[[nodiscard]] std::string_view to_string(MemoryProtection protection) noexcept;

/// Why memory was refused, finer than `ErrorCode`; a `VmError` carries it in `detail()`:
/// `if (error.detail() == MemoryError::MapLimit)`.
enum class MemoryError : std::uint8_t {
  MapLimit = 1,        ///< The process has as many mappings as `vm.max_map_count` allows.
  AddressSpaceLimit,   ///< RLIMIT_AS or RLIMIT_DATA, or the address space itself, is used up.
  Overcommit,          ///< The host keeps strict accounts of memory (`vm.overcommit_memory=2`) and has none left.
  OutOfMemory,         ///< The host or the cgroup has no memory left.
  LockLimit,           ///< RLIMIT_MEMLOCK (or the working set on Windows) does not allow to lock so much.
  NoHugePages,         ///< The pool of huge pages is empty or absent.
  AddressTaken,        ///< Something is already mapped at the fixed address.
  ExecutableDenied,    ///< The host allows no executable memory (SELinux, hardened kernel, seccomp, Windows ACG).
  Denied,              ///< The system call itself is forbidden (seccomp, a capability that is missing).
  FileShrank,          ///< The file is shorter than its mapping; those bytes no longer exist.
  OutOfRange,          ///< The range is not within the mapping.
  Misaligned,          ///< Not a multiple of the page size (of the mapping).
  WritableExecutable,  ///< Writable and executable at once was asked for.
  FileSizeLimit,       ///< RLIMIT_FSIZE, as the process began with it, does not allow a file or shared memory so large.
  NotAccessible,       ///< Part of the range may not be read or written: not committed, or protected.
};
[[nodiscard]] std::error_code make_error_code(MemoryError error) noexcept;

/// The host's page size in bytes.
[[nodiscard]] std::uint64_t host_page_size() noexcept;

/// Larger pages than `host_page_size()`: fewer TLB misses, given out in larger pieces.
enum class HugePages : std::uint8_t {
  None,         ///< Ordinary pages.
  Transparent,  ///< Asks the kernel to use huge pages where it can (Linux: MADV_HUGEPAGE).
  Explicit,     ///< Pages from the reserved pool (Linux: MAP_HUGETLB; Windows: MEM_LARGE_PAGES). Never swapped.
};

/// Hints on how a range will be used. A host that does not know a hint answers `Unsupported`; nothing breaks.
enum class MemoryAdvice : std::uint8_t {
  Normal,
  Sequential,
  Random,
  WillNeed,
  Cold,         ///< Reclaim these first.
  PageOut,      ///< Reclaim these now.
  HugePages,    ///< As `HugePages::Transparent`, for a range.
  NoHugePages,  ///< Never use huge pages here.
  Mergeable,    ///< Let equal pages be shared (KSM).
  DontDump,     ///< Leave out of core dumps.
  DoDump,
  DontFork,    ///< A forked child does not have this range.
  WipeOnFork,  ///< A forked child sees zeroes here.
};

/// What anonymous memory should be like; every member has a default that fits most uses.
struct MemoryOptions {
  std::uint64_t size = 0;       ///< Bytes, rounded up to the page size; at most 64 TiB.
  std::string name = "memory";  ///< Shown in errors and, for shared memory, in /proc/PID/maps (its first 249 bytes).
  bool shared = false;          ///< Backed by a memfd / section object: can have views and be sent to other processes.
  MemoryProtection protection = MemoryProtection::ReadWrite;
  std::uint64_t alignment = 0;     ///< Of `data()`, a power of two; 0 means the page size.
  void* hint = nullptr;            ///< Preferred `data()`; another one is taken where it is in use.
  void* fixed_address = nullptr;   ///< Exactly here, or the error `AddressTaken`; nothing is ever replaced.
  std::uint64_t guard_before = 0;  ///< Bytes of inaccessible memory directly below `data()`, rounded up to a page.
  std::uint64_t guard_after = 0;   ///< The same directly above the end.
  HugePages huge_pages = HugePages::None;
  std::uint64_t huge_page_size = 0;  ///< For `Explicit`; 0 means the host's default huge page size.
  bool huge_pages_required = false;  ///< Fail rather than fall back to smaller pages.
  int numa_node = -1;                ///< Preferred node for the pages; -1 for the default policy.
  bool reserve_only = false;         ///< Only addresses, no access: `commit()` makes parts usable.
  bool prefault = false;             ///< Back every page with memory now.
  bool write_watch = false;          ///< Windows: prepare for dirty tracking by GetWriteWatch; elsewhere no effect.
};

/// How a file is mapped.
enum class FileAccess : std::uint8_t {
  ReadOnly,  ///< Reads the file; writing through `data()` faults.
  Shared,    ///< Reads and writes the file itself.
  Private,   ///< Writes go to copies of the pages; the file stays as it is.
};

/// Which part of a file to map, and how.
struct FileMappingOptions {
  FileAccess access = FileAccess::ReadOnly;
  std::uint64_t offset = 0;  ///< Into the file; a multiple of the page size (Windows: of 64 KiB).
  std::uint64_t size = 0;    ///< 0 means the rest of the file.
  bool prefault = false;
};

/// A mapping of this process, unmapped by the destructor. Movable, not copyable. The object itself is not synchronised:
/// one thread at a time may call non-const members; the memory is as shared as any memory.
///
/// Offsets are bytes from `data()`; ranges given to `protect`, `discard`, `commit` … must be multiples of
/// `page_size()`, and are refused (never rounded) otherwise. A `size` of 0 means "to the end".
///
/// **SIGBUS**: `data()` of a file mapping is raw memory. Where the file is truncated by somebody after it was mapped,
/// touching the bytes behind its new end kills the process (Linux: SIGBUS; Windows refuses to truncate a mapped file).
/// Use `read_at()` for files that others can change.
class MappedMemory {
 public:
  /// Zero-filled memory of `size` bytes (rounded up to a page), backed by an anonymous memfd that other mappings and
  /// processes can share. `name` shows in /proc/PID/maps. Pages cost nothing until they are touched.
  static Result<MappedMemory> create_shared(std::uint64_t size, const std::string& name);
  /// Zero-filled memory of `size` bytes, private to this process.
  static Result<MappedMemory> create_private(std::uint64_t size);
  /// Zero-filled memory as `options` describe it. Errors carry a `MemoryError` and the fix for it.
  static Result<MappedMemory> create(MemoryOptions options);
  /// Maps the file at `path`. An empty file, or an offset behind its end, is `InvalidArgument`.
  static Result<MappedMemory> open_file(const std::string& path, const FileMappingOptions& options = {});
  /// Maps shared memory or a file that somebody else opened (a memfd received over a socket). The descriptor is
  /// duplicated; the caller keeps its own. Linux only (elsewhere `Unsupported`).
  static Result<MappedMemory> from_descriptor(int descriptor, const FileMappingOptions& options = {});

  MappedMemory() noexcept;
  MappedMemory(MappedMemory&& other) noexcept;
  MappedMemory& operator=(MappedMemory&& other) noexcept;
  ~MappedMemory();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, size_}; }
  /// The memfd or file behind a shared mapping, owned by this object and closed on exec; -1 for private memory and on
  /// Windows.
  [[nodiscard]] int descriptor() const noexcept;
  /// The unit of `protect`, `discard` and so on: the page size, or the huge page size of an `Explicit` mapping.
  [[nodiscard]] std::uint64_t page_size() const noexcept;
  /// Whether other views of the same memory can exist.
  [[nodiscard]] bool shared() const noexcept;
  /// What was obtained, which may be less than what was asked for; `note()` says why.
  [[nodiscard]] HugePages huge_pages() const noexcept;
  /// What was asked for and could not be had (huge pages, NUMA node), for people; empty where all went as asked.
  [[nodiscard]] const std::string& note() const noexcept;

  /// Makes part of a `reserve_only` mapping usable (reads as zeroes). Committing twice changes only the protection.
  Result<void> commit(std::uint64_t offset, std::uint64_t size,
                      MemoryProtection protection = MemoryProtection::ReadWrite);
  /// Gives the memory of a range back and makes it inaccessible; its addresses stay reserved.
  Result<void> decommit(std::uint64_t offset, std::uint64_t size);
  /// Changes what may be done with a range. `Write | Execute` is refused.
  Result<void> protect(std::uint64_t offset, std::uint64_t size, MemoryProtection protection);
  /// Backs every page of the range with memory now, ready to be written where the mapping is writable. A range that may
  /// not be accessed so now is `NotAccessible`; kernels before Linux 5.14 cannot tell, and the access faults.
  Result<void> prefault(std::uint64_t offset = 0, std::uint64_t size = 0);
  /// Gives the pages back to the host: the range reads as zeroes (a private file mapping reads as the file again). For
  /// a `Shared` file this punches a hole into the file itself. On Windows shared memory is zeroed and leaves the
  /// working set, but stays charged: section objects have no holes. What is mapped read-only stays as it is: `Status`.
  Result<void> discard(std::uint64_t offset = 0, std::uint64_t size = 0);
  /// Tells the host how a range will be used.
  Result<void> advise(std::uint64_t offset, std::uint64_t size, MemoryAdvice advice);
  /// Keeps the pages in memory (mlock). Bounded by RLIMIT_MEMLOCK.
  Result<void> lock(std::uint64_t offset = 0, std::uint64_t size = 0);
  Result<void> unlock(std::uint64_t offset = 0, std::uint64_t size = 0);
  /// Writes changed pages of a `Shared` file mapping to the file and waits for it.
  Result<void> flush(std::uint64_t offset = 0, std::uint64_t size = 0);
  /// A second mapping of the same bytes (for private memory: `Status`). It lives on its own: either may go first.
  [[nodiscard]] Result<MappedMemory> view(MemoryProtection protection = MemoryProtection::ReadWrite,
                                          std::uint64_t offset = 0, std::uint64_t size = 0) const;
  /// Changes the size of a shared mapping and of the memfd or file behind it, which is never cut below what others
  /// could still map: only where this mapping reaches its end. New bytes are zero. `data()` may change, protections and
  /// advice of sub-ranges are forgotten, other views keep their size (and must not touch what was cut off). Where it
  /// fails, the mapping is as before. `Unsupported` on Windows: reserve, then commit.
  Result<void> resize(std::uint64_t size);

  /// How many bytes of the range are in memory now (a moment later it may be different).
  [[nodiscard]] Result<std::uint64_t> resident_bytes(std::uint64_t offset = 0, std::uint64_t size = 0) const;
  /// One element per page of the range: whether it is in memory.
  [[nodiscard]] Result<std::vector<bool>> residency(std::uint64_t offset = 0, std::uint64_t size = 0) const;
  /// Copies bytes out. Never faults: where the file behind the mapping shrank, or the range is not readable, it is an
  /// error (`FileShrank`, or `Io`). Costs a system call.
  [[nodiscard]] Result<void> read_at(std::uint64_t offset, std::span<std::byte> into) const;

  struct State;  ///< What the host's implementation keeps; not part of the interface.

 private:
  [[nodiscard]] Result<std::uint64_t> check_range(const char* operation, std::uint64_t offset, std::uint64_t size,
                                                  bool whole_pages = true) const;
  [[nodiscard]] Result<std::uint64_t> check_view(MemoryProtection protection, std::uint64_t offset,
                                                 std::uint64_t size) const;
  static Result<MappedMemory> finish(std::byte* data, std::uint64_t size, std::unique_ptr<State> state, bool prefault);
  void release() noexcept;

  std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
  std::unique_ptr<State> state_;
};

/// No load or store after it is done before a load that stands ahead of it. Free on x86-64, `dmb ishld` on aarch64.
inline void barrier_acquire() noexcept { std::atomic_thread_fence(std::memory_order_acquire); }
/// No load or store ahead of it is done after a store that follows it. Free on x86-64, `dmb ish` on aarch64.
inline void barrier_release() noexcept { std::atomic_thread_fence(std::memory_order_release); }
/// Everything ahead of it is visible to every CPU before anything after it is done; the only one that keeps a load from
/// passing an earlier store. On x86-64 a locked instruction on the stack, an eighth of the price of `mfence`; like
/// every locked instruction it does not order non-temporal stores or `clflushopt`.
inline void barrier_full() noexcept {
#if defined(__x86_64__)
  __asm__ __volatile__("lock; addl $0, -8(%%rsp)" ::: "memory", "cc");
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace vm_platform

template <>
struct std::is_error_code_enum<vm_platform::MemoryError> : std::true_type {};

#include <vm_platform/jit_memory.hpp>  // IWYU pragma: export
