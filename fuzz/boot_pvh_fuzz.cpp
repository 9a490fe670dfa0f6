#include "fuzz/boot_loaders.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vm_platform::boot::fuzz_loader(vm_platform::BootMethod::Pvh, data, size);
  return 0;
}
