#include "iso/copy.hpp"

#include <algorithm>

#include "iso/sparse.hpp"

namespace vm_platform {

namespace iso {

Result<void> write_zero_bytes(int descriptor, std::uint64_t size) {
  const std::vector<std::byte> zeros(static_cast<std::size_t>(std::min<std::uint64_t>(size, 64 * kKiB)));
  while (size > 0) {
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(size, zeros.size()));
    if (auto put = write_all(descriptor, Bytes(zeros).first(want)); !put) return put;
    size -= want;
  }
  return {};
}

namespace {

Result<void> unless_stopped(const std::atomic<bool>* stop, const IsoEntry& file) {
  if (!is_set(stop)) return {};
  return fail(ErrorCode::Interrupted, "copy", "'" + file.name + "'", "was stopped");
}

/// Writes a sparse file from its beginning to its end.
class ToDescriptor final : public SparseParts {
 public:
  ToDescriptor(const Source& source, const IsoEntry& file, int descriptor, const std::atomic<bool>* stop)
      : source_(source), file_(file), descriptor_(descriptor), stop_(stop) {}

  Result<void> data(std::uint64_t offset, std::uint64_t stored, std::uint64_t size) override {
    if (auto done = zeros_to(offset); !done) return done;
    buffer_.resize(static_cast<std::size_t>(std::clamp<std::uint64_t>(size, buffer_.size(), 1 * kMiB)));
    for (const std::uint64_t end = offset + size; at_ < end;) {
      if (auto go_on = unless_stopped(stop_, file_); !go_on) return go_on;
      const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(buffer_.size(), end - at_));
      const auto part = std::span(buffer_).first(want);
      auto got = read_stored(source_, file_, stored + (at_ - offset), part);
      if (!got) return fail(std::move(got.error()));
      if (auto put = write_all(descriptor_, part); !put) return put;
      at_ += want;
    }
    return {};
  }
  Result<void> zeros_to(std::uint64_t offset) {
    if (offset == at_) return {};
    return write_zeros(descriptor_, offset - std::exchange(at_, offset));
  }

 private:
  const Source& source_;
  const IsoEntry& file_;
  int descriptor_;
  const std::atomic<bool>* stop_;
  std::uint64_t at_ = 0;
  std::vector<std::byte> buffer_;
};

}  // namespace
}  // namespace iso

Result<std::uint64_t> SimpleIso9660::copy_to_descriptor(const IsoEntry& file, int descriptor,
                                                        const std::atomic<bool>* stop) const {
  if (auto ok = iso::check_readable(file); !ok) return fail(std::move(ok.error()));
  const iso::Source& source = *impl_->source;
  if (file.sparse_depth != 0) {
    iso::ToDescriptor out(source, file, descriptor, stop);
    auto copied = iso::visit_sparse(source, file, 0, file.size, out);
    if (copied) copied = out.zeros_to(file.size);
    if (!copied) return fail(std::move(copied.error()));
    return file.size;
  }
  std::uint64_t done = 0;
  if (source.descriptor() >= 0 && iso::stored_plainly(file)) {
    for (const IsoExtent& extent : file.extents()) {
      if (!iso::within(extent.offset, extent.size, source.size())) break;  // `read` below says what is missing
      const std::uint64_t copied =
          iso::copy_in_kernel(source.descriptor(), extent.offset, extent.size, descriptor, stop);
      done += copied;
      if (copied != extent.size) break;
    }
  }
  std::vector<std::byte> buffer;
  while (done < file.size) {
    if (auto go_on = iso::unless_stopped(stop, file); !go_on) return fail(std::move(go_on.error()));
    if (buffer.empty()) buffer.resize(static_cast<std::size_t>(std::min<std::uint64_t>(file.size - done, 1 * kMiB)));
    auto got = read(file, done, buffer);
    if (!got) return fail(std::move(got.error()));
    if (*got == 0) return fail(ErrorCode::Corrupt, "read", "'" + file.name + "'", "ends early");
    if (auto put = iso::write_all(descriptor, std::span(buffer).first(*got)); !put) return fail(std::move(put.error()));
    done += *got;
  }
  return done;
}

}  // namespace vm_platform
