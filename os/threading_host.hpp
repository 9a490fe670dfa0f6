// What the neutral half of threading needs of a host.
#pragma once

#include <vm_platform/topology.hpp>

namespace vm_platform::threading_host {

Result<void> set_affinity(const CpuSet& cpus);

/// What the process was allowed when it started, before any thread of it was pinned.
const CpuSet& affinity_at_start();

}  // namespace vm_platform::threading_host
