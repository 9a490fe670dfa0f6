// A VFIO type 1 container: DMA mappings of this process for the devices of the groups attached.
#pragma once

#include <vm_platform/vfio.hpp>

#include "passthrough/dma_account.hpp"
#include "passthrough/sysfs.hpp"
#include "passthrough/vfio_system.hpp"

namespace vm_platform {

class Type1Container final : public VfioContainer {
 public:
  static Result<std::unique_ptr<Type1Container>> open(VfioSystem& system, const std::filesystem::path& dev);
  explicit Type1Container(VfioSystem& system) : system_(system) {}

  [[nodiscard]] int descriptor() const { return descriptor_.get(); }
  /// The IOMMU type can be set once the first group is attached.
  Result<void> set_iommu();

  Result<void> map(Iova iova, std::span<std::byte> memory, DmaAccess access) override;
  Result<std::uint64_t> unmap(Iova iova, std::uint64_t size) override;
  Result<void> track_dirty(bool on) override;
  Result<std::vector<std::uint64_t>> take_dirty(Iova iova, std::uint64_t size, std::uint64_t page_size) override;
  [[nodiscard]] DmaLimits limits() const override;

 private:
  VfioSystem& system_;
  Descriptor descriptor_;
  bool iommu_set_ = false;
  DmaAccount account_;
};

}  // namespace vm_platform
