#include "boot/byte_source.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace vm_platform::boot {
namespace {
std::unexpected<VmError> ended(const std::string& name) {
  return fail(VmError(ErrorCode::Corrupt, "read", name, "it is shorter than it says (truncated?)")
                  .with_hint("copy or build the file again"));
}
}  // namespace

Result<void> MemorySource::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > bytes_.size() || out.size() > bytes_.size() - offset) return ended(name_);
  if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
  return {};
}

Result<FileSource> FileSource::open(const std::string& path, const std::string& what) {
  const std::string operation = "open " + what;
  // Non-blocking, so that a FIFO given by mistake is an error and not a wait.
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (descriptor < 0) {
    const int error = errno;
    return fail(VmError::from_os(error, operation, path)
                    .with_hint(error == ENOENT ? "check the path" : "check who may read it: ls -l " + path));
  }
  FileSource file(path, descriptor, 0);
  struct stat information{};
  if (::fstat(descriptor, &information) != 0) return fail(VmError::from_os(errno, operation, path));
  if (S_ISDIR(information.st_mode))
    return fail(VmError(ErrorCode::InvalidArgument, operation, path, "is a directory").with_hint("name a file in it"));
  if (!S_ISREG(information.st_mode)) {
    return fail(VmError(ErrorCode::InvalidArgument, operation, path, "is not a regular file")
                    .with_hint("copy its contents to a file first"));
  }
  if (information.st_size == 0)
    return fail(VmError(ErrorCode::Corrupt, operation, path, "is empty").with_hint("copy or build the file again"));
  file.size_ = static_cast<std::uint64_t>(information.st_size);
  return file;
}

FileSource::FileSource(FileSource&& other) noexcept
    : name_(std::move(other.name_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

FileSource::~FileSource() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Result<void> FileSource::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > size_ || out.size() > size_ - offset) return ended(name_);
  while (!out.empty()) {
    const ssize_t got =
        ::pread(descriptor_, out.data(), std::min<std::size_t>(out.size(), 1U << 30), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(VmError::from_os(errno, "read", name_));
    if (got == 0) return ended(name_);  // it became shorter since it was opened
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

}  // namespace vm_platform::boot
