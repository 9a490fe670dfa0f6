// userfaultfd as far as dirty tracking needs it, including what Debian 12's headers do not have yet.
#pragma once

#include <linux/userfaultfd.h>

#include <cstdint>
#include <span>
#include <vm_platform/core.hpp>

#include "os/linux/descriptor.hpp"

namespace vm_platform::uffd {

inline constexpr std::uint64_t kFeatureWpHugetlbfsShmem = 1ULL << 12;  // Linux 5.19
inline constexpr std::uint64_t kFeatureWpUnpopulated = 1ULL << 13;     // Linux 6.4
inline constexpr std::uint64_t kFeatureWpAsync = 1ULL << 15;           // Linux 6.7

/// What the kernel offers; 0 where there is no userfaultfd for this process.
std::uint64_t features();

/// A userfaultfd with exactly these features, closed on exec. One for asynchronous write protection needs no privilege.
Result<Descriptor> open(std::uint64_t wanted);

/// Registers for write protection.
Result<void> watch(const Descriptor& uffd, std::span<std::byte> range);
/// Takes that back. Closing does so too, but not while a forked child has a copy of the descriptor.
void unwatch(const Descriptor& uffd, std::span<std::byte> range);
/// Takes the right to write away, or gives it back (and wakes who waits for it).
Result<void> protect(const Descriptor& uffd, const std::byte* from, std::uint64_t size, bool on);

}  // namespace vm_platform::uffd
