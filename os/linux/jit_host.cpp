#include "os/jit_host.hpp"

#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <optional>

#include "os/linux/descriptor.hpp"
#include "os/linux/memory_failure.hpp"
#include "os/linux/place.hpp"
#include "os/mapping.hpp"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

namespace vm_platform {
namespace jit_host {
namespace {

/// The free address closest to `near_address` that has room, so that 32-bit displacements reach; a hint only.
void* free_address_near(const void* near_address, std::uint64_t size) {
  if (near_address == nullptr) return nullptr;
  std::FILE* maps = std::fopen("/proc/self/maps", "re");
  if (maps == nullptr) return nullptr;
  const auto target = reinterpret_cast<std::uintptr_t>(near_address);
  std::uint64_t best = 0, best_distance = 1ULL << 31, previous_end = 16 * kMiB;
  const auto consider = [&](std::uint64_t low, std::uint64_t high) {  // a gap
    // Keep a little away from the neighbours: the heap grows, and stacks want their gap.
    low += kMiB;
    if (high < low + kMiB + size) return;
    high -= kMiB + size;
    const std::uint64_t at = round_down(std::clamp<std::uint64_t>(target, low, high), kPageSize);
    if (at < low) return;
    const std::uint64_t distance = std::max(at > target ? at - target : target - at,  //
                                            at + size > target ? at + size - target : target - at - size);
    if (distance < best_distance) {
      best_distance = distance;
      best = at;
    }
  };
  char line[512];
  while (std::fgets(line, sizeof line, maps) != nullptr) {
    std::uint64_t start = 0, end = 0;
    if (std::sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) != 2) continue;
    if (start > previous_end) consider(previous_end, start);
    previous_end = std::max(previous_end, end);
    if (end >= 1ULL << 47) break;
  }
  std::fclose(maps);
  return reinterpret_cast<void*>(best);
}

}  // namespace

Result<Pages> map(JitMode mode, std::uint64_t size, const void* near_address, const std::string& name) {
  void* hint = free_address_near(near_address, size);
  if (mode == JitMode::ProtectionSwitch) {
    const auto placed = place({.name = name,
                               .size = size,
                               .protection = MemoryProtection::ReadExecute,
                               .flags = MAP_PRIVATE | MAP_ANONYMOUS,
                               .hint = hint});
    if (!placed) return fail(placed.error());
    return Pages{placed->data, placed->data};
  }
  Descriptor memfd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_EXEC));
  if (!memfd && errno == EINVAL) memfd = Descriptor(::memfd_create(name.c_str(), MFD_CLOEXEC));  // before Linux 6.3
  if (!memfd) return fail(memory_failure(MemoryCall::Memfd, errno, "memfd_create", name));
  if (const int error = set_file_size(memfd.get(), size); error != 0)
    return fail(memory_failure(MemoryCall::Memfd, error, "ftruncate", describe_range(name, size)));
  const auto executable = place({.name = name,
                                 .size = size,
                                 .protection = MemoryProtection::ReadExecute,
                                 .flags = MAP_SHARED,
                                 .descriptor = memfd.get(),
                                 .hint = hint});
  if (!executable) return fail(executable.error());
  const auto writable = place({.name = name,
                               .size = size,
                               .protection = MemoryProtection::ReadWrite,
                               .flags = MAP_SHARED,
                               .descriptor = memfd.get()});
  if (!writable) {
    ::munmap(executable->base, executable->reserved);
    return fail(writable.error());
  }
  return Pages{writable->data, executable->data};
}

void unmap(const Pages& pages, std::uint64_t size) noexcept {
  ::munmap(pages.executable, size);
  if (pages.writable != pages.executable) ::munmap(pages.writable, size);
}

Result<void> make_writable(std::byte* pages, std::uint64_t size) {
  if (::mprotect(pages, size, PROT_READ | PROT_WRITE) == 0) return {};
  return fail(memory_failure(MemoryCall::Protect, errno, "mprotect rw-", describe_range("code", size, pages)));
}

Result<void> make_executable(std::byte* pages, std::uint64_t size) {
  if (::mprotect(pages, size, PROT_READ | PROT_EXEC) == 0) return {};
  return fail(memory_failure(MemoryCall::MapExecutable, errno, "mprotect r-x", describe_range("code", size, pages)));
}

const std::uint64_t Unwind::kDescriptionSize = 0;

Result<std::unique_ptr<Unwind>> Unwind::create(const JitMemory& /*memory*/, JitBlock /*block*/, JitFrame /*frame*/,
                                               JitBlock /*description*/) {
  return fail(ErrorCode::Unsupported, "register unwind information", "generated code",
              "only Windows keeps such a table; on this host walk the frame pointers");
}

}  // namespace jit_host

Result<void> synchronize_cores() noexcept {
  static const bool registered =
      ::syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0U, 0) == 0;
  if (!registered) {
    return fail(ErrorCode::Unsupported, "membarrier", "SYNC_CORE",
                "the kernel is older than 4.16 or a seccomp profile forbids the call");
  }
  if (::syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0U, 0) == 0) return {};
  return fail(VmError::from_os(errno, "membarrier", "SYNC_CORE"));
}

}  // namespace vm_platform
