// Where and how the calling thread runs. All of these act on the calling thread alone and may be called by any thread
// at any time; a thread it starts afterwards begins with the same CPUs (and, on Linux, name and priority).
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
/// the process may use only the other kind. Windows: of these, the ones in the thread's processor group (or in the
/// group that has most, where it has none).
Result<void> set_thread_affinity_big();
/// The same for efficiency cores. Which cores are of which kind: see `Topology::kinds_from`.
Result<void> set_thread_affinity_little();
/// Allows one CPU only, by the number that `read_topology` gives it. `InvalidArgument` where it does not exist, is
/// offline or is not for this process; the thread stays where it was.
Result<void> set_thread_cpu(unsigned cpu);
/// The CPUs the thread is allowed now. Any number of CPUs; fails (`Io`) only where the host forbids the question.
[[nodiscard]] Result<CpuSet> thread_affinity();
/// The CPU the thread runs on at this moment.
[[nodiscard]] unsigned current_cpu() noexcept;

/// A name for debuggers and `top`; Linux keeps the first 15 bytes. Never fails for its length.
Result<void> set_thread_name(std::string_view name);
/// The name as the host keeps it; empty where it cannot tell.
[[nodiscard]] std::string thread_name();

/// What a thread gets of a CPU that others want too. Linux: scheduling policy and nice value (sched(7)); Windows: the
/// thread priorities from THREAD_PRIORITY_IDLE to THREAD_PRIORITY_TIME_CRITICAL.
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
