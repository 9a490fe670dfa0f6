#include "passthrough/sysfs.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <utility>

namespace vm_platform {
namespace {

struct CloseDirectory {
  void operator()(DIR* directory) const { ::closedir(directory); }
};

std::vector<std::string> names_in(DIR* opened) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, CloseDirectory> directory(opened);
  if (directory == nullptr) return names;
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  std::ranges::sort(names);
  return names;
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
  KernelDirectory directory;
  directory.path_ = path;
  directory.directory_ = Descriptor(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.directory_.valid()) return fail(VmError::from_os(errno, "open", path.string()));
  return directory;
}

long KernelDirectory::read_bytes(const char* name, void* buffer, std::size_t capacity, long offset) const {
  const Descriptor file(::openat(directory_.get(), name, O_RDONLY | O_CLOEXEC));
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

bool KernelDirectory::exists(const char* name) const { return ::faccessat(directory_.get(), name, F_OK, 0) == 0; }

std::vector<std::string> KernelDirectory::list(const char* name) const {
  // A descriptor of its own, because reading a directory moves the descriptor's position.
  const int descriptor = ::openat(directory_.get(), name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return {};
  DIR* opened = ::fdopendir(descriptor);
  if (opened == nullptr) ::close(descriptor);
  return names_in(opened);
}

Result<std::string> read_kernel_file(const std::filesystem::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return fail(VmError::from_os(errno, "open", path.string()));
  // Files of the kernel have no size of their own to go by; large ones on disk (pci.ids) should not be copied about.
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

std::vector<std::string> list_directory(const std::filesystem::path& path) { return names_in(::opendir(path.c_str())); }

}  // namespace vm_platform
