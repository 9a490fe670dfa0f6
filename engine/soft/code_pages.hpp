// Which guest-physical memory holds code that has been translated, to 64 bytes: what a write must not slip past.
#pragma once

#include <cstdint>
#include <memory>

namespace vm_platform::soft {

/// Shared by all CPUs. Reading is lock-free and needs no vector instructions; changes happen with the world stopped.
/// Always inline is what the leaf helpers (page_walk.cpp) call: a copy out of line could be the one that another file
/// was compiled to, with vector instructions or a sanitizer's calls.
class CodePages {
 public:
  static constexpr std::uint64_t kGranule = 64;

  /// For guest-physical addresses below `end`.
  explicit CodePages(std::uint64_t end)
      : pages_((end + 4095) / 4096), granules_(std::make_unique<std::uint64_t[]>(pages_)) {}

  [[nodiscard, gnu::always_inline]] bool has_code(std::uint64_t physical) const noexcept { return mask(physical) != 0; }

  /// Whether any granule touched by `size` bytes (at most 64, inside one page) holds code.
  [[nodiscard, gnu::always_inline]] bool range_has_code(std::uint64_t physical, unsigned size) const noexcept {
    return (mask(physical) & bits(physical, size)) != 0;
  }

  void mark(std::uint64_t physical, unsigned size) noexcept { set(physical, mask(physical) | bits(physical, size)); }
  void assign(std::uint64_t physical, std::uint64_t granules) noexcept { set(physical, granules); }

  /// The granules of one page that [physical, physical + size) touches; `size` may end at the page's end at most.
  [[gnu::always_inline]] static std::uint64_t bits(std::uint64_t physical, unsigned size) noexcept {
    const auto first = static_cast<unsigned>(physical & 4095) / 64;
    const auto last = (static_cast<unsigned>(physical & 4095) + (size == 0 ? 0 : size - 1)) / 64;
    return (last >= 63 ? ~std::uint64_t{0} : (std::uint64_t{2} << last) - 1) & (~std::uint64_t{0} << first);
  }

 private:
  [[nodiscard, gnu::always_inline]] std::uint64_t mask(std::uint64_t physical) const noexcept {
    const std::uint64_t page = physical / 4096;
    return page < pages_ ? __atomic_load_n(&granules_[page], __ATOMIC_RELAXED) : 0;
  }
  void set(std::uint64_t physical, std::uint64_t value) noexcept {
    const std::uint64_t page = physical / 4096;
    if (page < pages_) __atomic_store_n(&granules_[page], value, __ATOMIC_RELAXED);
  }

  std::uint64_t pages_;
  std::unique_ptr<std::uint64_t[]> granules_;
};

}  // namespace vm_platform::soft
