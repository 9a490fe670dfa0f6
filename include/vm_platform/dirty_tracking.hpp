// Which pages of a mapping changed since they were last asked for.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/core.hpp>
#include <vm_platform/memory.hpp>

namespace vm_platform {

/// How changes are noticed, best first.
enum class DirtyMethod : std::uint8_t {
  PagemapScan,   ///< Linux 6.7: the kernel unprotects by itself, one call collects and protects again. No privilege.
  Userfaultfd,   ///< Linux 5.7 (5.19 for shared memory): write-protection faults, taken by a thread of ours.
  WriteWatch,    ///< Windows, memory created with `MemoryOptions::write_watch`.
  ProtectFault,  ///< Any host: mprotect and a fault handler. System calls that write to the memory fail with EFAULT.
                 ///< Only memory that is readable and writable throughout; Linux: where /proc cannot be read,
                 ///< the caller has to see to that.
  SoftDirty,     ///< Linux with CONFIG_MEM_SOFT_DIRTY; only when forced: writers must stand still during `collect`,
                 ///< and a transparent huge page counts as a whole.
};
[[nodiscard]] std::string_view to_string(DirtyMethod method) noexcept;

/// One bit per page: bit `n % 64` of word `n / 64` is page `n`.
struct DirtyPages {
  std::vector<std::uint64_t> words;
  std::uint64_t page_size = 0;
  std::uint64_t count = 0;  ///< Bits set.

  [[nodiscard]] bool test(std::uint64_t page) const {
    return page / 64 < words.size() && (words[page / 64] >> (page % 64) & 1) != 0;
  }
};

struct DirtyTrackingOptions {
  std::optional<DirtyMethod> method = {};  ///< Forces one (tests, measurements); otherwise the best that works.
};

/// Watches a mapping for writes. Writers need not cooperate and are never blocked for longer than a fault.
///
/// What a `collect` reports is every page written between the end of the previous `collect` (or `start`) and its own
/// beginning; pages written while it runs are reported by it or by the next one. More pages than changed may be
/// reported, never fewer: after a `collect` that failed the next one reports all. One thread at a time may call
/// members; the mapping must outlive the tracker and must not be resized, protected or discarded meanwhile. One tracker
/// per mapping. In a forked child `collect` is `Status`, and the memory is ordinary again or faults once per page: the
/// tracker belongs to the process that started it.
class DirtyTracker {
 public:
  /// Begins to watch. `Unsupported`, with the reason for each method, where none works here.
  static Result<DirtyTracker> start(MappedMemory& memory, const DirtyTrackingOptions& options = {});

  DirtyTracker(DirtyTracker&&) noexcept;
  DirtyTracker& operator=(DirtyTracker&&) noexcept;
  ~DirtyTracker();

  [[nodiscard]] DirtyMethod method() const noexcept;
  /// Why better methods were not taken; empty where the best one was.
  [[nodiscard]] const std::string& reason() const noexcept;

  /// The pages written since last time; begins the next round. `pages` is reused to save allocations.
  Result<void> collect(DirtyPages& pages);

  class Backend;

 private:
  DirtyTracker() noexcept;
  std::unique_ptr<Backend> backend_;
  std::string reason_;
};

}  // namespace vm_platform
