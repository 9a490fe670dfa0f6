#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <vm_platform/threading.hpp>

#include "os/threading_host.hpp"

namespace vm_platform {
namespace {

/// The raw call: glibc's cpu_set_t ends at 1024 CPUs. The kernel wants room for all it could have.
Result<CpuSet> affinity_of(pid_t thread) {
  for (std::size_t words = 16; words <= 16384; words *= 2) {
    std::vector<std::uint64_t> mask(words);
    const long bytes = ::syscall(SYS_sched_getaffinity, thread, mask.size() * 8, mask.data());
    if (bytes < 0 && errno == EINVAL) continue;  // too small
    if (bytes < 0) break;
    CpuSet set;
    for (unsigned word = 0; word < static_cast<unsigned>(bytes) / 8; ++word)
      for (std::uint64_t bits = mask[word]; bits != 0; bits &= bits - 1)
        set.add(word * 64 + static_cast<unsigned>(std::countr_zero(bits)));
    return set;
  }
  return fail(VmError::from_os(errno, "sched_getaffinity", "this thread"));
}

const CpuSet g_at_start = affinity_of(0).value_or(CpuSet());  // before main: nobody has been pinned yet

VmError denied(int error, const std::string& what) {
  return VmError::from_os(error, "set thread priority", what)
      .with_hint("needs CAP_SYS_NICE, or a higher limit: ulimit -e 30 (nice), ulimit -r 1 (real time)");
}

}  // namespace

namespace threading_host {

const CpuSet& affinity_at_start() { return g_at_start; }

CpuSet for_one_thread(const CpuSet& cpus) { return cpus; }

Result<void> set_affinity(const CpuSet& cpus) {
  if (::syscall(SYS_sched_setaffinity, 0, cpus.words().size() * 8, cpus.words().data()) == 0) return {};
  const int error = errno;
  auto failure = VmError::from_os(error, "sched_setaffinity", "CPUs " + cpus.to_string());
  if (error != EINVAL) return fail(std::move(failure));
  return fail(std::move(failure).with_hint(
      "they do not exist, are offline, or are not in the process's cpuset; `vmp host` lists those it may use"));
}

}  // namespace threading_host

Result<CpuSet> thread_affinity() { return affinity_of(0); }

unsigned current_cpu() noexcept {
  const int cpu = ::sched_getcpu();
  return cpu < 0 ? 0 : static_cast<unsigned>(cpu);
}

Result<void> set_thread_name(std::string_view name) {
  std::array<char, 16> shortened{};
  name.copy(shortened.data(), shortened.size() - 1);
  const int error = ::pthread_setname_np(::pthread_self(), shortened.data());
  if (error == 0) return {};
  return fail(VmError::from_os(error, "pthread_setname_np", std::string(name)));
}

std::string thread_name() {
  std::array<char, 16> name{};
  return ::pthread_getname_np(::pthread_self(), name.data(), name.size()) == 0 ? name.data() : "";
}

Result<void> set_thread_priority(ThreadPriority priority) {
  sched_param parameter{};
  int policy = SCHED_OTHER, nice = 0;
  switch (priority) {
    case ThreadPriority::Idle: policy = SCHED_IDLE; break;
    case ThreadPriority::Low: nice = 10; break;
    case ThreadPriority::Normal: break;
    case ThreadPriority::High: nice = -10; break;
    case ThreadPriority::Realtime:
      policy = SCHED_RR;
      parameter.sched_priority = ::sched_get_priority_min(SCHED_RR);
      break;
  }
  if (::sched_setscheduler(0, policy, &parameter) != 0) return fail(denied(errno, "sched_setscheduler"));
  // In Linux the nice value belongs to the thread.
  if (policy == SCHED_OTHER && ::setpriority(PRIO_PROCESS, static_cast<id_t>(::syscall(SYS_gettid)), nice) != 0)
    return fail(denied(errno, "nice " + std::to_string(nice)));
  return {};
}

}  // namespace vm_platform
