// The parts of `vmp gpu`.
#pragma once

#include "apps/vmp/command.hpp"

namespace vm_platform::vmp {

/// Adds `vgpu list | create | remove`.
void add_vgpu(CLI::App& gpu, Action& action);

}  // namespace vm_platform::vmp
