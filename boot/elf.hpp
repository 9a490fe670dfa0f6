// ELF files as far as boot loaders need them: program headers and notes, of 32- and 64-bit x86 (System V ABI, chapters
// 4 and 5).
#pragma once

#include <optional>
#include <vector>

#include "boot/load_plan.hpp"

namespace vm_platform::boot {

struct ElfSegment {
  static constexpr std::uint32_t kLoad = 1, kNote = 4;
  std::uint32_t type = 0;
  std::uint64_t offset = 0, virtual_address = 0, physical_address = 0, file_size = 0, memory_size = 0;
};

struct ElfImage {
  bool is_64 = false;
  std::uint64_t entry = 0;
  std::vector<ElfSegment> segments = {};

  /// The entry point as a physical address, where it lies in a loaded segment.
  [[nodiscard]] std::optional<std::uint64_t> physical_entry() const noexcept;
};

[[nodiscard]] bool is_elf(const ByteSource& file);
/// Fails with `Unsupported` for another architecture, with `Corrupt` for what cannot be.
[[nodiscard]] Result<ElfImage> read_elf(const ByteSource& file);
/// Puts every loadable segment at its physical address.
[[nodiscard]] Result<void> place_segments(const ElfImage& image, const ByteSource& file, LoadPlan& plan);
/// The first note with this owner and type, at most 64 bytes of it; nothing where there is none.
[[nodiscard]] std::optional<std::vector<std::byte>> find_note(const ElfImage& image, const ByteSource& file,
                                                              std::string_view owner, std::uint32_t type);

}  // namespace vm_platform::boot
