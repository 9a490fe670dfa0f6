// Moving a file's bytes to a descriptor.
#pragma once

#include <vm_platform/core.hpp>

#include "iso/bytes.hpp"

namespace vm_platform::iso {

[[nodiscard]] Result<void> write_all(int descriptor, Bytes bytes);
/// Copies without going through this process; returns how much of `size` it could (0 where the host has no such way).
[[nodiscard]] std::uint64_t copy_in_kernel(int from, std::uint64_t offset, std::uint64_t size, int to);

}  // namespace vm_platform::iso
