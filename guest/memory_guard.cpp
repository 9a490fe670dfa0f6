#include "guest/memory_guard.hpp"

#include <sys/mman.h>

#include <csignal>
#include <cstdio>

namespace vm_platform {

Result<std::unique_ptr<GuestMemoryGuard>> GuestMemoryGuard::create(const GuestMemory& memory, Lost tell, void* user) {
  std::unique_ptr<GuestMemoryGuard> guard(new GuestMemoryGuard(memory, tell, user));
  for (const GuestMemory::Region& region : memory.regions()) {
    auto handler = SignalHandler::install(
        FaultScope::touching({region.host, static_cast<std::size_t>(region.size)}, FaultKind::Bus), on_fault,
        guard.get());
    if (!handler) return fail(handler.error());
    guard->handlers_.push_back(std::move(*handler));
  }
  return guard;
}

FaultAction GuestMemoryGuard::on_fault(Fault& fault, void* user) noexcept {
  if (fault.code() == BUS_ADRALN) return FaultAction::Pass;  // of an instruction, not of the memory
  auto& guard = *static_cast<GuestMemoryGuard*>(user);
  const std::uintptr_t page = fault.address() & ~std::uintptr_t{4095};
  // In place of the page of the memfd, from here on, in this process alone. A huge page is replaced piece by piece.
  void* const at = reinterpret_cast<void*>(page);  // NOLINT(performance-no-int-to-ptr): the kernel's word for it
  if (::mmap(at, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
    return FaultAction::Pass;
  for (const GuestMemory::Region& region : guard.memory_.regions()) {
    const std::uint64_t offset = page - reinterpret_cast<std::uintptr_t>(region.host);
    if (offset >= region.size) continue;
    std::uint64_t none = kNone;
    if (guard.first_.compare_exchange_strong(none, region.base.value + offset))
      guard.broken_ = fault.code() == BUS_MCEERR_AR || fault.code() == BUS_MCEERR_AO;
  }
  guard.tell_(guard.user_);
  return FaultAction::Resume;
}

std::optional<Gpa> GuestMemoryGuard::lost() const noexcept {
  const std::uint64_t first = first_.load();
  return first == kNone ? std::nullopt : std::optional(Gpa(first));
}

VmError GuestMemoryGuard::error() const {
  char where[64];
  std::snprintf(where, sizeof where, "the page at guest address 0x%llx",
                static_cast<unsigned long long>(first_.load()));
  if (broken_)
    return VmError(ErrorCode::Io, "use guest memory", where, "the host's memory has failed there")
        .with_hint("start the guest again; the host's log (dmesg) names the memory module");
  return VmError(ErrorCode::OutOfMemory, "use guest memory", where, "the host has no memory left for it")
      .with_hint("give the guest less with --memory, free memory, or raise the limit of the cgroup");
}

}  // namespace vm_platform
