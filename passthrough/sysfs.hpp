// Reading and writing small kernel files below an injectable root.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// A descriptor that the destructor closes.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int descriptor) : descriptor_(descriptor) {}
  Descriptor(Descriptor&& other) noexcept;
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  [[nodiscard]] int get() const noexcept { return descriptor_; }
  [[nodiscard]] bool valid() const noexcept { return descriptor_ >= 0; }
  [[nodiscard]] int release() noexcept;

 private:
  int descriptor_ = -1;
};

/// A directory such as /sys/bus/pci/devices, opened once so that thousands of small reads below it are cheap: the
/// kernel looks up each name from here on, not from the root and through links.
class KernelDirectory {
 public:
  static Result<KernelDirectory> open(const std::filesystem::path& path);

  /// A directory in this one; nothing where it is not there or not readable.
  [[nodiscard]] std::optional<KernelDirectory> below(const char* name) const;

  /// Invalid where the file is not there or not readable.
  [[nodiscard]] Descriptor open_file(const char* name) const;
  /// The file's text without the final newline; nothing where it is not there or not readable.
  [[nodiscard]] std::optional<std::string> read(const char* name) const;
  /// Up to `capacity` bytes from `offset` on into `buffer`; how many, or -1.
  [[nodiscard]] long read_bytes(const char* name, void* buffer, std::size_t capacity, long offset = 0) const;
  /// Where a symbolic link points; nothing where it is not one.
  [[nodiscard]] std::optional<std::string> link(const char* name) const;
  /// Names in the directory, in no order. Moves the position of the one descriptor: not for two threads at once.
  [[nodiscard]] std::vector<std::string> list() const;

 private:
  explicit KernelDirectory(Descriptor directory) : directory_(std::move(directory)) {}

  Descriptor directory_;
};

/// The whole file; `NotFound`, `PermissionDenied` and so on name it.
[[nodiscard]] Result<std::string> read_kernel_file(const std::filesystem::path& path);
/// One `write(2)` of all of `text`, as sysfs wants it. `operation` says what it is for ("unbind", "set
/// driver_override").
[[nodiscard]] Result<void> write_kernel_file(const std::filesystem::path& path, std::string_view text,
                                             std::string operation);
/// Last component of the link's target, as in `driver -> ../../bus/pci/drivers/nvme`; nothing where it is no link.
[[nodiscard]] std::optional<std::string> link_name(const std::filesystem::path& path);
/// Names in a directory, sorted; empty where it cannot be read.
[[nodiscard]] std::vector<std::string> list_directory(const std::filesystem::path& path);

}  // namespace vm_platform
