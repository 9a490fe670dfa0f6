// zisofs: what the directory record says, then the stored bytes.
#include "fuzz/iso_fuzz_input.hpp"
#include "iso/reader.hpp"

using namespace vm_platform;
using namespace vm_platform::iso;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes input = std::as_bytes(std::span(data, size));
  IsoEntry file;
  file.size = take_number(input, 8);
  file.zisofs.version2 = take_number(input, 1) % 2 != 0;
  file.zisofs.block_log2 = static_cast<std::uint8_t>(15 + take_number(input, 1) % 3);
  file.zisofs.header_size_div4 = static_cast<std::uint8_t>(take_number(input, 1));
  file.stored_size = input.size();
  file.set_extent({0, input.size()});
  const auto source = make_memory_source(input);
  std::vector<std::byte> buffer(200'000);
  for (const std::uint64_t offset :
       {std::uint64_t{0}, file.size / 2, file.size - std::min<std::uint64_t>(file.size, 99)}) {
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), file.size - offset));
    (void)read_zisofs(*source, file, offset, std::span(buffer).first(want));
  }
  return 0;
}
