#include "passthrough/vfio_caps.hpp"

#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <cstring>

namespace vm_platform {
namespace {

template <typename T>
void put(std::vector<std::byte>& bytes, std::size_t offset, const T& value) {
  if (bytes.size() < offset + sizeof(T)) bytes.resize(offset + sizeof(T));
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

/// A region answer whose first capability is at `first`.
std::vector<std::byte> region_answer(std::uint32_t first) {
  std::vector<std::byte> bytes;
  vfio_region_info info{};
  info.flags = VFIO_REGION_INFO_FLAG_CAPS;
  info.cap_offset = first;
  put(bytes, 0, info);
  return bytes;
}

TEST(VfioCapabilities, SparseAreasOutsideTheRegionAreLeftOut) {
  auto bytes = region_answer(64);
  put(bytes, 64, vfio_info_cap_header{VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1, 160});
  put(bytes, 72, std::uint32_t{3});
  put(bytes, 80, vfio_region_sparse_mmap_area{0, 0x1000});
  put(bytes, 96, vfio_region_sparse_mmap_area{0x3000, 0x1000});
  put(bytes, 112, vfio_region_sparse_mmap_area{0x3000, ~0ULL});
  put(bytes, 160, vfio_info_cap_header{VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 1, 0});
  VfioRegion region;
  region.size = 0x4000;
  read_region_capabilities(bytes, region);
  ASSERT_EQ(region.sparse.size(), 2U);
  EXPECT_EQ(region.sparse[1].first, 0x3000U);
  EXPECT_EQ(region.sparse[1].last, 0x3fffU);
  EXPECT_TRUE(region.msix_mappable);
}

TEST(VfioCapabilities, ChainsThatGoBackOrPastTheEndStop) {
  auto bytes = region_answer(40);
  put(bytes, 40, vfio_info_cap_header{VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 1, 40});
  VfioRegion region;
  read_region_capabilities(bytes, region);
  EXPECT_TRUE(region.msix_mappable);
  auto past = region_answer(1U << 20);
  read_region_capabilities(past, region);
  auto counts = region_answer(40);
  put(counts, 40, vfio_info_cap_header{VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1, 0});
  put(counts, 48, ~std::uint32_t{0});
  region = {};
  region.size = kPageSize;
  read_region_capabilities(counts, region);
  EXPECT_TRUE(region.sparse.empty());
}

TEST(VfioCapabilities, IommuRanges) {
  std::vector<std::byte> bytes;
  vfio_iommu_type1_info info{};
  info.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
  info.iova_pgsizes = 0x1000;
  info.cap_offset = 64;
  put(bytes, 0, info);
  put(bytes, 64, vfio_info_cap_header{VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 1, 128});
  put(bytes, 72, std::uint32_t{2});
  put(bytes, 80, vfio_iova_range{0, 0xfedfffff});
  put(bytes, 96, vfio_iova_range{0xfef00000, 0x7fffffffff});
  put(bytes, 128, vfio_info_cap_header{VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 1, 0});
  put(bytes, 136, std::uint32_t{65535});
  DmaLimits limits;
  read_iommu_capabilities(bytes, limits);
  EXPECT_EQ(limits.page_sizes, 0x1000U);
  ASSERT_EQ(limits.valid.size(), 2U);
  EXPECT_EQ(limits.valid[1].first, 0xfef00000U);
  EXPECT_EQ(limits.free_mappings, 65535U);
  EXPECT_FALSE(limits.dirty_tracking);
}

}  // namespace
}  // namespace vm_platform
