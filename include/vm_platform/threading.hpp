// Where and how the calling thread runs. All of these act on the calling thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vm_platform/core.hpp>
#include <vm_platform/topology.hpp>

namespace vm_platform {

/// Allows the thread exactly these CPUs. `InvalidArgument` for an empty set, or where one of them does not exist, is
/// offline, or is not for this process (cgroup cpuset). Windows: all must be in one processor group.
Result<void> set_thread_affinity(const CpuSet& cpus);
/// Allows all performance cores that this process may use; with one kind of core, all CPUs it may use. `NotFound` where
/// the process may use only the other kind.
Result<void> set_thread_affinity_big();
/// The same for efficiency cores.
Result<void> set_thread_affinity_little();
/// Allows one CPU only.
Result<void> set_thread_cpu(unsigned cpu);
/// The CPUs the thread is allowed now.
[[nodiscard]] Result<CpuSet> thread_affinity();
/// The CPU the thread runs on at this moment.
[[nodiscard]] unsigned current_cpu() noexcept;

/// A name for debuggers and `top`; Linux shows the first 15 bytes.
Result<void> set_thread_name(std::string_view name);
[[nodiscard]] std::string thread_name();

enum class ThreadPriority : std::uint8_t {
  Idle,      ///< Only when nothing else wants the CPU.
  Low,       ///< Nice 10.
  Normal,    ///< Nice 0.
  High,      ///< Nice -10; needs CAP_SYS_NICE or RLIMIT_NICE.
  Realtime,  ///< SCHED_RR at its lowest priority; needs CAP_SYS_NICE or RLIMIT_RTPRIO.
};
/// `PermissionDenied` where the host does not allow it, with the limit to raise.
Result<void> set_thread_priority(ThreadPriority priority);

}  // namespace vm_platform
