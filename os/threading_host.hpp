// What the neutral half of threading needs of a host.
#pragma once

#include <span>
#include <vm_platform/topology.hpp>

namespace vm_platform::threading_host {

Result<void> set_affinity(const CpuSet& cpus);

/// Those of `cpus` that one thread may be allowed together: on Windows those of one processor group.
CpuSet for_one_thread(const CpuSet& cpus);

/// What the process was allowed when it started, before any thread of it was pinned.
const CpuSet& affinity_at_start();

}  // namespace vm_platform::threading_host

namespace vm_platform {

/// Those of `cpus` that are in one of the groups: that of the CPU `current` if there are any, else the one with most.
CpuSet within_one_group(const CpuSet& cpus, std::span<const CpuSet> groups, unsigned current);

}  // namespace vm_platform
