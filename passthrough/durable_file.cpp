#include "passthrough/durable_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "passthrough/sysfs.hpp"

namespace vm_platform {
namespace {

Result<void> sync_folder(const std::filesystem::path& file, const std::string& operation) {
  const Descriptor folder(::open(file.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid() || ::fsync(folder.get()) != 0) return fail(VmError::from_os(errno, operation, file));
  return {};
}

std::string beside(const std::filesystem::path& file) { return file.string() + ".vm-platform-new"; }

}  // namespace

Result<void> write_durably(const std::filesystem::path& file, std::string_view content, const std::string& operation,
                           unsigned mode) {
  std::error_code error;
  std::filesystem::create_directories(file.parent_path(), error);
  const auto temporary = beside(file);
  const Descriptor out(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (!out.valid()) return fail(VmError::from_os(errno, operation, temporary));
  while (!content.empty()) {
    const ssize_t length = ::write(out.get(), content.data(), content.size());
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) return fail(VmError::from_os(errno, operation, temporary));
    content.remove_prefix(static_cast<std::size_t>(length));
  }
  if (::fchmod(out.get(), mode) != 0 || ::fsync(out.get()) != 0 || ::rename(temporary.c_str(), file.c_str()) != 0)
    return fail(VmError::from_os(errno, operation, file));
  return sync_folder(file, operation);
}

void remove_unfinished(const std::filesystem::path& file) { ::unlink(beside(file).c_str()); }

Result<void> remove_durably(const std::filesystem::path& file, const std::string& operation) {
  if (::unlink(file.c_str()) != 0) {
    if (errno == ENOENT) return {};
    return fail(VmError::from_os(errno, operation, file));
  }
  return sync_folder(file, operation);
}

}  // namespace vm_platform
