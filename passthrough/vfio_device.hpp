// A device behind a VFIO device descriptor.
#pragma once

#include <vm_platform/vfio.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/vfio_system.hpp"

namespace vm_platform {

/// The groups of one container, so that a device can prove that it owns what a bus reset takes along.
class GroupOwner {
 public:
  virtual ~GroupOwner() = default;
  /// The descriptor of an open group, or -1.
  [[nodiscard]] virtual int group_descriptor(std::uint32_t group) const = 0;
};

class KernelVfioDevice final : public VfioDevice {
 public:
  /// `owner` is null for a device opened by itself, without its group: then the kernel knows what this process owns.
  static Result<std::unique_ptr<KernelVfioDevice>> create(VfioSystem& system, Descriptor descriptor, std::string name,
                                                          const GroupOwner* owner);
  ~KernelVfioDevice() override;

  [[nodiscard]] const std::string& name() const override { return name_; }
  [[nodiscard]] bool can_reset() const override { return can_reset_; }
  [[nodiscard]] std::uint32_t region_count() const override { return static_cast<std::uint32_t>(regions_.size()); }
  [[nodiscard]] Result<VfioRegion> region(std::uint32_t index) const override;
  Result<void> read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> out) const override;
  Result<void> write(std::uint32_t region, std::uint64_t offset, std::span<const std::byte> in) override;
  Result<RegionMapping> map(std::uint32_t region, std::uint64_t offset, std::uint64_t size) const override;
  [[nodiscard]] Result<VfioIrqInfo> irq_info(VfioIrq irq) const override;
  Result<void> enable_irq(VfioIrq irq, std::span<const int> eventfds) override;
  Result<void> disable_irq(VfioIrq irq) override;
  Result<void> mask_intx() override;
  Result<void> unmask_intx() override;
  Result<void> trigger_irq(VfioIrq irq, std::uint32_t vector) override;
  Result<void> reset() override;
  [[nodiscard]] Result<std::vector<HotResetMember>> hot_reset_members() const override;
  Result<void> hot_reset() override;
  Result<void> set_low_power(bool on) override;
  Result<void> set_vf_token(std::string_view uuid) override;

 private:
  struct Region {
    VfioRegion info;
    std::uint64_t file_offset = 0;
  };
  KernelVfioDevice(VfioSystem& system, Descriptor descriptor, std::string name, const GroupOwner* owner)
      : system_(system), descriptor_(std::move(descriptor)), name_(std::move(name)), owner_(owner) {}
  /// Sets a feature of the device; `since` is the Linux that has it.
  Result<void> set_feature(const char* operation, std::uint32_t feature, std::span<const std::uint8_t> data,
                           const char* since);
  Result<const Region*> access(const char* operation, std::uint32_t region, std::uint64_t offset,
                               std::uint64_t size) const;
  Result<void> set_irqs(const char* operation, VfioIrq irq, std::uint32_t flags, std::uint32_t start,
                        std::uint32_t count, std::span<const int> eventfds);

  VfioSystem& system_;
  Descriptor descriptor_;
  std::string name_;
  const GroupOwner* owner_;
  bool can_reset_ = false;
  std::uint32_t irq_count_ = 0;
  std::vector<Region> regions_;
};

}  // namespace vm_platform
