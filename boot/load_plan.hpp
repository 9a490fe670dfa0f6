// What a loader wants to put where, checked as a whole before a byte of the guest's memory changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>
#include <vm_platform/boot.hpp>
#include <vm_platform/core.hpp>

#include "boot/byte_source.hpp"
#include "engine/cpu_state.hpp"

namespace vm_platform::boot {

/// Places for things in guest memory: inside of RAM, and no two over each other.
class LoadPlan {
 public:
  explicit LoadPlan(std::span<const BootMemoryRange> memory_map);

  /// What becomes of the rest where a thing takes more memory than the file has bytes for it.
  enum class Rest : std::uint8_t { Zeros, AsItIs };
  /// `file_size` bytes of `source` from `offset` at `address`, where `memory_size` are taken. `source` outlives this.
  Result<void> place(std::string what, Gpa address, std::uint64_t memory_size, const ByteSource& source,
                     std::uint64_t offset, std::uint64_t file_size, Rest rest = Rest::Zeros);
  Result<void> place(std::string what, Gpa address, std::vector<std::byte> bytes);

  /// The highest (or lowest) place for `size` bytes, on a page boundary, that is RAM from end to end, inside of
  /// [floor, limit), and free. `what` and `advice` go into the error where there is none.
  enum class Search : std::uint8_t { Highest, Lowest };
  [[nodiscard]] Result<Gpa> find(const std::string& what, std::uint64_t size, Gpa floor, Gpa limit,
                                 Search search = Search::Highest) const;

  /// Writes everything into `memory`.
  [[nodiscard]] Result<void> write(const GuestMemory& memory) const;
  [[nodiscard]] std::vector<BootStatus::Placed> placed() const;
  [[nodiscard]] std::uint64_t ram_bytes() const noexcept;

 private:
  struct Item {
    std::string what;
    Gpa address;
    std::uint64_t memory_size = 0;  // taken
    std::uint64_t write_size = 0;   // written: what the source has, or all
    const ByteSource* source = nullptr;
    std::uint64_t offset = 0, file_size = 0;
    std::vector<std::byte> bytes = {};
  };
  struct Range {
    std::uint64_t begin, end;
  };
  Result<void> check(const std::string& what, Gpa address, std::uint64_t size) const;

  std::vector<Range> ram_;  // sorted, joined
  std::vector<Item> items_;
};

/// What a loader found out and decided; `set_cpu` turns the reset state into the one the kernel expects.
struct Boot {
  LoadPlan plan;
  BootMethod method = BootMethod::Auto;
  std::string kernel_version = {};
  Gpa entry = {};
  std::function<void(CpuState&)> set_cpu = {};
};

/// What every loader is given.
struct BootInput {
  const ByteSource* kernel = nullptr;
  struct Module {
    const ByteSource* source;
    std::string command_line;
  };
  std::vector<Module> modules = {};
  std::string command_line = {};
  std::span<const BootMemoryRange> memory_map = {};
  Gpa rsdp = {};
};

/// Little-endian fields at byte offsets, as boot protocols describe them. `at` must be inside, which callers see to
/// with constants or after a check.
template <typename T>
[[nodiscard]] T get(std::span<const std::byte> bytes, std::size_t at) {
  static_assert(std::is_unsigned_v<T>);
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value =
        static_cast<T>(value | static_cast<T>(static_cast<T>(std::to_integer<std::uint8_t>(bytes[at + i])) << (8 * i)));
  return value;
}
template <typename T>
void put(std::span<std::byte> bytes, std::size_t at, T value) {
  static_assert(std::is_unsigned_v<T>);
  for (std::size_t i = 0; i < sizeof(T); ++i) bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
}
/// The text with its terminating zero.
[[nodiscard]] std::vector<std::byte> c_string(std::string_view text);
/// "0x1000000".
[[nodiscard]] std::string hex(std::uint64_t value);
/// "15.2 MiB".
[[nodiscard]] std::string megabytes(std::uint64_t bytes);

}  // namespace vm_platform::boot
