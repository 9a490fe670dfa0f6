#include <windows.h>

#include <vm_platform/threading.hpp>

#include "os/threading_host.hpp"
#include "os/windows/groups.hpp"
#include "os/windows/handle.hpp"

namespace vm_platform {
namespace {

/// Newer than the oldest Windows that has the rest, so looked up.
template <typename Function>
Function* kernel_function(const char* name) {
  const FARPROC found = ::GetProcAddress(::GetModuleHandleW(L"kernel32.dll"), name);
  return reinterpret_cast<Function*>(reinterpret_cast<void*>(found));
}

CpuSet from_mask(WORD group, KAFFINITY mask) {
  CpuSet set;
  const unsigned first = first_cpu_of_group(group);
  for (unsigned bit = 0; bit < 64; ++bit)
    if ((mask >> bit & 1) != 0) set.add(first + bit);
  return set;
}

CpuSet process_affinity() {
  CpuSet all;
  const WORD groups = ::GetActiveProcessorGroupCount();
  if (groups <= 1) {
    DWORD_PTR process = 0, system = 0;
    if (::GetProcessAffinityMask(::GetCurrentProcess(), &process, &system) != 0 && process != 0)
      return from_mask(0, process);
  }
  for (unsigned cpu = 0; cpu < first_cpu_of_group(groups); ++cpu) all.add(cpu);
  return all;
}

}  // namespace

namespace threading_host {

const CpuSet& affinity_at_start() {
  static const CpuSet start = process_affinity();
  return start;
}

CpuSet for_one_thread(const CpuSet& cpus) {
  std::vector<CpuSet> groups(::GetActiveProcessorGroupCount());
  for (WORD group = 0; group < groups.size(); ++group)
    for (unsigned cpu = first_cpu_of_group(group); cpu < first_cpu_of_group(static_cast<WORD>(group + 1)); ++cpu)
      groups[group].add(cpu);
  return within_one_group(cpus, groups, current_cpu());
}

Result<void> set_affinity(const CpuSet& cpus) {
  const std::string subject = "CPUs " + cpus.to_string();
  GROUP_AFFINITY affinity{};
  const std::vector<unsigned> list = cpus.list();
  const WORD groups = ::GetActiveProcessorGroupCount();
  for (WORD group = 0; group < groups; ++group) {
    const unsigned first = first_cpu_of_group(group), end = first_cpu_of_group(static_cast<WORD>(group + 1));
    if (list.front() < first || list.front() >= end) continue;
    affinity.Group = group;
    for (const unsigned cpu : list) {
      if (cpu < first || cpu >= end) {
        return fail(
            ErrorCode::InvalidArgument, "set thread affinity", subject,
            cpu >= first_cpu_of_group(groups) ? "no such CPU" : "a thread of Windows runs in one processor group");
      }
      affinity.Mask |= KAFFINITY{1} << (cpu - first);
    }
    if (::SetThreadGroupAffinity(::GetCurrentThread(), &affinity, nullptr) != 0) return {};
    return fail(VmError::from_last_error(::GetLastError(), "SetThreadGroupAffinity", subject));
  }
  return fail(VmError(ErrorCode::InvalidArgument, "set thread affinity", subject, "no such CPU"));
}

}  // namespace threading_host

Result<CpuSet> thread_affinity() {
  GROUP_AFFINITY affinity{};
  if (::GetThreadGroupAffinity(::GetCurrentThread(), &affinity) != 0) return from_mask(affinity.Group, affinity.Mask);
  return fail(VmError::from_last_error(::GetLastError(), "GetThreadGroupAffinity", "this thread"));
}

unsigned current_cpu() noexcept {
  PROCESSOR_NUMBER number{};
  ::GetCurrentProcessorNumberEx(&number);
  return first_cpu_of_group(number.Group) + number.Number;
}

Result<void> set_thread_name(std::string_view name) {
  static auto* const set = kernel_function<HRESULT(HANDLE, PCWSTR)>("SetThreadDescription");
  if (set == nullptr) return fail(ErrorCode::Unsupported, "name thread", std::string(name), "needs Windows 10");
  if (set(::GetCurrentThread(), widen(std::string(name)).c_str()) >= 0) return {};
  return fail(VmError::from_last_error(::GetLastError(), "SetThreadDescription", std::string(name)));
}

std::string thread_name() {
  static auto* const get = kernel_function<HRESULT(HANDLE, PWSTR*)>("GetThreadDescription");
  PWSTR text = nullptr;
  if (get == nullptr || get(::GetCurrentThread(), &text) < 0) return {};
  std::string name = narrow(text);
  ::LocalFree(text);
  return name;
}

Result<void> set_thread_priority(ThreadPriority priority) {
  int value = THREAD_PRIORITY_NORMAL;
  switch (priority) {
    case ThreadPriority::Idle: value = THREAD_PRIORITY_IDLE; break;
    case ThreadPriority::Low: value = THREAD_PRIORITY_LOWEST; break;
    case ThreadPriority::Normal: value = THREAD_PRIORITY_NORMAL; break;
    case ThreadPriority::High: value = THREAD_PRIORITY_HIGHEST; break;
    case ThreadPriority::Realtime: value = THREAD_PRIORITY_TIME_CRITICAL; break;
  }
  if (::SetThreadPriority(::GetCurrentThread(), value) != 0) return {};
  return fail(VmError::from_last_error(::GetLastError(), "SetThreadPriority", std::to_string(value)));
}

}  // namespace vm_platform
