// Shared by the sources of PCI functions: what configuration space alone tells.
#pragma once

#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// Fills everything that follows from `info.config`, for sources that have no kernel to ask.
void fill_from_config(PciDeviceInfo& info);

}  // namespace vm_platform
