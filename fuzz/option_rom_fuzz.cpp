// Option ROMs from anywhere.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vm_platform/gpu.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto rom = vm_platform::parse_option_rom(std::span(data, size));
  if (rom && rom->images.empty()) __builtin_trap();
  return 0;
}
