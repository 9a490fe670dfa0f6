#include "os/linux/cgroup.hpp"

#include <algorithm>
#include <functional>
#include <sstream>

#include "os/linux/sysfs.hpp"

namespace vm_platform {
namespace {

/// Visits the group's folder and its parents up to the mount.
void upwards(const std::string& mount, std::string group, const std::function<void(const std::string&)>& visit) {
  while (true) {
    visit(mount + group);
    const auto slash = group.find_last_of('/');
    if (group.empty() || slash == std::string::npos) return;
    group.erase(slash);
  }
}

template <typename T>
void lower(std::optional<T>& limit, T value) {
  limit = limit ? std::min(*limit, value) : value;
}

std::optional<CpuSet> cpu_list(const std::string& path) {
  const auto text = sysfs::read(path);
  if (!text || text->empty()) return std::nullopt;
  const auto set = CpuSet::parse(*text);
  return set ? std::optional(*set) : std::nullopt;
}

void read_memory_limit(const std::string& path, CgroupLimits& limits) {
  const auto value = sysfs::number(path);
  if (value && *value < (1ULL << 60)) lower(limits.memory_bytes, *value);  // version 1 writes a huge number for none
}

}  // namespace

CgroupLimits read_cgroup_limits(const HostRoots& roots) {
  CgroupLimits limits;
  const auto own = sysfs::read(roots.proc + "/self/cgroup");
  if (!own) return limits;
  std::istringstream lines(*own);
  for (std::string line; std::getline(lines, line);) {  // "0::/group" or "3:cpu,cpuacct:/group"
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    std::string group = line.substr(second + 1);
    if (group == "/") group.clear();
    const std::string base = roots.sys + "/fs/cgroup";
    if (controllers == ",,") {
      if (!sysfs::read(base + "/cgroup.controllers")) continue;  // mounted elsewhere, beside version 1
      limits.version = 2;
      upwards(base, group, [&](const std::string& folder) {
        read_memory_limit(folder + "/memory.max", limits);
        if (const auto pids = sysfs::number(folder + "/pids.max")) lower(limits.processes, *pids);
        if (const auto text = sysfs::read(folder + "/cpu.max")) {
          double quota = 0, period = 0;
          if (std::istringstream(*text) >> quota >> period && period > 0) lower(limits.cpus, quota / period);
        }
        if (!limits.cpuset) limits.cpuset = cpu_list(folder + "/cpuset.cpus.effective");
      });
      continue;
    }
    const auto has = [&](const char* name) {
      return controllers.find(std::string(",") + name + ",") != std::string::npos;
    };
    if (limits.version == 0 && controllers.find("name=") == std::string::npos) limits.version = 1;
    if (has("memory"))
      upwards(base + "/memory", group,
              [&](const std::string& folder) { read_memory_limit(folder + "/memory.limit_in_bytes", limits); });
    if (has("pids"))
      upwards(base + "/pids", group, [&](const std::string& folder) {
        if (const auto pids = sysfs::number(folder + "/pids.max")) lower(limits.processes, *pids);
      });
    if (has("cpu"))
      upwards(base + "/cpu", group, [&](const std::string& folder) {
        const auto quota = sysfs::number(folder + "/cpu.cfs_quota_us"),
                   period = sysfs::number(folder + "/cpu.cfs_period_us");
        if (quota && period && *period != 0)
          lower(limits.cpus, static_cast<double>(*quota) / static_cast<double>(*period));
      });
    if (has("cpuset"))
      upwards(base + "/cpuset", group, [&](const std::string& folder) {
        if (!limits.cpuset) limits.cpuset = cpu_list(folder + "/cpuset.effective_cpus");
        if (!limits.cpuset) limits.cpuset = cpu_list(folder + "/cpuset.cpus");
      });
  }
  return limits;
}

}  // namespace vm_platform
