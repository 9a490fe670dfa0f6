// Mappings made: anonymous memory, memfds, files, views.
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "os/linux/descriptor.hpp"
#include "os/linux/memory_failure.hpp"
#include "os/linux/place.hpp"
#include "os/mapping.hpp"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace vm_platform {

std::uint64_t host_page_size() noexcept {
  static const auto size = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

int to_prot(MemoryProtection protection) noexcept {
  int flags = PROT_NONE;
  if (allows(protection, MemoryProtection::Read)) flags |= PROT_READ;
  if (allows(protection, MemoryProtection::Write)) flags |= PROT_WRITE;
  if (allows(protection, MemoryProtection::Execute)) flags |= PROT_EXEC;
  return flags;
}

bool opened_for_reading(int descriptor) noexcept {
  return descriptor >= 0 && (::fcntl(descriptor, F_GETFL) & O_ACCMODE) == O_RDONLY;
}

// Where every CPU's end; some have more, and take what is asked for by address.
#ifdef __aarch64__
constexpr std::uintptr_t kAddressesOfPrograms = 1ULL << 48;
#else
constexpr std::uintptr_t kAddressesOfPrograms = (1ULL << 47) - kPageSize;
#endif

Result<Placement> place(const PlaceRequest& request) {
  const auto map_failed = [&](int error, std::uint64_t extra = 0) {
    const std::string subject = describe_range(request.name, request.size, request.fixed);
    if (error == ENOMEM && reinterpret_cast<std::uintptr_t>(request.fixed) + request.size > kAddressesOfPrograms) {
      return fail(memory_error(ErrorCode::InvalidArgument, MemoryError::OutOfRange, "mmap", subject,
                               "above the addresses that programs have")
                      .with_hint("choose a lower address"));
    }
    return fail(memory_failure(
        allows(request.protection, MemoryProtection::Execute) ? MemoryCall::MapExecutable : MemoryCall::Map, error,
        "mmap", subject, request.size + extra));
  };
  const int prot = to_prot(request.protection);
  const auto offset = static_cast<off_t>(request.offset);
  const bool plain = request.guard_before == 0 && request.guard_after == 0 && request.alignment <= host_page_size();
  if (plain) {
    void* wanted = request.fixed != nullptr ? request.fixed : request.hint;
    const int flags = request.flags | (request.fixed != nullptr ? MAP_FIXED_NOREPLACE : 0);
    void* address = ::mmap(wanted, request.size, prot, flags, request.descriptor, offset);
    if (address == MAP_FAILED) return map_failed(errno);
    auto* data = static_cast<std::byte*>(address);
    if (request.fixed != nullptr && address != request.fixed) {  // a kernel before 4.17 takes it as a hint
      ::munmap(address, request.size);
      return map_failed(EEXIST);
    }
    return Placement{data, request.size, data};
  }
  // Reserve addresses for the guards, the body and the alignment; give back what is too much; map the body over it.
  const std::uint64_t slack = request.fixed == nullptr && request.alignment > host_page_size() ? request.alignment : 0;
  const std::uint64_t total = request.guard_before + request.size + request.guard_after;
  void* wanted = request.fixed != nullptr ? request.fixed : request.hint;
  if (reinterpret_cast<std::uintptr_t>(wanted) >= request.guard_before)
    wanted = static_cast<std::byte*>(wanted) - request.guard_before;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (request.fixed != nullptr ? MAP_FIXED_NOREPLACE : 0);
  void* address = ::mmap(wanted, total + slack, PROT_NONE, flags, -1, 0);
  if (address == MAP_FAILED) return map_failed(errno, total + slack - request.size);
  auto* reserved = static_cast<std::byte*>(address);
  if (request.fixed != nullptr && address != wanted) {
    ::munmap(address, total);
    return map_failed(EEXIST);
  }
  std::byte* base = reserved;
  if (slack != 0) {
    const auto first = reinterpret_cast<std::uintptr_t>(reserved) + request.guard_before;
    base = reserved + (round_up(first, request.alignment) - first);
    const auto before = static_cast<std::uint64_t>(base - reserved);
    if (before != 0) ::munmap(reserved, before);
    if (slack != before) ::munmap(base + total, slack - before);
  }
  std::byte* data = base + request.guard_before;
  if (::mmap(data, request.size, prot, request.flags | MAP_FIXED, request.descriptor, offset) == MAP_FAILED) {
    const int error = errno;
    ::munmap(base, total);
    return map_failed(error);
  }
  return Placement{base, total, data};
}

namespace {

Result<Descriptor> create_memfd(const MemoryOptions& options, unsigned huge_flags) {
  const std::string name = options.name.substr(0, 249);  // no longer ones, memfd_create(2)
  // Data is never run from here: say so where the kernel (6.3) knows the flag.
  Descriptor memfd(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_NOEXEC_SEAL | huge_flags));
  if (!memfd && errno == EINVAL) memfd = Descriptor(::memfd_create(name.c_str(), MFD_CLOEXEC | huge_flags));
  if (!memfd) return fail(memory_failure(MemoryCall::Memfd, errno, "memfd_create", options.name));
  if (const int error = set_file_size(memfd.get(), options.size); error != 0)
    return fail(memory_failure(MemoryCall::Memfd, error, "ftruncate", describe_range(options.name, options.size)));
  return memfd;
}

std::uint64_t default_huge_page_size() {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  std::uint64_t value = 0;
  while (file >> key >> value) {
    std::getline(file, unit);
    if (key == "Hugepagesize:") return value * kKiB;
  }
  return 0;
}

/// How to have `size` bytes more in huge pages of `page` bytes (Documentation/admin-guide/mm/hugetlbpage.rst).
std::string huge_pages_hint(std::uint64_t size, std::uint64_t page) {
  const std::string pools = "/sys/kernel/mm/hugepages";
  const std::string pool = pools + "/hugepages-" + std::to_string(page / kKiB) + "kB";
  const auto number = [&](const char* file) {
    std::uint64_t value = 0;
    std::ifstream(pool + "/" + file) >> value;
    return value;
  };
  if (::access(pools.c_str(), F_OK) == 0 && ::access(pool.c_str(), F_OK) != 0)
    return "this host has other sizes: ls " + pools;
  const std::uint64_t missing = size / page - std::min(size / page, number("free_hugepages"));
  return "reserve them: echo " + std::to_string(number("nr_hugepages") + missing) + " > " + pool + "/nr_hugepages";
}

/// Why MADV_HUGEPAGE would do nothing; empty where it works.
std::string transparent_huge_pages_off(bool shared) {
  const char* path =
      shared ? "/sys/kernel/mm/transparent_hugepage/shmem_enabled" : "/sys/kernel/mm/transparent_hugepage/enabled";
  std::ifstream file(path);
  std::string text;
  if (!std::getline(file, text)) return "the kernel has no transparent huge pages";
  if (text.find("[never]") == std::string::npos && text.find("[deny]") == std::string::npos) return {};
  return std::string("transparent huge pages are off; echo ") + (shared ? "advise" : "madvise") + " > " + path;
}

void bind_to_node(std::byte* data, std::uint64_t size, int node, std::string& note) {
  std::array<unsigned long, 16> mask{};
  constexpr std::size_t kBits = sizeof(unsigned long) * 8;
  long status = -1;
  errno = EINVAL;
  if (static_cast<std::size_t>(node) < mask.size() * kBits) {
    mask[static_cast<std::size_t>(node) / kBits] = 1UL << (static_cast<std::size_t>(node) % kBits);
    status = ::syscall(SYS_mbind, data, size, MPOL_PREFERRED, mask.data(), mask.size() * kBits, 0);
  }
  if (status != 0) {
    note += (note.empty() ? "" : "; ") + ("NUMA node " + std::to_string(node) + " not used: " + std::strerror(errno));
  }
}

}  // namespace

Result<MappedMemory> MappedMemory::create(MemoryOptions options) {
  std::uint64_t page = host_page_size();
  HugePages huge = options.huge_pages;
  std::string note;
  if (huge == HugePages::Explicit) {
    page = options.huge_page_size != 0 ? options.huge_page_size : default_huge_page_size();
    if (page == 0 || !std::has_single_bit(page) || page < host_page_size()) {
      if (options.huge_pages_required || options.huge_page_size != 0) {
        return fail(memory_error(ErrorCode::InvalidArgument, MemoryError::NoHugePages, "map memory", options.name,
                                 "no such huge page size: " + std::to_string(page)));
      }
      huge = HugePages::Transparent;
      page = host_page_size();
      note = "the kernel has no huge pages to reserve";
    }
  }
  if (auto checked = check_options(options, page); !checked) return fail(checked.error());

  auto state = std::make_unique<State>();
  state->name = options.name;
  state->shared = options.shared;
  state->protection = options.protection;
  state->reserve_only = options.reserve_only;
  state->guard_before = options.guard_before;
  state->guard_after = options.guard_after;

  Descriptor memfd;
  Result<Placement> placed = Placement{};  // set by each attempt
  const auto attempt = [&]() {
    const bool pool = huge == HugePages::Explicit;
    const auto size_bits = static_cast<unsigned>(std::countr_zero(page));
    if (options.shared) {
      auto created = create_memfd(options, pool ? MFD_HUGETLB | (size_bits << MAP_HUGE_SHIFT) : 0U);
      if (!created) {
        placed = fail(created.error());
        return;
      }
      memfd = std::move(*created);
    }
    PlaceRequest request{.name = options.name,
                         .size = options.size,
                         .protection = options.reserve_only ? MemoryProtection::None : options.protection,
                         .flags = options.shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                         .descriptor = memfd.get(),
                         .offset = 0,
                         .alignment = std::max(options.alignment, page),
                         .guard_before = options.guard_before,
                         .guard_after = options.guard_after,
                         .hint = options.hint,
                         .fixed = options.fixed_address};
    // Huge pages of the pool are reserved here, so that an empty pool is an error now and not SIGBUS later.
    if (pool && !options.shared) request.flags |= MAP_HUGETLB | static_cast<int>(size_bits << MAP_HUGE_SHIFT);
    if (!pool) request.flags |= MAP_NORESERVE;
    if (huge == HugePages::Transparent && options.size >= 2 * kMiB)
      request.alignment = std::max(request.alignment, 2 * kMiB);
    state->alignment = request.alignment;
    placed = place(request);
  };
  attempt();
  if (!placed && huge == HugePages::Explicit && placed.error().detail() != MemoryError::AddressTaken) {
    const std::string hint = huge_pages_hint(options.size, page);
    if (options.huge_pages_required) {
      return fail(memory_error(ErrorCode::OutOfMemory, MemoryError::NoHugePages, "mmap",
                               describe_range(options.name, options.size) + " in huge pages", placed.error().reason())
                      .with_hint(hint));
    }
    note = "no huge pages of " + std::to_string(page / kKiB) + " KiB are free (" + hint + "); transparent ones instead";
    huge = HugePages::Transparent;
    page = host_page_size();
    memfd = Descriptor();
    attempt();
  }
  if (!placed) return fail(placed.error());

  state->base = placed->base;
  state->reserved = placed->reserved;
  state->descriptor = memfd.take();
  if (huge == HugePages::Transparent) {
    std::string off = transparent_huge_pages_off(options.shared);
    if (off.empty() && ::madvise(placed->data, options.size, MADV_HUGEPAGE) != 0) off = std::strerror(errno);
    if (!off.empty()) {
      huge = HugePages::None;
      note += (note.empty() ? "" : "; ") + off;
    }
  }
  if (options.numa_node >= 0) bind_to_node(placed->data, options.size, options.numa_node, note);
  state->huge_pages = huge;
  state->page_size = page;
  state->note = note;
  auto memory = finish(placed->data, options.size, std::move(state), options.prefault && !options.reserve_only);
  if (memory && huge == HugePages::None && options.huge_pages_required && options.huge_pages != HugePages::None)
    return fail(memory_error(ErrorCode::Unsupported, MemoryError::NoHugePages, "map memory", options.name, note));
  return memory;
}

/// The usual case by the shortest way: no options to look at, one attempt.
Result<MappedMemory> MappedMemory::create_private(std::uint64_t size) {
  constexpr const char* kName = "private memory";
  if (size != 0 && size <= kLargestMapping) {
    auto state = std::make_unique<State>();
    state->page_size = state->alignment = host_page_size();
    size = state->reserved = round_up(size, state->page_size);
    void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data != MAP_FAILED) {
      state->name = kName;
      Result<MappedMemory> memory;
      memory->data_ = state->base = static_cast<std::byte*>(data);
      memory->size_ = size;
      memory->state_ = std::move(state);
      return memory;
    }
  }
  return create({.size = size, .name = kName});  // which says what is wrong
}

Result<MappedMemory> MappedMemory::open_file(const std::string& path, const FileMappingOptions& options) {
  const int mode = options.access == FileAccess::Shared ? O_RDWR : O_RDONLY;
  const Descriptor file(::open(path.c_str(), mode | O_CLOEXEC));
  if (!file) return fail(VmError::from_os(errno, "open", path));
  auto memory = from_descriptor(file.get(), options);
  if (memory) {
    memory->state_->name = path;
  } else if (memory.error().code() == ErrorCode::InvalidArgument) {
    return fail(ErrorCode::InvalidArgument, "map file", path, memory.error().reason());
  }
  return memory;
}

Result<MappedMemory> MappedMemory::from_descriptor(int descriptor, const FileMappingOptions& options) {
  const std::string name = "file descriptor " + std::to_string(descriptor);
  struct stat status{};
  if (::fstat(descriptor, &status) != 0) return fail(VmError::from_os(errno, "fstat", name));
  if (!S_ISREG(status.st_mode)) return fail(ErrorCode::InvalidArgument, "map file", name, "not a regular file");
  const auto size = check_file_range(name, options, static_cast<std::uint64_t>(status.st_size), host_page_size());
  if (!size) return fail(size.error());

  const int opened = ::fcntl(descriptor, F_GETFL) & O_ACCMODE;
  if (opened == O_WRONLY || (opened == O_RDONLY && options.access == FileAccess::Shared)) {
    return fail(VmError(ErrorCode::InvalidArgument, "map file", name,
                        opened == O_WRONLY ? "open for writing only" : "open for reading only")
                    .with_hint("open it O_RDWR"));
  }
  Descriptor own(::fcntl(descriptor, F_DUPFD_CLOEXEC, 3));
  if (!own) return fail(memory_failure(MemoryCall::Other, errno, "fcntl F_DUPFD_CLOEXEC", name));
  auto state = State::of_file(name, options);
  const auto placed = place({.name = name,
                             .size = *size,
                             .protection = state->protection,
                             .flags = options.access == FileAccess::Private ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED,
                             .descriptor = own.get(),
                             .offset = options.offset});
  if (!placed) return fail(placed.error());
  state->base = placed->base;
  state->reserved = placed->reserved;
  state->descriptor = own.take();
  return finish(placed->data, *size, std::move(state), options.prefault);
}

Result<MappedMemory> MappedMemory::view(MemoryProtection protection, std::uint64_t offset, std::uint64_t size) const {
  const auto length = check_view(protection, offset, size);
  if (!length) return fail(length.error());
  if (allows(protection, MemoryProtection::Write) && opened_for_reading(state_->descriptor)) {
    return fail(VmError(ErrorCode::Status, "map a second view of",
                        describe_range(state_->name, *length, data_ + offset), "the file is open for reading only")
                    .with_hint("ask for a view with MemoryProtection::Read, or map the file with FileAccess::Shared"));
  }
  Descriptor own(::fcntl(state_->descriptor, F_DUPFD_CLOEXEC, 3));
  if (!own) {
    return fail(memory_failure(MemoryCall::Other, errno, "fcntl F_DUPFD_CLOEXEC",
                               describe_range(state_->name, *length, data_ + offset)));
  }
  const auto placed = place({.name = state_->name,
                             .size = *length,
                             .protection = protection,
                             .flags = MAP_SHARED | (state_->huge_pages == HugePages::Explicit ? 0 : MAP_NORESERVE),
                             .descriptor = own.get(),
                             .offset = state_->file_offset + offset,
                             .alignment = state_->alignment});
  if (!placed) return fail(placed.error());
  auto state = state_->of_view(protection, offset);
  state->base = placed->base;
  state->reserved = placed->reserved;
  state->descriptor = own.take();
  return finish(placed->data, *length, std::move(state), false);
}

Result<void> MappedMemory::resize(std::uint64_t size) {
  if (data_ == nullptr) return fail(ErrorCode::Status, "resize", "memory", "nothing is mapped");
  State& state = *state_;
  const std::string subject = describe_range(state.name, size_, data_) + " to " + std::to_string(size) + " bytes";
  if (!state.shared || (state.file && state.access != FileAccess::Shared)) {
    return fail(VmError(ErrorCode::Status, "resize", subject, "only shared, writable memory can change its size")
                    .with_hint("create it with MemoryOptions::shared, or reserve_only and commit()"));
  }
  if (size == 0 || size > kLargestMapping) return fail(ErrorCode::InvalidArgument, "resize", subject, "size");
  if (!state.file) size = round_up(size, state.page_size);
  const std::uint64_t old_end = state.file_offset + size_;
  const std::uint64_t new_end = state.file_offset + size;
  struct stat status{};
  if (::fstat(state.descriptor, &status) != 0) return fail(VmError::from_os(errno, "fstat", subject));
  // Grow the file first and shrink it last, so that no step leaves mapped bytes without a file behind them.
  const auto file_end = static_cast<std::uint64_t>(status.st_size);
  if (new_end > file_end) {
    if (const int error = set_file_size(state.descriptor, new_end); error != 0)
      return fail(memory_failure(MemoryCall::Memfd, error, "ftruncate", subject, size));
  }
  const auto placed = place({.name = state.name,
                             .size = size,
                             .protection = state.reserve_only ? MemoryProtection::None : state.protection,
                             .flags = MAP_SHARED | (state.huge_pages == HugePages::Explicit ? 0 : MAP_NORESERVE),
                             .descriptor = state.descriptor,
                             .offset = state.file_offset,
                             .alignment = state.alignment,
                             .guard_before = state.guard_before,
                             .guard_after = state.guard_after});
  if (!placed) {
    if (new_end > file_end) set_file_size(state.descriptor, file_end);
    return fail(placed.error());
  }
  if (new_end < old_end && old_end >= file_end) {  // what lies behind this mapping is not its to cut off
    if (const int error = set_file_size(state.descriptor, new_end); error != 0) {
      ::munmap(placed->base, placed->reserved);
      return fail(VmError::from_os(error, "ftruncate", subject));
    }
  }
  ::munmap(state.base, state.reserved);
  state.base = placed->base;
  state.reserved = placed->reserved;
  data_ = placed->data;
  size_ = size;
  if (state.huge_pages == HugePages::Transparent) ::madvise(data_, size_, MADV_HUGEPAGE);
  return {};
}

void MappedMemory::release() noexcept {
  ::munmap(state_->base, state_->reserved);
  if (state_->descriptor >= 0) ::close(state_->descriptor);
}

}  // namespace vm_platform
