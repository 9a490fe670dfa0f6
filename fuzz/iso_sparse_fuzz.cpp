// Rock Ridge sparse files: size and depth, then the stored bytes.
#include "fuzz/iso_fuzz_input.hpp"
#include "iso/sparse.hpp"

using namespace vm_platform;
using namespace vm_platform::iso;

namespace {
struct Ignore final : SparseParts {
  Result<void> data(std::uint64_t, std::uint64_t, std::uint64_t) override { return {}; }
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes input = std::as_bytes(std::span(data, size));
  IsoEntry file;
  file.size = take_number(input, 8);
  file.sparse_depth = static_cast<std::uint8_t>(take_number(input, 1) % kMaxSparseDepth + 1);
  file.stored_size = input.size();
  file.set_extent({0, input.size()});
  const auto source = make_memory_source(input);
  Ignore ignore;
  (void)visit_sparse(*source, file, 0, file.size, ignore);
  std::array<std::byte, 4096> buffer{};
  for (const std::uint64_t offset :
       {std::uint64_t{0}, file.size / 2, file.size - std::min<std::uint64_t>(file.size, 99)}) {
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), file.size - offset));
    (void)read_sparse(*source, file, offset, std::span(buffer).first(want));
  }
  return 0;
}
