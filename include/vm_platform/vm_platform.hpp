// The whole platform. Programs that use a part of it include that part's header alone.
#pragma once

// IWYU pragma: begin_exports
#include <vm_platform/boot.hpp>
#include <vm_platform/core.hpp>
#include <vm_platform/device_identity.hpp>
#include <vm_platform/dirty_tracking.hpp>
#include <vm_platform/gpu.hpp>
#include <vm_platform/host_setup.hpp>
#include <vm_platform/iommu.hpp>
#include <vm_platform/iso.hpp>
#include <vm_platform/iso_boot.hpp>
#include <vm_platform/iso_extract.hpp>
#include <vm_platform/jit_memory.hpp>
#include <vm_platform/memory.hpp>
#include <vm_platform/npu.hpp>
#include <vm_platform/passthrough.hpp>
#include <vm_platform/pci.hpp>
#include <vm_platform/pci_device.hpp>
#include <vm_platform/platform.hpp>
#include <vm_platform/runtime.hpp>
#include <vm_platform/signals.hpp>
#include <vm_platform/sriov.hpp>
#include <vm_platform/sriov_boot.hpp>
#include <vm_platform/threading.hpp>
#include <vm_platform/timer.hpp>
#include <vm_platform/topology.hpp>
#include <vm_platform/vfio.hpp>
#include <vm_platform/vga_arbiter.hpp>
#include <vm_platform/vgpu.hpp>
// IWYU pragma: end_exports
