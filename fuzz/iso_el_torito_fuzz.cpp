// El Torito: the input is the boot catalogue.
#include "fuzz/iso_fuzz_input.hpp"
#include "iso/reader.hpp"

using namespace vm_platform;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto source = iso::make_memory_source(std::as_bytes(std::span(data, size)));
  if (const auto catalog = iso::read_boot_catalog(*source, 0)) {
    for (const IsoBootImage& image : catalog->images) {
      (void)to_string(image.emulation);
      (void)iso_boot_platform_name(image.platform);
    }
  }
  return 0;
}
