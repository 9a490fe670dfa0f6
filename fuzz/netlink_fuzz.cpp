// Replies of netlink (virtual functions, rate objects and ports of devlink) and of VFIO (capability chains) from
// anywhere.
#include <cstddef>
#include <cstdint>
#include <span>

#include "passthrough/devlink.hpp"
#include "passthrough/vf_netlink.hpp"
#include "passthrough/vfio_caps.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vm_platform;
  const auto bytes = std::as_bytes(std::span(data, size));
  const DevlinkHandle handle{"pci", "0000:3b:00.0"};
  (void)parse_vf_link(bytes);
  (void)parse_devlink_rate(bytes, handle);
  (void)parse_devlink_port(bytes, handle);
  VfioRegion region;
  region.size = 1U << 20;
  read_region_capabilities(bytes, region);
  // What may be mapped lies in the region, whatever the answer says.
  for (const IovaRange& part : region.sparse)
    if (part.first > part.last || part.last >= region.size) __builtin_trap();
  DmaLimits limits;
  read_iommu_capabilities(bytes, limits);
  return 0;
}
