// Where an image's bytes come from: a file, memory, or either with raw sectors around the user data.
#pragma once

#include <memory>
#include <string>
#include <vm_platform/core.hpp>

#include "iso/bytes.hpp"

namespace vm_platform::iso {

/// Thread-safe.
class Source {
 public:
  virtual ~Source() = default;
  [[nodiscard]] virtual std::uint64_t size() const noexcept = 0;
  /// For messages: the path, or what else it is.
  [[nodiscard]] virtual const std::string& name() const noexcept = 0;
  /// All of `into`, or an error: `Corrupt` where the image ends too early.
  virtual Result<void> read(std::uint64_t offset, std::span<std::byte> into) const = 0;
  /// The bytes without copying, or `Unsupported`.
  virtual Result<Bytes> view(std::uint64_t offset, std::uint64_t size) const = 0;
  /// A descriptor whose offsets are the image's, or -1.
  [[nodiscard]] virtual int descriptor() const noexcept { return -1; }
};

/// Whether [offset, offset + size) lies within `limit` bytes; safe against overflow.
[[nodiscard]] inline bool within(std::uint64_t offset, std::uint64_t size, std::uint64_t limit) {
  return offset <= limit && size <= limit - offset;
}
[[nodiscard]] std::unexpected<VmError> past_end(const Source& source, std::uint64_t offset, std::uint64_t size);

[[nodiscard]] Result<std::unique_ptr<Source>> open_file_source(const std::string& path);
[[nodiscard]] Result<std::unique_ptr<Source>> open_descriptor_source(int descriptor);
[[nodiscard]] std::unique_ptr<Source> make_memory_source(Bytes image);
/// 2048 bytes out of each `sector_size`, from `data_offset` on.
[[nodiscard]] std::unique_ptr<Source> make_raw_sector_source(std::unique_ptr<Source> inner, std::uint32_t sector_size,
                                                             std::uint32_t data_offset);

}  // namespace vm_platform::iso
