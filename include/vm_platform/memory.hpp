// Memory of the host: mappings, and memory for generated code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// A mapping of this process, unmapped by the destructor. Movable, not copyable.
class MappedMemory {
 public:
  /// Zero-filled memory of `size` bytes (rounded up to a page), backed by an anonymous memfd that other mappings and
  /// processes can share. `name` shows in /proc/PID/maps. Pages cost nothing until they are touched.
  static Result<MappedMemory> create_shared(std::uint64_t size, const std::string& name);
  /// Zero-filled memory of `size` bytes, private to this process.
  static Result<MappedMemory> create_private(std::uint64_t size);

  MappedMemory() = default;
  MappedMemory(MappedMemory&& other) noexcept;
  MappedMemory& operator=(MappedMemory&& other) noexcept;
  ~MappedMemory();

  [[nodiscard]] std::byte* data() const noexcept { return data_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return {data_, size_}; }
  /// The memfd behind a shared mapping, owned by this object; -1 for a private one.
  [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

 private:
  std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
  int descriptor_ = -1;
};

/// Memory for generated code: never writable and executable through one address (W^X). Code is written through
/// `writable()` and run through `executable()`, two views of the same pages.
class JitMemory {
 public:
  /// Reserves `size` bytes. Fails with `Unsupported` where the host allows no executable memory.
  static Result<JitMemory> create(std::uint64_t size);

  JitMemory(JitMemory&&) noexcept;
  JitMemory& operator=(JitMemory&&) noexcept;
  ~JitMemory();

  [[nodiscard]] std::byte* writable() const noexcept { return writable_; }
  [[nodiscard]] const std::byte* executable() const noexcept { return executable_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

 private:
  JitMemory() = default;
  std::byte* writable_ = nullptr;
  std::byte* executable_ = nullptr;
  std::uint64_t size_ = 0;
};

}  // namespace vm_platform
