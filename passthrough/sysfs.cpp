#include "passthrough/sysfs.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

namespace vm_platform {
namespace {

/// Without opendir(3), which allocates 32 KiB and asks the kernel what it was given.
std::vector<std::string> names_in(int directory) {
  std::vector<std::string> names;
  alignas(dirent64) std::array<char, 8192> buffer;
  for (;;) {
    const ssize_t length = ::getdents64(directory, buffer.data(), buffer.size());
    if (length <= 0) return names;
    for (ssize_t at = 0; at < length;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      at += entry->d_reclen;
    }
  }
}

std::optional<std::string> read_link(int directory, const char* name) {
  std::array<char, 1024> target;
  const ssize_t length = ::readlinkat(directory, name, target.data(), target.size());
  if (length <= 0) return std::nullopt;
  return std::string(target.data(), static_cast<std::size_t>(length));
}

}  // namespace

Descriptor::Descriptor(Descriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}
Descriptor::~Descriptor() {
  if (descriptor_ >= 0) ::close(descriptor_);
}
int Descriptor::release() noexcept { return std::exchange(descriptor_, -1); }

Result<KernelDirectory> KernelDirectory::open(const std::filesystem::path& path) {
  Descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return fail(VmError::from_os(errno, "open", path.string()));
  return KernelDirectory(std::move(directory));
}

std::optional<KernelDirectory> KernelDirectory::below(const char* name) const {
  Descriptor directory(::openat(directory_.get(), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid()) return std::nullopt;
  return KernelDirectory(std::move(directory));
}

Descriptor KernelDirectory::open_file(const char* name) const {
  return Descriptor(::openat(directory_.get(), name, O_RDONLY | O_CLOEXEC));
}

long KernelDirectory::read_bytes(const char* name, void* buffer, std::size_t capacity, long offset) const {
  const Descriptor file = open_file(name);
  if (!file.valid()) return -1;
  return offset == 0 ? ::read(file.get(), buffer, capacity) : ::pread(file.get(), buffer, capacity, offset);
}

std::optional<std::string> KernelDirectory::read(const char* name) const {
  std::array<char, 4096> buffer;  // sysfs attributes are one page at most
  long length = read_bytes(name, buffer.data(), buffer.size());
  if (length < 0) return std::nullopt;
  if (length > 0 && buffer[static_cast<std::size_t>(length) - 1] == '\n') --length;
  return std::string(buffer.data(), static_cast<std::size_t>(length));
}

std::optional<std::string> KernelDirectory::link(const char* name) const { return read_link(directory_.get(), name); }

std::vector<std::string> KernelDirectory::list() const {
  ::lseek(directory_.get(), 0, SEEK_SET);
  return names_in(directory_.get());
}

Result<std::string> read_kernel_file(const std::filesystem::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return fail(VmError::from_os(errno, "open", path.string()));
  // Files of the kernel have no size of their own to go by; large ones on disk (option ROMs) should not be copied
  // about.
  struct stat status;
  std::size_t room = 4096;
  if (::fstat(file.get(), &status) == 0 && status.st_size > 4096) room = static_cast<std::size_t>(status.st_size) + 1;
  std::string content;
  std::size_t length = 0;
  for (;;) {
    ssize_t got = 0;
    content.resize_and_overwrite(length + room, [&](char* buffer, std::size_t size) {
      got = ::read(file.get(), buffer + length, size - length);
      return length + static_cast<std::size_t>(std::max<ssize_t>(got, 0));
    });
    if (got < 0) return fail(VmError::from_os(errno, "read", path.string()));
    if (got == 0) return content;
    length = content.size();
    room = std::max<std::size_t>(room - std::min(room, static_cast<std::size_t>(got)), 4096);
  }
}

Result<void> write_kernel_file(const std::filesystem::path& path, std::string_view text, std::string operation) {
  const Descriptor file(::open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC));
  if (!file.valid()) return fail(VmError::from_os(errno, std::move(operation), "by writing " + path.string()));
  const ssize_t length = ::write(file.get(), text.data(), text.size());
  if (length < 0) {
    return fail(
        VmError::from_os(errno, std::move(operation), "by writing '" + std::string(text) + "' to " + path.string()));
  }
  return {};
}

std::optional<std::string> link_name(const std::filesystem::path& path) {
  auto target = read_link(AT_FDCWD, path.c_str());
  if (!target) return std::nullopt;
  const auto slash = target->rfind('/');
  return slash == std::string::npos ? *target : target->substr(slash + 1);
}

std::vector<std::string> list_directory(const std::filesystem::path& path) {
  const Descriptor directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  auto names = directory.valid() ? names_in(directory.get()) : std::vector<std::string>{};
  std::ranges::sort(names);
  return names;
}

}  // namespace vm_platform
