// An I/O address space of iommufd (/dev/iommu): what a container is to kernels that have it.
#pragma once

#include <vector>
#include <vm_platform/vfio.hpp>

#include "passthrough/dma_account.hpp"
#include "passthrough/sysfs.hpp"
#include "passthrough/vfio_system.hpp"

namespace vm_platform {

class IommufdContainer final : public VfioContainer {
 public:
  /// `path` is /dev/iommu.
  static Result<std::unique_ptr<IommufdContainer>> open(VfioSystem& system, const std::filesystem::path& path);
  explicit IommufdContainer(VfioSystem& system) : system_(system) {}

  [[nodiscard]] int descriptor() const { return descriptor_.get(); }
  /// Puts a bound device into this address space. With an IOMMU that records writes, through a page table that does.
  Result<void> attach(int device, std::uint32_t device_id, const std::string& name);

  Result<void> map(Iova iova, std::span<std::byte> memory, DmaAccess access) override;
  Result<std::uint64_t> unmap(Iova iova, std::uint64_t size) override;
  Result<void> track_dirty(bool on) override;
  Result<std::vector<std::uint64_t>> take_dirty(Iova iova, std::uint64_t size, std::uint64_t page_size) override;
  [[nodiscard]] DmaLimits limits() const override;

 private:
  [[nodiscard]] bool records_writes(std::uint32_t device_id) const;
  [[nodiscard]] bool attach_to(int device, std::uint32_t table) const;
  Result<void> set_tracking(std::uint32_t table, bool on) const;

  VfioSystem& system_;
  Descriptor descriptor_;
  std::uint32_t ioas_ = 0;
  std::vector<std::uint32_t> dirty_tables_;  // page tables that record writes
  bool all_record_ = true;                   // every device attached goes through one of them
  bool tracking_ = false;
  DmaAccount account_;
};

}  // namespace vm_platform
