#include <io.h>
#include <windows.h>

#include <algorithm>
#include <mutex>

#include "iso/source.hpp"
#include "iso/windows/wide.hpp"

namespace vm_platform::iso {
namespace {

class FileSource final : public Source {
 public:
  FileSource(HANDLE file, int descriptor, bool owned, std::string name)
      : file_(file), descriptor_(descriptor), owned_(owned), name_(std::move(name)) {}
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;
  ~FileSource() override {
    if (mapping_ != nullptr) UnmapViewOfFile(mapping_);
    if (section_ != nullptr) CloseHandle(section_);
    if (owned_) CloseHandle(file_);
  }

  Result<void> measure() {
    LARGE_INTEGER size{};
    if (!GetFileSizeEx(file_, &size)) return fail(windows_error("examine", name_));
    size_ = static_cast<std::uint64_t>(size.QuadPart);
    return {};
  }

  [[nodiscard]] std::uint64_t size() const noexcept override { return size_; }
  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] int descriptor() const noexcept override { return descriptor_; }

  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (!within(offset, into.size(), size_)) return past_end(*this, offset, into.size());
    while (!into.empty()) {
      OVERLAPPED at{};
      at.Offset = static_cast<DWORD>(offset);
      at.OffsetHigh = static_cast<DWORD>(offset >> 32);
      DWORD got = 0;
      const auto want = static_cast<DWORD>(std::min<std::size_t>(into.size(), std::size_t{1} << 30));
      if (!ReadFile(file_, into.data(), want, &got, &at)) {
        if (GetLastError() == ERROR_HANDLE_EOF) return past_end(*this, offset, into.size());
        return fail(windows_error("read at " + at_byte(offset) + " of", name_));
      }
      if (got == 0) return past_end(*this, offset, into.size());
      into = into.subspan(got);
      offset += got;
    }
    return {};
  }

  Result<Bytes> view(std::uint64_t offset, std::uint64_t size) const override {
    if (!within(offset, size, size_)) return past_end(*this, offset, size);
    if (size == 0) return Bytes{};
    const std::lock_guard lock(mapping_mutex_);
    if (mapping_ == nullptr) {
      section_ = CreateFileMappingW(file_, nullptr, PAGE_READONLY, 0, 0, nullptr);
      if (section_ == nullptr) return fail(windows_error("map", name_));
      mapping_ = MapViewOfFile(section_, FILE_MAP_READ, 0, 0, 0);
      if (mapping_ == nullptr) return fail(windows_error("map", name_));
    }
    return Bytes(static_cast<const std::byte*>(mapping_) + offset, static_cast<std::size_t>(size));
  }

 private:
  HANDLE file_;
  int descriptor_;
  bool owned_;
  std::string name_;
  std::uint64_t size_ = 0;
  mutable std::mutex mapping_mutex_;
  mutable HANDLE section_ = nullptr;
  mutable void* mapping_ = nullptr;
};

Result<std::unique_ptr<Source>> measured(std::unique_ptr<FileSource> source) {
  if (auto done = source->measure(); !done) return fail(std::move(done.error()));
  return source;
}

}  // namespace

Result<std::unique_ptr<Source>> open_file_source(const std::string& path) {
  HANDLE file = CreateFileW(widen(path).c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                            nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) return fail(windows_error("open image", path));
  return measured(std::make_unique<FileSource>(file, -1, true, path));
}

Result<std::unique_ptr<Source>> open_descriptor_source(int descriptor) {
  const auto file = reinterpret_cast<HANDLE>(_get_osfhandle(descriptor));
  const std::string name = "descriptor " + std::to_string(descriptor);
  if (file == INVALID_HANDLE_VALUE) return fail(ErrorCode::InvalidArgument, "open image", name, "is not an open file");
  return measured(std::make_unique<FileSource>(file, descriptor, false, name));
}

}  // namespace vm_platform::iso
