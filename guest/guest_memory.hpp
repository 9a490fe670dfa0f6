// The guest's RAM as the host sees it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>
#include <vm_platform/core.hpp>
#include <vm_platform/memory.hpp>

namespace vm_platform {

/// Told of writes to guest RAM that do not come from a vCPU (devices, loaders), so that an engine can drop what it
/// derived from the old contents. Called after the write, on the writer's thread.
class GuestWriteObserver {
 public:
  virtual ~GuestWriteObserver() = default;
  virtual void guest_memory_written(Gpa address, std::uint64_t size) = 0;
};

/// RAM of an x86 machine: below `kLowRamEnd` from 0, the rest from 4 GiB, so that the hole keeps room for devices.
/// One memfd; thread-safe in so far as RAM is (no locks; concurrent accesses race as they do on hardware).
class GuestMemory {
 public:
  static constexpr std::uint64_t kLowRamEnd = 3 * kGiB;
  static constexpr std::uint64_t kHighRamStart = 4 * kGiB;

  struct Region {
    Gpa base;
    std::uint64_t size;
    std::byte* host;
  };

  /// `size` is rounded up to a page. Fails with `InvalidArgument` below 1 MiB and above 64 TiB.
  static Result<GuestMemory> create(std::uint64_t size);

  [[nodiscard]] std::uint64_t size() const noexcept { return memory_.size(); }
  [[nodiscard]] std::span<const Region> regions() const noexcept { return {regions_, region_count_}; }

  /// The host address of `[address, address + size)`, or null where that is not RAM from end to end.
  [[nodiscard]] std::byte* host(Gpa address, std::uint64_t size) const noexcept {
    for (const Region& region : regions()) {
      const std::uint64_t offset = address.value - region.base.value;
      if (address >= region.base && offset < region.size && size <= region.size - offset) return region.host + offset;
    }
    return nullptr;
  }

  /// Copies out of or into RAM; false (and nothing copied) where the range is not RAM. `write` tells the observer.
  [[nodiscard]] bool read(Gpa address, std::span<std::byte> out) const noexcept;
  [[nodiscard]] bool write(Gpa address, std::span<const std::byte> in) const;

  /// One observer at most; set before the guest runs.
  void set_write_observer(GuestWriteObserver* observer) noexcept { observer_ = observer; }

 private:
  MappedMemory memory_;
  Region regions_[2] = {};
  std::size_t region_count_ = 0;
  GuestWriteObserver* observer_ = nullptr;
};

}  // namespace vm_platform
