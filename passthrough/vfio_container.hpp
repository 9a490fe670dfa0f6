// A VFIO type 1 container: DMA mappings of this process for the devices of the groups attached.
#pragma once

#include <map>

#include <vm_platform/vfio.hpp>
#include "passthrough/sysfs.hpp"

namespace vm_platform {

class Type1Container final : public VfioContainer {
 public:
  static Result<std::unique_ptr<Type1Container>> open(const std::filesystem::path& dev);

  [[nodiscard]] int descriptor() const { return descriptor_.get(); }
  /// The IOMMU type can be set once the first group is attached.
  Result<void> set_iommu();

  Result<void> map(Iova iova, std::span<std::byte> memory, DmaAccess access) override;
  Result<std::uint64_t> unmap(Iova iova, std::uint64_t size) override;
  Result<void> track_dirty(bool on) override;
  Result<std::vector<std::uint64_t>> take_dirty(Iova iova, std::uint64_t size, std::uint64_t page_size) override;
  [[nodiscard]] DmaLimits limits() const override;

 private:
  Descriptor descriptor_;
  bool iommu_set_ = false;
  std::map<std::uint64_t, std::uint64_t> mapped_;  // IOVA -> bytes
};

}  // namespace vm_platform
