// What a loader reads from: a file, or bytes in memory (tests, fuzzing).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vm_platform/core.hpp>

namespace vm_platform::boot {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  [[nodiscard]] virtual std::uint64_t size() const noexcept = 0;
  [[nodiscard]] virtual const std::string& name() const noexcept = 0;
  /// Fills `out` from `offset`; fails with `Corrupt` where the source ends before.
  [[nodiscard]] virtual Result<void> read(std::uint64_t offset, std::span<std::byte> out) const = 0;
};

class MemorySource final : public ByteSource {
 public:
  MemorySource(std::string name, std::span<const std::byte> bytes) : name_(std::move(name)), bytes_(bytes) {}
  [[nodiscard]] std::uint64_t size() const noexcept override { return bytes_.size(); }
  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] Result<void> read(std::uint64_t offset, std::span<std::byte> out) const override;

 private:
  std::string name_;
  std::span<const std::byte> bytes_;
};

/// A regular file, open for as long as this object lives.
class FileSource final : public ByteSource {
 public:
  /// `what` names the file's role in errors: "kernel", "initrd".
  static Result<FileSource> open(const std::string& path, const std::string& what);
  FileSource(FileSource&& other) noexcept;
  FileSource& operator=(FileSource&&) = delete;
  ~FileSource() override;

  [[nodiscard]] std::uint64_t size() const noexcept override { return size_; }
  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  [[nodiscard]] Result<void> read(std::uint64_t offset, std::span<std::byte> out) const override;

 private:
  FileSource(std::string name, int descriptor, std::uint64_t size)
      : name_(std::move(name)), descriptor_(descriptor), size_(size) {}
  std::string name_;
  int descriptor_;
  std::uint64_t size_;
};

}  // namespace vm_platform::boot
