// Moving a file's bytes to a descriptor.
#pragma once

#include <atomic>
#include <vm_platform/core.hpp>

#include "iso/bytes.hpp"

namespace vm_platform::iso {

[[nodiscard]] Result<void> write_all(int descriptor, Bytes bytes);
/// `size` zero bytes: at the end of a file a hole, where the host has such.
[[nodiscard]] Result<void> write_zeros(int descriptor, std::uint64_t size);
/// The same by writing them.
[[nodiscard]] Result<void> write_zero_bytes(int descriptor, std::uint64_t size);
/// Copies without going through this process; returns how much of `size` it could (0 where the host has no such way),
/// less where `stop` was set.
[[nodiscard]] std::uint64_t copy_in_kernel(int from, std::uint64_t offset, std::uint64_t size, int to,
                                           const std::atomic<bool>* stop);
[[nodiscard]] inline bool is_set(const std::atomic<bool>* stop) {
  return stop != nullptr && stop->load(std::memory_order_relaxed);
}

}  // namespace vm_platform::iso
