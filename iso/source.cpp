#include "iso/source.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

namespace vm_platform::iso {

std::unexpected<VmError> past_end(const Source& source, std::uint64_t offset, std::uint64_t size) {
  return fail(VmError(ErrorCode::Corrupt, "read", source.name(),
                      std::to_string(size) + " bytes at " + at_byte(offset) + " are past the end of the image (" +
                          std::to_string(source.size()) + " bytes)")
                  .with_hint("the image is truncated or damaged: compare its size and checksum with its origin"));
}

namespace {

class MemorySource final : public Source {
 public:
  explicit MemorySource(Bytes image) : image_(image) {}
  [[nodiscard]] std::uint64_t size() const noexcept override { return image_.size(); }
  [[nodiscard]] const std::string& name() const noexcept override { return name_; }
  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (!within(offset, into.size(), image_.size())) return past_end(*this, offset, into.size());
    if (!into.empty()) std::memcpy(into.data(), image_.data() + offset, into.size());
    return {};
  }
  Result<Bytes> view(std::uint64_t offset, std::uint64_t size) const override {
    if (!within(offset, size, image_.size())) return past_end(*this, offset, size);
    return image_.subspan(static_cast<std::size_t>(offset), static_cast<std::size_t>(size));
  }

 private:
  Bytes image_;
  std::string name_ = "image in memory";
};

class RawSectorSource final : public Source {
 public:
  RawSectorSource(std::unique_ptr<Source> inner, std::uint32_t sector_size, std::uint32_t data_offset)
      : inner_(std::move(inner)), sector_size_(sector_size), data_offset_(data_offset) {}
  [[nodiscard]] std::uint64_t size() const noexcept override { return inner_->size() / sector_size_ * kUserData; }
  [[nodiscard]] const std::string& name() const noexcept override { return inner_->name(); }

  Result<void> read(std::uint64_t offset, std::span<std::byte> into) const override {
    if (!within(offset, into.size(), size())) return past_end(*this, offset, into.size());
    constexpr std::uint64_t kBatch = 64;
    std::vector<std::byte> raw;
    while (!into.empty()) {
      const std::uint64_t sector = offset / kUserData;
      std::uint64_t within_sector = offset % kUserData;
      const std::uint64_t sectors = std::min(kBatch, (within_sector + into.size() + kUserData - 1) / kUserData);
      raw.resize(sectors * sector_size_);
      if (auto done = inner_->read(sector * sector_size_, raw); !done) return done;
      for (std::uint64_t i = 0; i < sectors; ++i) {
        const std::size_t take =
            static_cast<std::size_t>(std::min<std::uint64_t>(kUserData - within_sector, into.size()));
        std::memcpy(into.data(), raw.data() + i * sector_size_ + data_offset_ + within_sector, take);
        into = into.subspan(take);
        offset += take;
        within_sector = 0;
      }
    }
    return {};
  }
  Result<Bytes> view(std::uint64_t, std::uint64_t) const override {
    return fail(ErrorCode::Unsupported, "view", name(), "raw sectors hold user data in pieces of 2048 bytes");
  }

 private:
  static constexpr std::uint64_t kUserData = 2048;
  std::unique_ptr<Source> inner_;
  std::uint32_t sector_size_, data_offset_;
};

}  // namespace

std::unique_ptr<Source> make_memory_source(Bytes image) { return std::make_unique<MemorySource>(image); }

std::unique_ptr<Source> make_raw_sector_source(std::unique_ptr<Source> inner, std::uint32_t sector_size,
                                               std::uint32_t data_offset) {
  return std::make_unique<RawSectorSource>(std::move(inner), sector_size, data_offset);
}

}  // namespace vm_platform::iso
