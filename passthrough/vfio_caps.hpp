// Reading the capability chains that VFIO hangs behind its answers, without trusting their offsets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vm_platform/vfio.hpp>

namespace vm_platform {

/// Fills sparse areas, type and MSI-X mappability from the answer to VFIO_DEVICE_GET_REGION_INFO.
void read_region_capabilities(std::span<const std::byte> answer, VfioRegion& region);
/// Fills valid ranges, free mappings and dirty tracking from the answer to VFIO_IOMMU_GET_INFO.
void read_iommu_capabilities(std::span<const std::byte> answer, DmaLimits& limits);

}  // namespace vm_platform
