// Big and little cores, on any host.
#include <utility>
#include <vm_platform/threading.hpp>

#include "os/threading_host.hpp"

namespace vm_platform {
namespace {

Result<void> move_to(const char* operation, bool big) {
  auto topology = read_topology();
  if (!topology) return fail(topology.error());
  const CpuSet& kind = big ? topology->performance : topology->efficiency;
  const CpuSet wanted = topology->hybrid() ? kind & topology->allowed : topology->allowed;
  if (wanted.empty()) {
    return fail(VmError(ErrorCode::NotFound, operation, "CPUs " + topology->allowed.to_string(),
                        big ? "none of the allowed CPUs is a performance core"
                            : "none of the allowed CPUs is an efficiency core")
                    .with_hint("widen the cpuset or affinity of the process, or use the other kind"));
  }
  return threading_host::set_affinity(threading_host::for_one_thread(wanted));
}

}  // namespace

CpuSet within_one_group(const CpuSet& cpus, std::span<const CpuSet> groups, unsigned current) {
  CpuSet most;
  for (const CpuSet& group : groups) {
    CpuSet part = cpus & group;
    if (group.contains(current) && !part.empty()) return part;
    if (part.count() > most.count()) most = std::move(part);
  }
  return most;
}

Result<void> set_thread_affinity(const CpuSet& cpus) {
  if (cpus.empty()) return fail(ErrorCode::InvalidArgument, "set thread affinity", "no CPUs", "the set is empty");
  const auto before = thread_affinity();
  if (auto done = threading_host::set_affinity(cpus); !done) return done;
  // Linux quietly leaves out CPUs that are offline or not for us: that is not what was asked for.
  const auto now = thread_affinity();
  if (now && *now == cpus) return {};
  if (before) (void)threading_host::set_affinity(*before);
  return fail(VmError(ErrorCode::InvalidArgument, "set thread affinity", "CPUs " + cpus.to_string(),
                      now ? "only " + now->to_string() + " of these can be used" : now.error().message())
                  .with_hint("`vmp host` lists the CPUs this process may use"));
}

Result<void> set_thread_affinity_big() { return move_to("run on performance cores", true); }
Result<void> set_thread_affinity_little() { return move_to("run on efficiency cores", false); }
Result<void> set_thread_cpu(unsigned cpu) {
  if (cpu > 1U << 20) return fail(ErrorCode::InvalidArgument, "set thread CPU", std::to_string(cpu), "no such CPU");
  return set_thread_affinity(CpuSet{cpu});
}

}  // namespace vm_platform
