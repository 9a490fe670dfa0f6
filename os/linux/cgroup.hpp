// The limits of the control group this process is in, both versions.
#pragma once

#include <optional>
#include <vm_platform/topology.hpp>

namespace vm_platform {

struct CgroupLimits {
  std::optional<std::uint64_t> memory_bytes;
  std::optional<double> cpus;  ///< CPU time per time: 1.5 means one and a half CPUs.
  std::optional<std::uint64_t> processes;
  std::optional<CpuSet> cpuset;
  int version = 0;  ///< 0: none found
};

/// The strictest value between the process's group and the root counts.
CgroupLimits read_cgroup_limits(const HostRoots& roots);

}  // namespace vm_platform
