// Virtual function settings as text, for differences and messages.
#pragma once

#include <string>
#include <utility>
#include <vector>
#include <vm_platform/sriov.hpp>

namespace vm_platform {

struct VfDifference {
  std::string name, wanted, actual;
};
/// The settings of `wanted` that `actual` does not have.
[[nodiscard]] std::vector<VfDifference> compare(const VfConfig& wanted, const VfConfig& actual);

/// What `before` says of the settings that `asked` changes: what putting them back takes.
[[nodiscard]] VfConfig former(const VfConfig& asked, const VfConfig& before);

}  // namespace vm_platform
