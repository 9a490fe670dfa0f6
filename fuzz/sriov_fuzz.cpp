// Netlink replies and declarative files from anywhere.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "passthrough/vf_netlink.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)vm_platform::parse_vf_link(std::as_bytes(std::span(data, size)));
  (void)vm_platform::parse_sriov_file(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
