// What the steps of a plan do to the host, and how each is undone.
#pragma once

#include <span>
#include <string>
#include <vm_platform/passthrough.hpp>

#include "passthrough/binding.hpp"

namespace vm_platform {

class HostChanges {
 public:
  explicit HostChanges(const PassthroughOptions& options);

  [[nodiscard]] std::string driver(PciAddress device) const { return binding_.driver(device); }
  /// The same hardware as was written down? After a hot-unplug something else may have its address.
  [[nodiscard]] bool same_hardware(const TakenDevice& taken) const;
  /// All that undoing `steps` on this device needs, as it is before the first of them.
  [[nodiscard]] TakenDevice record(const PassthroughDevice& device, std::span<const PlanStep> steps) const;

  /// Does one step, and reads back that it was done.
  Result<void> run(const PlanStep& step) const;
  /// Undoes all steps of one device, from whatever point they had reached. Does nothing where all is in place.
  Result<void> put_back(const TakenDevice& device) const;

 private:
  Result<void> set_reset_methods(PciAddress device, const std::string& methods) const;
  Result<void> put_back_display(const FormerDisplay& display) const;
  std::filesystem::path sysfs_, root_;
  DriverBinding binding_;
};

/// "BAR:BYTES", as steps and journals hold it.
[[nodiscard]] std::string bar_size_text(std::uint8_t bar, std::uint64_t bytes);

}  // namespace vm_platform
