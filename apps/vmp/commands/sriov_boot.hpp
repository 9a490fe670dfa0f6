// The parts of `vmp sriov` that are about every boot.
#pragma once

#include "apps/vmp/command.hpp"

namespace vm_platform::vmp {

/// Adds `store | restore | forget`.
void add_sriov_boot(CLI::App& sriov, Action& action);

}  // namespace vm_platform::vmp
