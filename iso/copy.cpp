#include "iso/copy.hpp"

#include <algorithm>

#include "iso/reader.hpp"

namespace vm_platform {

Result<std::uint64_t> SimpleIso9660::copy_to_descriptor(const IsoEntry& file, int descriptor) const {
  if (auto ok = iso::check_readable(file); !ok) return fail(std::move(ok.error()));
  const iso::Source& source = *impl_->source;
  std::uint64_t done = 0;
  if (source.descriptor() >= 0 && file.zisofs.block_log2 == 0) {
    for (const IsoExtent& extent : file.extents()) {
      if (!iso::within(extent.offset, extent.size, source.size())) break;  // `read` below says what is missing
      const std::uint64_t copied = iso::copy_in_kernel(source.descriptor(), extent.offset, extent.size, descriptor);
      done += copied;
      if (copied != extent.size) break;
    }
  }
  std::vector<std::byte> buffer;
  while (done < file.size) {
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
