// What every host's MappedMemory keeps, and the helpers they share.
#pragma once

#include <memory>
#include <string>
#include <vm_platform/memory.hpp>

namespace vm_platform {

struct MappedMemory::State {
  std::string name;
  std::string note;
  std::byte* base = nullptr;   // with the guard below
  std::uint64_t reserved = 0;  // with both guards
  std::uint64_t page_size = kPageSize;
  std::uint64_t alignment = 0, guard_before = 0, guard_after = 0;
  std::uint64_t file_offset = 0;
  MemoryProtection protection = MemoryProtection::ReadWrite;
  HugePages huge_pages = HugePages::None;
  FileAccess access = FileAccess::Shared;
  bool shared = false;
  bool file = false;
  bool reserve_only = false;
  bool write_watch = false;
  int descriptor = -1;     // Linux: memfd or file
  void* handle = nullptr;  // Windows: section object, and its file
  void* file_handle = nullptr;
  void* guards[2] = {};  // Windows: reserved addresses around a section's view

  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  /// Of a mapping of the file `name`, without what the host keeps of it.
  static std::unique_ptr<State> of_file(const std::string& name, const FileMappingOptions& options);
  /// Of a view of this mapping that begins `offset` further on.
  [[nodiscard]] std::unique_ptr<State> of_view(MemoryProtection view_protection, std::uint64_t offset) const;
};

/// "64 KiB of NAME at 0x7f0000000000", for errors.
std::string describe_range(const std::string& name, std::uint64_t size, const void* address = nullptr);

/// An error of a memory call with the finer code.
VmError memory_error(ErrorCode code, MemoryError detail, std::string operation, std::string subject,
                     std::string reason);

/// Part of the range may not be read, or written where it has to be.
VmError not_accessible(const char* operation, std::string subject, bool write);

/// Sizes, alignment, protection: what no host can do is refused here. Rounds the sizes in `options` up to
/// `page_size`.
Result<void> check_options(MemoryOptions& options, std::uint64_t page_size);

/// How many bytes of a file of `length` bytes to map; what lies behind its end, or begins between multiples of
/// `granularity`, is refused.
Result<std::uint64_t> check_file_range(const std::string& name, const FileMappingOptions& options, std::uint64_t length,
                                       std::uint64_t granularity);

inline constexpr std::uint64_t kLargestMapping = 1ULL << 46;

}  // namespace vm_platform
