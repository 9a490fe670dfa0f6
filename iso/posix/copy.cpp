#include "iso/copy.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/sendfile.h>
#endif

#include <algorithm>
#include <cerrno>

#include "iso/reader.hpp"

namespace vm_platform::iso {

Result<void> write_all(int descriptor, Bytes bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(descriptor, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail(VmError::from_os(errno, "write", "descriptor " + std::to_string(descriptor)));
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

Result<void> write_zeros(int descriptor, std::uint64_t size) {
  struct stat status{};
  const off_t at = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) ? ::lseek(descriptor, 0, SEEK_CUR) : -1;
  // What is beyond the end reads as zeros; over what is there they must be written.
  if (at < 0 || at < status.st_size || (::fcntl(descriptor, F_GETFL) & O_APPEND) != 0)
    return write_zero_bytes(descriptor, size);
  const off_t end = at + static_cast<off_t>(std::min<std::uint64_t>(size, INT64_MAX - static_cast<std::uint64_t>(at)));
  if (::ftruncate(descriptor, end) != 0 || ::lseek(descriptor, end, SEEK_SET) != end)
    return fail(VmError::from_os(errno, "extend", "descriptor " + std::to_string(descriptor)));
  return {};
}

std::uint64_t copy_in_kernel(int from, std::uint64_t offset, std::uint64_t size, int to,
                             const std::atomic<bool>* stop) {
  std::uint64_t done = 0;
#ifdef __linux__
  // The kernel ends a step only for a deadly signal; so many bytes that the calls cost nothing.
  constexpr std::uint64_t kStep = 16 * kMiB;
  // Each is refused for some pairs of files (another file system, a pipe, an old kernel): the caller copies the rest.
  struct stat status{};
  const bool to_file = ::fstat(to, &status) == 0 && S_ISREG(status.st_mode);
  while (to_file && done < size && !is_set(stop)) {
    off64_t at = static_cast<off64_t>(offset + done);
    const auto want = static_cast<std::size_t>(std::min(size - done, kStep));
    const ssize_t put = ::copy_file_range(from, &at, to, nullptr, want, 0);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) break;
    done += static_cast<std::uint64_t>(put);
  }
  while (done < size && !is_set(stop)) {
    off_t at = static_cast<off_t>(offset + done);
    const auto want = static_cast<std::size_t>(std::min(size - done, kStep));
    const ssize_t put = ::sendfile(to, from, &at, want);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) break;
    done += static_cast<std::uint64_t>(put);
  }
#else
  (void)from, (void)offset, (void)size, (void)to, (void)stop;
#endif
  return done;
}

}  // namespace vm_platform::iso
