// What is done to ranges of a mapping.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "os/linux/descriptor.hpp"
#include "os/linux/memory_failure.hpp"
#include "os/linux/place.hpp"
#include "os/mapping.hpp"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace vm_platform {
namespace {

/// Whether the kernel (Linux 5.14) brings pages in by advice, so that its EINVAL speaks of the range.
bool populates() noexcept {
  static const bool known = ::madvise(nullptr, 0, MADV_POPULATE_READ) == 0;
  return known;
}

}  // namespace

Result<void> MappedMemory::protect(std::uint64_t offset, std::uint64_t size, MemoryProtection protection) {
  const auto length = check_range("mprotect", offset, size);
  if (!length) return fail(length.error());
  const auto subject = [&] { return describe_range(state_->name, *length, data_ + offset); };
  if (allows(protection, MemoryProtection::Write | MemoryProtection::Execute)) {
    return fail(memory_error(ErrorCode::InvalidArgument, MemoryError::WritableExecutable, "mprotect", subject(),
                             "writable and executable at once")
                    .with_hint("use JitMemory for generated code"));
  }
  if (::mprotect(data_ + offset, *length, to_prot(protection)) == 0) return {};
  if (errno == EACCES && allows(protection, MemoryProtection::Write) && opened_for_reading(state_->descriptor)) {
    return fail(VmError(ErrorCode::Status, "mprotect", subject(), "the file is open for reading only")
                    .with_hint("map it with FileAccess::Shared, or Private for copies of the pages"));
  }
  const auto call = allows(protection, MemoryProtection::Execute) ? MemoryCall::MapExecutable : MemoryCall::Protect;
  return fail(memory_failure(call, errno, "mprotect", subject()));
}

Result<void> MappedMemory::commit(std::uint64_t offset, std::uint64_t size, MemoryProtection protection) {
  return protect(offset, size, protection);
}

Result<void> MappedMemory::decommit(std::uint64_t offset, std::uint64_t size) {
  if (auto done = discard(offset, size); !done) return done;
  return protect(offset, size, MemoryProtection::None);
}

Result<void> MappedMemory::discard(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("discard", offset, size);
  if (!length) return fail(length.error());
  if (state_->access == FileAccess::ReadOnly) {
    return fail(ErrorCode::Status, "discard", describe_range(state_->name, *length, data_ + offset),
                "it is mapped read-only");
  }
  int status = 0;
  const char* call = "madvise MADV_DONTNEED";
  if (state_->shared) {
    call = "fallocate FALLOC_FL_PUNCH_HOLE";
    status = ::fallocate(state_->descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         static_cast<off_t>(state_->file_offset + offset), static_cast<off_t>(*length));
  } else {
    status = ::madvise(data_ + offset, *length, MADV_DONTNEED);
  }
  if (status == 0) return {};
  return fail(memory_failure(MemoryCall::Other, errno, call, describe_range(state_->name, *length, data_ + offset)));
}

Result<void> MappedMemory::prefault(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("prefault", offset, size);
  if (!length) return fail(length.error());
  const bool writable = allows(state_->protection, MemoryProtection::Write);
  if (::madvise(data_ + offset, *length, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) return {};
  const std::string subject = describe_range(state_->name, *length, data_ + offset);
  if (errno == EFAULT) {  // the kernel would have sent SIGBUS
    return fail(memory_error(ErrorCode::Io, MemoryError::FileShrank, "prefault", subject,
                             "part of it has no memory or file behind it"));
  }
  if (errno == EINVAL && populates()) {
    return fail(not_accessible("prefault", subject, writable));
  }
  if (errno != EINVAL) return fail(memory_failure(MemoryCall::Commit, errno, "madvise MADV_POPULATE", subject));
  // Before Linux 5.14: touch every page, without changing it.
  for (std::uint64_t at = offset; at < offset + *length; at += state_->page_size) {
    std::atomic_ref<std::byte> byte(data_[at]);
    if (writable) {
      std::byte seen = byte.load(std::memory_order_relaxed);
      byte.compare_exchange_strong(seen, seen, std::memory_order_relaxed);
    } else {
      (void)byte.load(std::memory_order_relaxed);
    }
  }
  return {};
}

Result<void> MappedMemory::advise(std::uint64_t offset, std::uint64_t size, MemoryAdvice advice) {
  const auto length = check_range("madvise", offset, size);
  if (!length) return fail(length.error());
  int value = MADV_NORMAL;
  switch (advice) {
    case MemoryAdvice::Normal: value = MADV_NORMAL; break;
    case MemoryAdvice::Sequential: value = MADV_SEQUENTIAL; break;
    case MemoryAdvice::Random: value = MADV_RANDOM; break;
    case MemoryAdvice::WillNeed: value = MADV_WILLNEED; break;
    case MemoryAdvice::Cold: value = MADV_COLD; break;
    case MemoryAdvice::PageOut: value = MADV_PAGEOUT; break;
    case MemoryAdvice::HugePages: value = MADV_HUGEPAGE; break;
    case MemoryAdvice::NoHugePages: value = MADV_NOHUGEPAGE; break;
    case MemoryAdvice::Mergeable: value = MADV_MERGEABLE; break;
    case MemoryAdvice::DontDump: value = MADV_DONTDUMP; break;
    case MemoryAdvice::DoDump: value = MADV_DODUMP; break;
    case MemoryAdvice::DontFork: value = MADV_DONTFORK; break;
    case MemoryAdvice::WipeOnFork: value = MADV_WIPEONFORK; break;
  }
  if (::madvise(data_ + offset, *length, value) == 0) return {};
  const std::string subject = describe_range(state_->name, *length, data_ + offset);
  if (errno == EINVAL) {
    return fail(ErrorCode::Unsupported, "madvise", subject, "this kernel does not know the advice for such memory");
  }
  return fail(memory_failure(MemoryCall::Other, errno, "madvise", subject));
}

Result<void> MappedMemory::lock(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("mlock", offset, size);
  if (!length) return fail(length.error());
  if (::mlock(data_ + offset, *length) == 0) return {};
  const int error = errno;
  const std::string subject = describe_range(state_->name, *length, data_ + offset);
  // ENOMEM means the limit or pages that cannot be brought in, mlock(2).
  rlimit most{};
  if (error == ENOMEM && ::getrlimit(RLIMIT_MEMLOCK, &most) == 0 && *length <= most.rlim_cur && populates() &&
      ::madvise(data_ + offset, *length, MADV_POPULATE_READ) != 0 && errno == EINVAL)
    return fail(not_accessible("mlock", subject, false));
  return fail(memory_failure(MemoryCall::Lock, error, "mlock", subject, *length));
}

Result<void> MappedMemory::unlock(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("munlock", offset, size);
  if (!length) return fail(length.error());
  if (::munlock(data_ + offset, *length) == 0) return {};
  return fail(VmError::from_os(errno, "munlock", describe_range(state_->name, *length, data_ + offset)));
}

Result<void> MappedMemory::flush(std::uint64_t offset, std::uint64_t size) {
  const auto length = check_range("msync", offset, size);
  if (!length) return fail(length.error());
  if (::msync(data_ + offset, *length, MS_SYNC) == 0) return {};
  return fail(VmError::from_os(errno, "msync", describe_range(state_->name, *length, data_ + offset)));
}

Result<std::vector<bool>> MappedMemory::residency(std::uint64_t offset, std::uint64_t size) const {
  const auto length = check_range("mincore", offset, size);
  if (!length) return fail(length.error());
  const std::uint64_t page = host_page_size();
  const std::uint64_t pages = round_up(*length, page) / page;
  std::vector<unsigned char> state(std::min<std::uint64_t>(pages, 64 * kKiB));
  std::vector<bool> result;
  result.reserve(pages);
  for (std::uint64_t done = 0; done < pages; done += state.size()) {
    const std::uint64_t count = std::min<std::uint64_t>(state.size(), pages - done);
    if (::mincore(data_ + offset + done * page, count * page, state.data()) != 0)
      return fail(VmError::from_os(errno, "mincore", describe_range(state_->name, *length, data_ + offset)));
    for (std::uint64_t i = 0; i < count; ++i) result.push_back((state[i] & 1) != 0);
  }
  return result;
}

namespace {

/// Copies through the kernel, which reports a bad source as EFAULT where a plain load would raise a signal. Returns the
/// bytes copied.
Result<std::uint64_t> copy_through_kernel(const std::byte* from, std::span<std::byte> into, const std::string& name) {
  std::uint64_t done = 0;
  ssize_t copied = 0;
  do {  // 2 GiB at most in one call
    const iovec local{into.data() + done, into.size() - done};
    const iovec remote{const_cast<std::byte*>(from) + done, into.size() - done};
    copied = ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0);
    if (copied > 0) done += static_cast<std::uint64_t>(copied);
  } while (copied > 0 && done < into.size());
  if (copied >= 0 || errno == EFAULT) return done;
  // Forbidden (containers without ptrace): a write to a memfd copies from user memory just as carefully.
  const Descriptor bounce(::memfd_create("read-at", MFD_CLOEXEC));
  if (!bounce) return fail(memory_failure(MemoryCall::Memfd, errno, "memfd_create", "to read " + name));
  while (done < into.size()) {
    const ssize_t written = ::pwrite(bounce.get(), from + done, into.size() - done, static_cast<off_t>(done));
    if (written <= 0) break;
    const ssize_t got =
        ::pread(bounce.get(), into.data() + done, static_cast<std::size_t>(written), static_cast<off_t>(done));
    if (got != written) return fail(VmError::from_os(errno, "pread", name));
    done += static_cast<std::uint64_t>(written);
  }
  return done;
}

}  // namespace

Result<void> MappedMemory::read_at(std::uint64_t offset, std::span<std::byte> into) const {
  if (into.empty()) return {};
  const auto length = check_range("read", offset, into.size(), false);
  if (!length) return fail(length.error());
  const std::string subject = describe_range(state_->name, *length, data_ + offset);
  const auto shrank = [&](std::uint64_t now) {
    return fail(memory_error(ErrorCode::Io, MemoryError::FileShrank, "read", subject,
                             "the file has only " + std::to_string(now) + " bytes left"));
  };
  struct stat status{};
  const bool backed = state_->descriptor >= 0;
  const auto gone = [&] {
    return backed && ::fstat(state_->descriptor, &status) == 0 &&
           static_cast<std::uint64_t>(status.st_size) < state_->file_offset + offset + *length;
  };
  if (gone()) return shrank(static_cast<std::uint64_t>(status.st_size));
  const auto copied = copy_through_kernel(data_ + offset, into, state_->name);
  if (!copied) return fail(copied.error());
  // The tail of a last page reads as zeroes without a fault, so the length is looked at again.
  if (gone()) return shrank(static_cast<std::uint64_t>(status.st_size));
  if (*copied != into.size()) return fail(ErrorCode::Io, "read", subject, "part of it is not readable");
  return {};
}

}  // namespace vm_platform
