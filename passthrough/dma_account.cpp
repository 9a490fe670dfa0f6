#include "passthrough/dma_account.hpp"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <limits>

namespace vm_platform {

std::string range_text(Iova iova, std::uint64_t size) {
  return fmt::format("{:#x} bytes at IOVA {:#x}", size, iova.value);
}

Result<void> DmaAccount::check(Iova iova, std::span<const std::byte> memory) {
  const auto host = reinterpret_cast<std::uintptr_t>(memory.data());
  if (memory.empty() || ((iova.value | host | memory.size()) & (kPageSize - 1)) != 0 ||
      iova.value + (memory.size() - 1) < iova.value) {
    return fail(ErrorCode::InvalidArgument, "map for DMA", range_text(iova, memory.size()),
                "empty, not page-aligned, or past the end");
  }
  return {};
}

DmaAccount::Map::const_iterator DmaAccount::end_of(Iova iova, std::uint64_t size) const {
  if (size == 0) return mapped_.lower_bound(iova.value);
  const bool wraps = size - 1 > std::numeric_limits<std::uint64_t>::max() - iova.value;
  return wraps ? mapped_.end() : mapped_.upper_bound(iova.value + (size - 1));
}

void DmaAccount::remove(Iova iova, std::uint64_t size) {
  mapped_.erase(mapped_.lower_bound(iova.value), end_of(iova, size));
}

bool DmaAccount::any_in(Iova iova, std::uint64_t size) const {
  return mapped_.lower_bound(iova.value) != end_of(iova, size);
}

VmError DmaAccount::explain(int os_error, Iova iova, std::uint64_t size, const std::vector<IovaRange>& valid) const {
  const std::string subject = range_text(iova, size);
  if (os_error == EEXIST)
    return VmError(ErrorCode::Status, "map for DMA", subject, "part of it is mapped already; unmap that first");
  auto failure = VmError::from_os(os_error, "map for DMA", subject);
  if (os_error == ENOMEM) {
    rlimit limit{};
    ::getrlimit(RLIMIT_MEMLOCK, &limit);
    std::uint64_t total = size;
    for (const auto& [start, bytes] : mapped_) total += bytes;
    if (limit.rlim_cur == RLIM_INFINITY || total <= limit.rlim_cur)
      return std::move(failure).with_hint("not enough free memory to pin");
    return std::move(failure).with_hint(
        fmt::format("DMA pins memory and this process may lock {} KiB in all but needs {} KiB: raise it with `ulimit "
                    "-l {}` or `vmp passthrough setup`",
                    limit.rlim_cur / 1024, total / 1024, total / 1024));
  }
  const bool inside = std::ranges::any_of(valid, [&](const IovaRange& range) {
    return iova.value >= range.first && iova.value + (size - 1) <= range.last;
  });
  if (os_error == EINVAL && !inside) {
    return std::move(failure).with_hint(
        "it touches a range the platform reserves (such as the MSI window at 0xfee00000): see `vmp iommu groups`");
  }
  return failure;
}

}  // namespace vm_platform
