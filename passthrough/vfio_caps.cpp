#include "passthrough/vfio_caps.hpp"

#include <linux/vfio.h>

#include <cstring>
#include <optional>

namespace vm_platform {
namespace {

template <typename T>
std::optional<T> read_at(std::span<const std::byte> bytes, std::size_t offset) {
  if (offset > bytes.size() || sizeof(T) > bytes.size() - offset) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

/// Calls `visit(header, offset)` for each link of the chain that starts at `offset`. Offsets must grow, so it ends.
template <typename Visit>
void each_capability(std::span<const std::byte> answer, std::size_t offset, Visit visit) {
  while (offset != 0) {
    const auto header = read_at<vfio_info_cap_header>(answer, offset);
    if (!header) return;
    visit(*header, offset);
    if (header->next <= offset) return;
    offset = header->next;
  }
}

}  // namespace

void read_region_capabilities(std::span<const std::byte> answer, VfioRegion& region) {
  const auto info = read_at<vfio_region_info>(answer, 0);
  if (!info || (info->flags & VFIO_REGION_INFO_FLAG_CAPS) == 0) return;
  each_capability(answer, info->cap_offset, [&](const vfio_info_cap_header& header, std::size_t offset) {
    if (header.id == VFIO_REGION_INFO_CAP_MSIX_MAPPABLE) region.msix_mappable = true;
    if (header.id == VFIO_REGION_INFO_CAP_TYPE) {
      if (const auto type = read_at<vfio_region_info_cap_type>(answer, offset)) {
        region.type = type->type;
        region.subtype = type->subtype;
      }
    }
    if (header.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP) {
      const auto count = read_at<std::uint32_t>(answer, offset + sizeof(vfio_info_cap_header));
      const std::size_t first = offset + sizeof(vfio_region_info_cap_sparse_mmap);
      for (std::uint32_t i = 0; count && i < *count; ++i) {
        const auto area =
            read_at<vfio_region_sparse_mmap_area>(answer, first + i * sizeof(vfio_region_sparse_mmap_area));
        if (!area) break;
        const bool inside = area->size != 0 && area->offset < region.size && area->size <= region.size - area->offset;
        if (inside) region.sparse.push_back({area->offset, area->offset + area->size - 1});
      }
    }
  });
}

void read_iommu_capabilities(std::span<const std::byte> answer, DmaLimits& limits) {
  const auto info = read_at<vfio_iommu_type1_info>(answer, 0);
  if (!info) return;
  if ((info->flags & VFIO_IOMMU_INFO_PGSIZES) != 0) limits.page_sizes = info->iova_pgsizes;
  if ((info->flags & VFIO_IOMMU_INFO_CAPS) == 0) return;
  each_capability(answer, info->cap_offset, [&](const vfio_info_cap_header& header, std::size_t offset) {
    if (header.id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
      const auto count = read_at<std::uint32_t>(answer, offset + sizeof(vfio_info_cap_header));
      const std::size_t first = offset + sizeof(vfio_iommu_type1_info_cap_iova_range);
      for (std::uint32_t i = 0; count && i < *count; ++i) {
        const auto range = read_at<vfio_iova_range>(answer, first + i * sizeof(vfio_iova_range));
        if (!range) break;
        limits.valid.push_back({range->start, range->end});
      }
    }
    if (header.id == VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION) limits.dirty_tracking = true;
    if (header.id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
      if (const auto available = read_at<vfio_iommu_type1_info_dma_avail>(answer, offset))
        limits.free_mappings = available->avail;
    }
  });
}

}  // namespace vm_platform
