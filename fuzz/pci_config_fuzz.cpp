// Configuration space from anywhere: every walk ends, every decoder keeps inside its bytes.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vm_platform/pci_device.hpp>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vm_platform;
  const ConfigSpace config(std::span(data, size));
  const PciCapabilities found = walk_capabilities(config);
  // A list cannot have more entries than there are aligned places for them.
  if (found.list.size() > ConfigSpace::kMaxSize / 4) __builtin_trap();
  for (const PciCapability& capability : found.list) {
    (void)describe_capability(config, capability);
    (void)capability_name(capability);
  }
  (void)decode_express(config, found);
  (void)decode_sriov(config, found);
  (void)decode_resizable_bars(config, found, PciExtCapId::VfResizableBar);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_pci_dump(text);
  (void)PciAddress::parse(text.substr(0, 32));
  return 0;
}
