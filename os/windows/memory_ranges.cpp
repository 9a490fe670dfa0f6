// What is done to ranges of a mapping.
#include <windows.h>
// after windows.h
#include <psapi.h>

#include <cstring>

#include "os/mapping.hpp"
#include "os/windows/failure.hpp"

namespace vm_platform {
namespace {

/// Whether every page of the range is committed and may be read, or written.
bool accessible(const std::byte* data, std::uint64_t size, bool write) {
  constexpr DWORD kWritable = PAGE_READWRITE | PAGE_WRITECOPY | PAGE_EXECUTE_READWRITE | PAGE_EXECUTE_WRITECOPY;
  constexpr DWORD kReadable = kWritable | PAGE_READONLY | PAGE_EXECUTE_READ;
  for (const std::byte* at = data; at < data + size;) {
    MEMORY_BASIC_INFORMATION region{};
    if (::VirtualQuery(at, &region, sizeof(region)) == 0 || region.State != MEM_COMMIT) return false;
    if ((region.Protect & PAGE_GUARD) != 0 || (region.Protect & (write ? kWritable : kReadable)) == 0) return false;
    at = static_cast<const std::byte*>(region.BaseAddress) + region.RegionSize;
  }
  return true;
}

}  // namespace

Result<void> MappedMemory::protect(std::uint64_t offset, std::uint64_t size, MemoryProtection protection) {
  const auto length = check_range("VirtualProtect", offset, size);
  if (!length) return fail(length.error());
  const auto subject = [&] { return describe_range(state_->name, *length, data_ + offset); };
  if (allows(protection, MemoryProtection::Write | MemoryProtection::Execute)) {
    return fail(memory_error(ErrorCode::InvalidArgument, MemoryError::WritableExecutable, "VirtualProtect", subject(),
                             "writable and executable at once")
                    .with_hint("use JitMemory for generated code"));
  }
  unsigned long flags = to_page_protection(protection), old = 0;
  if (state_->access == FileAccess::Private && flags == PAGE_READWRITE) flags = PAGE_WRITECOPY;
  if (::VirtualProtect(data_ + offset, *length, flags, &old) != 0) return {};
  return fail(memory_failure(::GetLastError(), "VirtualProtect", subject()));
}

Result<void> MappedMemory::commit(std::uint64_t offset, std::uint64_t size, MemoryProtection protection) {
  const auto length = check_range("VirtualAlloc MEM_COMMIT", offset, size);
  if (!length) return fail(length.error());
  if (::VirtualAlloc(data_ + offset, *length, MEM_COMMIT, to_page_protection(protection)) != nullptr) return {};
  return fail(memory_failure(::GetLastError(), "VirtualAlloc MEM_COMMIT",
                             describe_range(state_->name, *length, data_ + offset)));
}

Result<void> MappedMemory::decommit(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("VirtualFree MEM_DECOMMIT", offset, size);
  if (!length) return fail(length.error());
  const std::string subject = describe_range(state_->name, *length, data_ + offset);
  if (state_->handle != nullptr)
    return fail(ErrorCode::Unsupported, "decommit", subject, "pages of a section object stay committed");
  if (::VirtualFree(data_ + offset, *length, MEM_DECOMMIT) != 0) return {};
  return fail(memory_failure(::GetLastError(), "VirtualFree MEM_DECOMMIT", subject));
}

Result<void> MappedMemory::discard(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("discard", offset, size);
  if (!length) return fail(length.error());
  const auto unsupported = [&](const char* reason) {
    return fail(ErrorCode::Unsupported, "discard", describe_range(state_->name, *length, data_ + offset), reason);
  };
  if (state_->access == FileAccess::ReadOnly) {
    return fail(ErrorCode::Status, "discard", describe_range(state_->name, *length, data_ + offset),
                "it is mapped read-only");
  }
  if (state_->access == FileAccess::Private) return unsupported("Windows keeps the private copies of file pages");
  if (state_->handle != nullptr) {
    if (!accessible(data_ + offset, *length, true))
      return fail(not_accessible("discard", describe_range(state_->name, *length, data_ + offset), true));
    std::memset(data_ + offset, 0, *length);
    ::VirtualUnlock(data_ + offset, *length);  // of pages that are not locked: takes them out of the working set
    return {};
  }
  if (auto done = decommit(offset, *length); !done) return done;
  return commit(offset, *length, state_->protection);
}

Result<void> MappedMemory::prefault(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("prefault", offset, size);
  if (!length) return fail(length.error());
  const bool writable = allows(state_->protection, MemoryProtection::Write);
  if (!accessible(data_ + offset, *length, writable))
    return fail(not_accessible("prefault", describe_range(state_->name, *length, data_ + offset), writable));
  for (std::uint64_t at = offset; at < offset + *length; at += state_->page_size) {
    std::atomic_ref<std::byte> byte(data_[at]);
    std::byte seen = byte.load(std::memory_order_relaxed);
    if (writable) byte.compare_exchange_strong(seen, seen, std::memory_order_relaxed);
  }
  return {};
}

Result<void> MappedMemory::advise(std::uint64_t offset, std::uint64_t size, MemoryAdvice advice) {
  const auto length = check_range("advise", offset, size);
  if (!length) return fail(length.error());
  if (advice == MemoryAdvice::Normal) return {};
  if (advice == MemoryAdvice::WillNeed) {
    WIN32_MEMORY_RANGE_ENTRY range{.VirtualAddress = data_ + offset, .NumberOfBytes = *length};
    if (::PrefetchVirtualMemory(::GetCurrentProcess(), 1, &range, 0) != 0) return {};
    return fail(memory_failure(::GetLastError(), "PrefetchVirtualMemory",
                               describe_range(state_->name, *length, data_ + offset)));
  }
  return fail(ErrorCode::Unsupported, "advise", describe_range(state_->name, *length, data_ + offset),
              "Windows does not take this advice");
}

Result<void> MappedMemory::lock(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("VirtualLock", offset, size);
  if (!length) return fail(length.error());
  if (::VirtualLock(data_ + offset, *length) != 0) return {};
  return fail(memory_failure(::GetLastError(), "VirtualLock", describe_range(state_->name, *length, data_ + offset)));
}

Result<void> MappedMemory::unlock(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("VirtualUnlock", offset, size);
  if (!length) return fail(length.error());
  if (::VirtualUnlock(data_ + offset, *length) != 0) return {};
  return fail(memory_failure(::GetLastError(), "VirtualUnlock", describe_range(state_->name, *length, data_ + offset)));
}

Result<void> MappedMemory::flush(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("FlushViewOfFile", offset, size);
  if (!length) return fail(length.error());
  if (state_->handle == nullptr) return {};
  if (::FlushViewOfFile(data_ + offset, *length) != 0 &&
      (state_->file_handle == nullptr || state_->access != FileAccess::Shared ||
       ::FlushFileBuffers(state_->file_handle) != 0))
    return {};
  return fail(VmError::from_last_error(::GetLastError(), "FlushViewOfFile",
                                       describe_range(state_->name, *length, data_ + offset)));
}

Result<std::vector<bool>> MappedMemory::residency(std::uint64_t offset, std::uint64_t size) const {
  const auto length = check_range("QueryWorkingSetEx", offset, size);
  if (!length) return fail(length.error());
  const std::uint64_t page = host_page_size(), pages = round_up(*length, page) / page;
  std::vector<PSAPI_WORKING_SET_EX_INFORMATION> query(pages);
  for (std::uint64_t i = 0; i < pages; ++i) query[i].VirtualAddress = data_ + offset + i * page;
  if (::K32QueryWorkingSetEx(::GetCurrentProcess(), query.data(),
                             static_cast<DWORD>(pages * sizeof(PSAPI_WORKING_SET_EX_INFORMATION))) == 0) {
    return fail(VmError::from_last_error(::GetLastError(), "QueryWorkingSetEx",
                                         describe_range(state_->name, *length, data_ + offset)));
  }
  std::vector<bool> result;
  for (const auto& entry : query) result.push_back(entry.VirtualAttributes.Valid != 0);
  return result;
}

namespace {

/// Whether loads from all of the range are allowed now. ReadProcessMemory asks too, but not in every implementation.
bool readable(const std::byte* from, std::uint64_t size) {
  const std::byte* end = from + size;
  MEMORY_BASIC_INFORMATION region{};
  while (from < end) {
    if (::VirtualQuery(from, &region, sizeof region) == 0 || region.State != MEM_COMMIT ||
        (region.Protect & (PAGE_NOACCESS | PAGE_GUARD)) != 0)
      return false;
    from = static_cast<const std::byte*>(region.BaseAddress) + region.RegionSize;
  }
  return true;
}

}  // namespace

Result<void> MappedMemory::read_at(std::uint64_t offset, std::span<std::byte> into) const {
  if (into.empty()) return {};
  const auto length = check_range("read", offset, into.size(), false);
  if (!length) return fail(length.error());
  // Windows refuses to truncate a mapped file; a network drive that went away is an error here and no exception.
  SIZE_T copied = 0;
  if (readable(data_ + offset, into.size()) &&
      ::ReadProcessMemory(::GetCurrentProcess(), data_ + offset, into.data(), into.size(), &copied) != 0 &&
      copied == into.size())
    return {};
  return fail(ErrorCode::Io, "read", describe_range(state_->name, *length, data_ + offset),
              "part of it is not readable");
}

}  // namespace vm_platform
