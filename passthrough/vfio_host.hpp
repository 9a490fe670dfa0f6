// Opening devices through either of the kernel's interfaces; VfioHost::open chooses.
#pragma once

#include <vm_platform/vfio.hpp>

#include "passthrough/vfio_system.hpp"

namespace vm_platform {

/// As `VfioHost::open`, on a kernel that a test may stand in for.
Result<std::unique_ptr<VfioHost>> open_vfio_host(VfioSystem& system, VfioOptions options);
/// Devices by their own files, into an address space of iommufd.
Result<std::unique_ptr<VfioHost>> open_iommufd_host(VfioSystem& system, VfioOptions options);

/// `Busy` where another driver than VFIO's drives the function.
[[nodiscard]] Result<void> require_vfio_driver(const VfioOptions& options, const std::string& name);
/// Why the kernel refused to hand a device out, with what to do.
[[nodiscard]] VmError open_failure(int os_error, const std::string& name);

}  // namespace vm_platform
