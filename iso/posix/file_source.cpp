#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#include "iso/source.hpp"

namespace vm_platform::iso {
namespace {

class FileSource final : public Source {
 public:
  FileSource(int descriptor, bool owned, std::string name)
      : descriptor_(descriptor), owned_(owned), name_(std::move(name)) {}
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;
  ~FileSource() override {
    if (mapping_ != nullptr) ::munmap(mapping_, static_cast<std::size_t>(size_));
    if (owned_) ::close(descriptor_);
  }

  Result<void> measure() {
    struct stat status{};
    if (::fstat(descriptor_, &status) != 0) return fail(VmError::from_os(errno, "examine", name_));
    if (S_ISDIR(status.st_mode)) return fail(ErrorCode::InvalidArgument, "open", name_, "is a directory, not an image");
    if (S_ISREG(status.st_mode)) {
      size_ = static_cast<std::uint64_t>(status.st_size);
      return {};
    }
    // A block device has no size in its status; its end can be sought.
    const off_t end = ::lseek(descriptor_, 0, SEEK_END);
    if (end < 0) {
      return fail(VmError(ErrorCode::InvalidArgument, "open", name_, "is neither a file nor a block device")
                      .with_hint("images are read at any offset: save it to a file first"));
    }
    size_ = static_cast<std::uint64_t>(end);
    return {};
  }

  [[nodiscard]] std::uint64_t size() const noexcept override { return size_; }
  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] int descriptor() const noexcept override { return descriptor_; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (!within(offset, into.size(), size_)) return past_end(*this, offset, into.size());
    while (!into.empty()) {
      const ssize_t got = ::pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fail(VmError::from_os(errno, "read at " + at_byte(offset) + " of", name_));
      if (got == 0) return past_end(*this, offset, into.size());  // made shorter since it was opened
      into = into.subspan(static_cast<std::size_t>(got));
      offset += static_cast<std::uint64_t>(got);
    }
    return {};
  }

  Result<Bytes> view(std::uint64_t offset, std::uint64_t size) const override {
    if (!within(offset, size, size_)) return past_end(*this, offset, size);
    if (size == 0) return Bytes{};
    const std::lock_guard lock(mapping_mutex_);
    if (mapping_ == nullptr) {
      void* at = ::mmap(nullptr, static_cast<std::size_t>(size_), PROT_READ, MAP_SHARED, descriptor_, 0);
      if (at == MAP_FAILED) return fail(VmError::from_os(errno, "map", name_));
      mapping_ = at;
    }
    return Bytes(static_cast<const std::byte*>(mapping_) + offset, static_cast<std::size_t>(size));
  }

 private:
  int descriptor_;
  bool owned_;
  std::string name_;
  std::uint64_t size_ = 0;
  mutable std::mutex mapping_mutex_;
  mutable void* mapping_ = nullptr;
};

Result<std::unique_ptr<Source>> measured(std::unique_ptr<FileSource> source) {
  if (auto done = source->measure(); !done) return fail(std::move(done.error()));
  return source;
}

}  // namespace

Result<std::unique_ptr<Source>> open_file_source(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (descriptor < 0) return fail(VmError::from_os(errno, "open image", path));
  return measured(std::make_unique<FileSource>(descriptor, true, path));
}

Result<std::unique_ptr<Source>> open_descriptor_source(int descriptor) {
  return measured(std::make_unique<FileSource>(descriptor, false, "descriptor " + std::to_string(descriptor)));
}

}  // namespace vm_platform::iso
