#include "os/linux/memory_failure.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "os/mapping.hpp"

namespace vm_platform {
namespace {

/// Reads a file without the C++ library's buffers: this runs when memory is short.
template <typename Visit>
bool read_chunks(const char* path, Visit visit) {
  const int descriptor = ::open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return false;
  std::array<char, 4096> buffer{};
  ssize_t got = 0;
  while ((got = ::read(descriptor, buffer.data(), buffer.size())) > 0)
    visit(std::string_view(buffer.data(), static_cast<std::size_t>(got)));
  ::close(descriptor);
  return got == 0;
}

std::uint64_t read_number(const char* path, std::uint64_t otherwise) {
  std::uint64_t value = otherwise;
  read_chunks(path, [&](std::string_view text) { std::from_chars(text.data(), text.data() + text.size(), value); });
  return value;
}

std::uint64_t count_mappings() {
  std::uint64_t lines = 0;
  read_chunks("/proc/self/maps", [&](std::string_view text) {
    for (const char c : text) lines += c == '\n' ? 1 : 0;
  });
  return lines;
}

std::uint64_t address_space_used() {
  return read_number("/proc/self/statm", 0) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

std::uint64_t limit(__rlimit_resource_t which) {
  rlimit value{};
  return ::getrlimit(which, &value) == 0 && value.rlim_cur != RLIM_INFINITY ? value.rlim_cur : UINT64_MAX;
}

/// Private writable memory, which RLIMIT_DATA counts (proc_pid_status(5), VmData).
std::uint64_t data_used() {
  std::string status;
  read_chunks("/proc/self/status", [&](std::string_view text) { status += text; });
  const std::size_t at = status.find("VmData:");
  if (at == std::string::npos) return 0;
  const std::size_t digits = status.find_first_of("0123456789", at);
  std::uint64_t kib = 0;
  std::from_chars(status.data() + std::min(digits, status.size()), status.data() + status.size(), kib);
  return kib * kKiB;
}

VmError explain_no_memory(std::string operation, std::string subject, std::uint64_t size) {
  const std::uint64_t maps = count_mappings();
  const std::uint64_t most = read_number("/proc/sys/vm/max_map_count", 65530);
  const auto error = [&](MemoryError detail, std::string reason, std::string hint) {
    return memory_error(ErrorCode::OutOfMemory, detail, std::move(operation), std::move(subject), std::move(reason))
        .with_hint(std::move(hint));
  };
  if (maps + 8 >= most) {
    return error(MemoryError::MapLimit,
                 "Cannot allocate memory: " + std::to_string(maps) + " mappings of at most " + std::to_string(most),
                 "raise it: sysctl -w vm.max_map_count=" + std::to_string(most * 4));
  }
  const std::uint64_t space = limit(RLIMIT_AS);
  if (space != UINT64_MAX && address_space_used() + size > space) {
    return error(MemoryError::AddressSpaceLimit,
                 "Cannot allocate memory: RLIMIT_AS is " + std::to_string(space / kMiB) + " MiB",
                 "raise the limit: ulimit -v unlimited");
  }
  if (const std::uint64_t data = limit(RLIMIT_DATA); data != UINT64_MAX && data_used() + size > data) {
    return error(MemoryError::AddressSpaceLimit,
                 "Cannot allocate memory: RLIMIT_DATA is " + std::to_string(data / kMiB) + " MiB",
                 "raise the limit: ulimit -d unlimited");
  }
  if (read_number("/proc/sys/vm/overcommit_memory", 0) == 2) {
    return error(MemoryError::Overcommit, "Cannot allocate memory: vm.overcommit_memory is 2 (strict)",
                 "allow overcommit: sysctl -w vm.overcommit_memory=0, or raise vm.overcommit_ratio");
  }
  struct sysinfo host{};
  if (size != 0 && ::sysinfo(&host) == 0 && size > (host.totalram + host.totalswap) * host.mem_unit) {
    return error(MemoryError::Overcommit,
                 "Cannot allocate memory: more than the host has (" +
                     std::to_string(host.totalram * host.mem_unit / kMiB) + " MiB)",
                 "ask for less, or allow it: sysctl -w vm.overcommit_memory=1");
  }
  return error(MemoryError::OutOfMemory, "Cannot allocate memory",
               "free some memory, or raise the memory limit of the cgroup");
}

}  // namespace

namespace {

/// RLIMIT_FSIZE. That there is none is asked once: a system call more would be a tenth of what shared memory costs.
std::uint64_t file_size_limit() noexcept {
  static std::atomic<bool> none = false;
  if (none.load(std::memory_order_relaxed)) return UINT64_MAX;
  const std::uint64_t most = limit(RLIMIT_FSIZE);
  none.store(most == UINT64_MAX, std::memory_order_relaxed);
  return most;
}

}  // namespace

int set_file_size(int descriptor, std::uint64_t size) noexcept {
  struct stat status{};
  if (size > file_size_limit() && (::fstat(descriptor, &status) != 0 || static_cast<off_t>(size) > status.st_size))
    return EFBIG;
  return ::ftruncate(descriptor, static_cast<off_t>(size)) == 0 ? 0 : errno;
}

VmError memory_failure(MemoryCall call, int os_error, std::string operation, std::string subject, std::uint64_t size) {
  const auto plain = [&](MemoryError detail, std::string hint) {
    return VmError::from_os(os_error, std::move(operation), std::move(subject))
        .with_detail(make_error_code(detail))
        .with_hint(std::move(hint));
  };
  const std::uint64_t lockable = limit(RLIMIT_MEMLOCK);
  const bool locking = call == MemoryCall::Lock && (os_error == ENOMEM || os_error == EPERM || os_error == EAGAIN);
  const bool locked_at_once = call != MemoryCall::Lock && os_error == EAGAIN;  // after mlockall(MCL_FUTURE)
  if ((locking || locked_at_once) && lockable != UINT64_MAX) {
    return plain(MemoryError::LockLimit, std::string(locked_at_once ? "mlockall(MCL_FUTURE) is in force, and " : "") +
                                             "RLIMIT_MEMLOCK is " + std::to_string(lockable / kKiB) +
                                             " KiB; raise it: ulimit -l unlimited, or LimitMEMLOCK=infinity in the "
                                             "service");
  }
  if (call == MemoryCall::MapExecutable && (os_error == EACCES || os_error == EPERM || os_error == ENOTSUP)) {
    return plain(MemoryError::ExecutableDenied,
                 "allow executable memory (SELinux: setsebool -P deny_execmem 0; systemd: MemoryDenyWriteExecute=no; "
                 "a seccomp profile may forbid it too)");
  }
  switch (os_error) {
    case ENOMEM: return explain_no_memory(std::move(operation), std::move(subject), size);
    case EEXIST:
      return memory_error(ErrorCode::Busy, MemoryError::AddressTaken, std::move(operation), std::move(subject),
                          "something is mapped there")
          .with_hint("choose another address, or give it as a hint");
    case EPERM:
    case EACCES:
    case ENOSYS:
      if (call == MemoryCall::Memfd) {
        return plain(MemoryError::Denied, "allow memfd_create in the seccomp profile, and set vm.memfd_noexec below 2");
      }
      return plain(MemoryError::Denied, "a seccomp profile or security module forbids the call");
    case EFBIG:
      if (const std::uint64_t largest = limit(RLIMIT_FSIZE); largest != UINT64_MAX) {
        return plain(MemoryError::FileSizeLimit, "RLIMIT_FSIZE is " + std::to_string(largest / kKiB) +
                                                     " KiB, for shared memory too; raise it: ulimit -f unlimited");
      }
      return plain(MemoryError::FileSizeLimit, "choose a file system that has files of this size");
    case EMFILE: return plain(MemoryError::OutOfMemory, "too many open files; raise it: ulimit -n 65536");
    default: return VmError::from_os(os_error, std::move(operation), std::move(subject));
  }
}

}  // namespace vm_platform
