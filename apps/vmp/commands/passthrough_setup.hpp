// The part of `vmp passthrough` that changes the host itself.
#pragma once

#include "apps/vmp/command.hpp"

namespace vm_platform::vmp {

/// Adds `setup`.
void add_passthrough_setup(CLI::App& passthrough, Action& action);

}  // namespace vm_platform::vmp
