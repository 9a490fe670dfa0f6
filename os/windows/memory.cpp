// Mappings made: VirtualAlloc, section objects, files, views.
#include <windows.h>

#include <algorithm>
#include <vector>

#include "os/mapping.hpp"
#include "os/windows/failure.hpp"
#include "os/windows/handle.hpp"

namespace vm_platform {
namespace {

constexpr std::uint64_t kGranularity = 64 * kKiB;  // of every reservation's address

std::byte* reserve(void* at, std::uint64_t size, unsigned long flags = MEM_RESERVE) {
  return static_cast<std::byte*>(::VirtualAlloc(at, size, flags, PAGE_NOACCESS));
}

/// An address with `size` free bytes at which `guard` bytes further on is aligned; it may be gone a moment later.
std::byte* find_room(std::uint64_t size, std::uint64_t alignment, std::uint64_t guard) {
  std::byte* found = reserve(nullptr, size + alignment);
  if (found == nullptr) return nullptr;
  ::VirtualFree(found, 0, MEM_RELEASE);
  const auto first = reinterpret_cast<std::uintptr_t>(found) + guard;
  return found + (round_up(first, alignment) - first);
}

constexpr int kAttempts = 16;  // another thread may take the room first

struct View {
  std::byte* data = nullptr;
  void* guards[2] = {};
};

/// Maps a section with reserved addresses before and after it.
Result<View> map_section(HANDLE section, unsigned long access, std::uint64_t offset, const MemoryOptions& wanted) {
  const auto map_at = [&](void* at) {
    return static_cast<std::byte*>(::MapViewOfFileEx(section, access, static_cast<DWORD>(offset >> 32),
                                                     static_cast<DWORD>(offset), wanted.size, at));
  };
  const std::string subject = describe_range(wanted.name, wanted.size, wanted.fixed_address);
  View view;
  if (wanted.fixed_address != nullptr) {
    view.data = map_at(wanted.fixed_address);
    if (view.data == nullptr) {
      const unsigned long error = ::GetLastError();
      if (error != ERROR_INVALID_ADDRESS) return fail(memory_failure(error, "MapViewOfFileEx", subject));
      return fail(memory_error(ErrorCode::Busy, MemoryError::AddressTaken, "MapViewOfFileEx", subject,
                               "something is mapped there")
                      .with_hint("choose another address, or give it as a hint"));
    }
  }
  const std::uint64_t before = round_up(wanted.guard_before, kGranularity);
  const std::uint64_t after = round_up(wanted.guard_after, kGranularity);
  const std::uint64_t alignment = std::max(wanted.alignment, kGranularity);
  const bool simple = before == 0 && after == 0 && wanted.alignment <= kGranularity;
  if (view.data == nullptr && simple) {
    if (wanted.hint != nullptr) view.data = map_at(wanted.hint);
    if (view.data == nullptr) view.data = map_at(nullptr);
    if (view.data == nullptr) return fail(memory_failure(::GetLastError(), "MapViewOfFile", subject));
  }
  const std::uint64_t body = round_up(wanted.size, kGranularity);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (view.data == nullptr) {
      std::byte* room = find_room(before + body + after, alignment, before);
      if (room == nullptr) break;
      view.data = map_at(room + before);
      if (view.data == nullptr) continue;
    }
    if (before != 0) view.guards[0] = reserve(view.data - before, before);
    if (after != 0) view.guards[1] = reserve(view.data + body, after);
    if ((before == 0 || view.guards[0] != nullptr) && (after == 0 || view.guards[1] != nullptr)) return view;
    for (void* guard : view.guards)
      if (guard != nullptr) ::VirtualFree(guard, 0, MEM_RELEASE);
    ::UnmapViewOfFile(view.data);
    view = {};
    if (wanted.fixed_address != nullptr) break;
  }
  return fail(memory_error(ErrorCode::OutOfMemory, MemoryError::AddressSpaceLimit, "map with guards", subject,
                           "no room for the guards"));
}

/// One reservation for guards and body; only the body is committed.
Result<View> allocate(const MemoryOptions& wanted, unsigned long flags, std::uint64_t& reserved, std::byte*& base) {
  const std::string subject = describe_range(wanted.name, wanted.size, wanted.fixed_address);
  reserved = wanted.guard_before + wanted.size + wanted.guard_after;
  const unsigned long reserve_flags = MEM_RESERVE | (flags & MEM_WRITE_WATCH);
  base = nullptr;
  if ((flags & MEM_LARGE_PAGES) != 0) {  // reserved and committed in one call, or not at all
    base = static_cast<std::byte*>(::VirtualAlloc(wanted.fixed_address, wanted.size,
                                                  MEM_RESERVE | MEM_COMMIT | MEM_LARGE_PAGES,
                                                  to_page_protection(wanted.protection)));
    if (base == nullptr) return fail(memory_failure(::GetLastError(), "VirtualAlloc MEM_LARGE_PAGES", subject));
    return View{.data = base};
  }
  if (wanted.fixed_address != nullptr) {
    std::byte* at = static_cast<std::byte*>(wanted.fixed_address) - wanted.guard_before;
    base = reserve(at, reserved, reserve_flags);
    if (base != nullptr && base != at) {
      ::VirtualFree(base, 0, MEM_RELEASE);
      base = nullptr;
    }
    if (base == nullptr) {
      return fail(memory_error(ErrorCode::Busy, MemoryError::AddressTaken, "VirtualAlloc", subject,
                               "something is mapped there, or the address is no multiple of 64 KiB")
                      .with_hint("choose another address, or give it as a hint"));
    }
  } else if (wanted.alignment > kGranularity ||
             (wanted.guard_before % kGranularity != 0 && wanted.alignment > kPageSize)) {
    // The reservation begins at a multiple of 64 KiB, so the guard is what makes the body aligned.
    const std::uint64_t alignment = std::max(wanted.alignment, kGranularity);
    const std::uint64_t guard = round_up(wanted.guard_before, kGranularity);
    reserved += guard - wanted.guard_before;
    for (int attempt = 0; attempt < kAttempts && base == nullptr; ++attempt) {
      std::byte* room = find_room(reserved, alignment, guard);
      if (room == nullptr) break;
      base = reserve(room, reserved, reserve_flags);
    }
    if (base != nullptr) {
      View view{.data = base + guard};
      if (wanted.reserve_only ||
          ::VirtualAlloc(view.data, wanted.size, MEM_COMMIT, to_page_protection(wanted.protection)))
        return view;
    }
  } else {
    if (const auto hint = reinterpret_cast<std::uintptr_t>(wanted.hint); hint > wanted.guard_before)
      base = reserve(static_cast<std::byte*>(wanted.hint) - wanted.guard_before, reserved, reserve_flags);
    if (base == nullptr) base = reserve(nullptr, reserved, reserve_flags);
  }
  if (base == nullptr) return fail(memory_failure(::GetLastError(), "VirtualAlloc MEM_RESERVE", subject));
  View view{.data = base + wanted.guard_before};
  if (!wanted.reserve_only &&
      ::VirtualAlloc(view.data, wanted.size, MEM_COMMIT, to_page_protection(wanted.protection)) == nullptr) {
    const unsigned long error = ::GetLastError();
    ::VirtualFree(base, 0, MEM_RELEASE);
    return fail(memory_failure(error, "VirtualAlloc MEM_COMMIT", subject));
  }
  return view;
}

unsigned long view_access(MemoryProtection protection) {
  return allows(protection, MemoryProtection::Write) ? FILE_MAP_READ | FILE_MAP_WRITE : FILE_MAP_READ;
}

}  // namespace

std::uint64_t host_page_size() noexcept {
  static const std::uint64_t size = [] {
    SYSTEM_INFO info{};
    ::GetSystemInfo(&info);
    return std::uint64_t{info.dwPageSize};
  }();
  return size;
}

Result<MappedMemory> MappedMemory::create(MemoryOptions options) {
  std::uint64_t page = host_page_size();
  HugePages huge = options.huge_pages;
  std::string note;
  const std::uint64_t large = ::GetLargePageMinimum();
  const auto no_huge_pages = [&](const std::string& why) -> Result<void> {
    if (options.huge_pages_required) {
      return fail(memory_error(ErrorCode::OutOfMemory, MemoryError::NoHugePages, "map memory", options.name, why));
    }
    note = why;
    huge = HugePages::None;
    page = host_page_size();
    return {};
  };
  if (huge == HugePages::Transparent) {
    if (auto without = no_huge_pages("Windows has no transparent huge pages"); !without) return fail(without.error());
  }
  if (huge == HugePages::Explicit) {
    page = large;
    Result<void> without;
    if (options.huge_page_size != 0 && options.huge_page_size != large) {
      without = no_huge_pages("no such huge page size: " + std::to_string(options.huge_page_size));
    } else if (large == 0 || options.shared || options.reserve_only || options.guard_before != 0 ||
               options.guard_after != 0) {
      without = no_huge_pages("large pages exist only for private memory without guards, committed at once");
    }
    if (!without) return fail(without.error());
  }
  if (auto checked = check_options(options, page); !checked) return fail(checked.error());
  if (options.numa_node >= 0) {
    note += (note.empty() ? "" : "; ") +
            ("NUMA node " + std::to_string(options.numa_node) + " not used: not supported on Windows");
  }

  auto state = std::make_unique<State>();
  View view;
  if (options.shared) {
    const std::uint64_t length = options.size;
    const Handle section(::CreateFileMappingW(INVALID_HANDLE_VALUE, nullptr,
                                              PAGE_READWRITE | (options.reserve_only ? SEC_RESERVE : SEC_COMMIT),
                                              static_cast<DWORD>(length >> 32), static_cast<DWORD>(length), nullptr));
    if (!section) {
      return fail(memory_failure(::GetLastError(), "CreateFileMapping", describe_range(options.name, length)));
    }
    auto mapped = map_section(section.get(), FILE_MAP_READ | FILE_MAP_WRITE, 0, options);
    if (!mapped) return fail(mapped.error());
    view = *mapped;
    state->handle = section.duplicate();
  } else {
    unsigned long flags =
        (huge == HugePages::Explicit ? MEM_LARGE_PAGES : 0U) | (options.write_watch ? MEM_WRITE_WATCH : 0U);
    auto allocated = allocate(options, flags, state->reserved, state->base);
    if (!allocated && huge == HugePages::Explicit) {
      if (auto without = no_huge_pages(allocated.error().message()); !without) return fail(without.error());
      allocated = allocate(options, flags & ~static_cast<unsigned long>(MEM_LARGE_PAGES), state->reserved, state->base);
    }
    if (!allocated) return fail(allocated.error());
    view = *allocated;
  }
  state->name = options.name;
  state->note = std::move(note);
  state->guards[0] = view.guards[0];
  state->guards[1] = view.guards[1];
  state->page_size = page;
  state->shared = options.shared;
  state->protection = options.protection;
  state->huge_pages = huge;
  state->reserve_only = options.reserve_only;
  state->write_watch = options.write_watch;
  auto memory = finish(view.data, options.size, std::move(state), false);
  if (!memory || options.reserve_only) return memory;
  if (options.shared && options.protection != MemoryProtection::ReadWrite) {
    if (auto done = memory->protect(0, 0, options.protection); !done) return fail(done.error());
  }
  if (options.prefault) {
    if (auto done = memory->prefault(); !done) return fail(done.error());
  }
  return memory;
}

Result<MappedMemory> MappedMemory::create_private(std::uint64_t size) {
  return create({.size = size, .name = "private memory"});
}

Result<MappedMemory> MappedMemory::open_file(const std::string& path, const FileMappingOptions& options) {
  const bool writes = options.access == FileAccess::Shared;
  const Handle file(::CreateFileW(widen(path).c_str(), GENERIC_READ | (writes ? GENERIC_WRITE : 0U),
                                  FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                                  FILE_ATTRIBUTE_NORMAL, nullptr));
  if (!file) return fail(VmError::from_last_error(::GetLastError(), "open", path));
  LARGE_INTEGER length_value{};
  if (::GetFileSizeEx(file.get(), &length_value) == 0)
    return fail(VmError::from_last_error(::GetLastError(), "GetFileSizeEx", path));
  const auto size = check_file_range(path, options, static_cast<std::uint64_t>(length_value.QuadPart), kGranularity);
  if (!size) return fail(size.error());
  unsigned long page_access = PAGE_READONLY, access = FILE_MAP_READ;
  if (writes) {
    page_access = PAGE_READWRITE;
    access = FILE_MAP_READ | FILE_MAP_WRITE;
  } else if (options.access == FileAccess::Private) {
    page_access = PAGE_WRITECOPY;
    access = FILE_MAP_COPY;
  }
  const Handle section(::CreateFileMappingW(file.get(), nullptr, page_access, 0, 0, nullptr));
  if (!section) return fail(memory_failure(::GetLastError(), "CreateFileMapping", path));
  const auto view = map_section(section.get(), access, options.offset, {.size = *size, .name = path});
  if (!view) return fail(view.error());
  auto state = State::of_file(path, options);
  state->handle = section.duplicate();
  state->file_handle = file.duplicate();
  return finish(view->data, *size, std::move(state), options.prefault);
}

Result<MappedMemory> MappedMemory::from_descriptor(int descriptor, const FileMappingOptions& /*options*/) {
  return fail(ErrorCode::Unsupported, "map descriptor", std::to_string(descriptor), "Windows has handles");
}

Result<MappedMemory> MappedMemory::view(MemoryProtection protection, std::uint64_t offset, std::uint64_t size) const {
  const auto length = check_view(protection, offset, size);
  if (!length) return fail(length.error());
  if ((state_->file_offset + offset) % kGranularity != 0) {
    return fail(memory_error(ErrorCode::InvalidArgument, MemoryError::Misaligned, "map a second view of",
                             describe_range(state_->name, *length, data_ + offset),
                             "on Windows a view begins at a multiple of 64 KiB"));
  }
  const auto mapped = map_section(state_->handle, view_access(protection), state_->file_offset + offset,
                                  {.size = *length, .name = state_->name});
  if (!mapped) return fail(mapped.error());
  auto state = state_->of_view(protection, offset);
  state->handle = duplicate_handle(state_->handle);
  if (state_->file_handle != nullptr) state->file_handle = duplicate_handle(state_->file_handle);
  auto memory = finish(mapped->data, *length, std::move(state), false);
  if (memory && protection == MemoryProtection::None) {
    if (auto done = memory->protect(0, 0, protection); !done) return fail(done.error());
  }
  return memory;
}

Result<void> MappedMemory::resize(std::uint64_t size) {
  if (data_ == nullptr) return fail(ErrorCode::Status, "resize", "memory", "nothing is mapped");
  return fail(VmError(ErrorCode::Unsupported, "resize", describe_range(state_->name, size_, data_),
                      "section objects keep their size (" + std::to_string(size) + " bytes were asked for)")
                  .with_hint("create it larger with reserve_only, and commit() as needed"));
}

void MappedMemory::release() noexcept {
  if (state_->handle != nullptr) {
    ::UnmapViewOfFile(data_);
    ::CloseHandle(state_->handle);
    if (state_->file_handle != nullptr) ::CloseHandle(state_->file_handle);
    for (void* guard : state_->guards)
      if (guard != nullptr) ::VirtualFree(guard, 0, MEM_RELEASE);
  } else {
    ::VirtualFree(state_->base, 0, MEM_RELEASE);
  }
}

}  // namespace vm_platform
