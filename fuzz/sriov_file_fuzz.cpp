// Declarative SR-IOV files from anywhere.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vm_platform/sriov.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vm_platform;
  const auto file = parse_sriov_file(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!file) return 0;
  for (const SriovDeclaration& declaration : *file)
    for (const auto& [index, config] : declaration.functions)
      if (index >= declaration.count) __builtin_trap();
  return 0;
}
