// What the host uses a device for, as people are told.
#pragma once

#include <span>
#include <string>
#include <vm_platform/passthrough.hpp>

namespace vm_platform {

/// "nvme0n1p1 is mounted on /; nvme0n1p2 is used for swap"
[[nodiscard]] std::string list_of(std::span<const DeviceUse> uses);

}  // namespace vm_platform
