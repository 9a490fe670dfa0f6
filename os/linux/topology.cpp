// CPUs as sysfs describes them, from any root.
#include <charconv>
#include <map>
#include <tuple>
#include <vm_platform/topology.hpp>

#include "os/linux/cgroup.hpp"
#include "os/linux/sysfs.hpp"
#include "os/threading_host.hpp"

namespace vm_platform {
namespace {

CpuSet read_set(const std::string& path) {
  const auto text = sysfs::read(path);
  if (!text) return {};
  return CpuSet::parse(*text).value_or(CpuSet());
}

int read_id(const std::string& path) {
  const auto value = sysfs::number(path);
  return value ? static_cast<int>(*value) : -1;
}

void read_nodes(const std::string& sys, std::vector<Cpu>& cpus) {
  const std::string folder = sys + "/devices/system/node/";
  for (const std::string& name : sysfs::names_in(folder)) {
    if (!name.starts_with("node") || name.find_first_not_of("0123456789", 4) != std::string::npos) continue;
    const CpuSet members = read_set(folder + name + "/cpulist");
    const int node = std::atoi(name.c_str() + 4);
    for (Cpu& cpu : cpus)
      if (members.contains(cpu.id)) cpu.node = node;
  }
}

std::uint64_t parse_cache_size(const std::string& text) {
  std::uint64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc()) return 0;
  return end != text.data() + text.size() && *end == 'M' ? value * kMiB : value * kKiB;
}

/// Caches of one CPU that are not known yet: a cache is the same one where level, type and sharers are.
void read_caches(const std::string& folder, std::map<std::tuple<unsigned, std::string, std::string>, Cache>& known) {
  for (unsigned index = 0;; ++index) {
    const std::string base = folder + "/cache/index" + std::to_string(index);
    const auto level = sysfs::number(base + "/level");
    if (!level) return;
    const std::string type = sysfs::read(base + "/type").value_or("");
    const std::string sharers = sysfs::read(base + "/shared_cpu_list").value_or("");
    const auto [at, fresh] = known.try_emplace({static_cast<unsigned>(*level), type, sharers});
    if (!fresh) continue;
    at->second = Cache{.level = static_cast<unsigned>(*level),
                       .type = type,
                       .size = parse_cache_size(sysfs::read(base + "/size").value_or("")),
                       .line = sysfs::number(base + "/coherency_line_size").value_or(0),
                       .ways = static_cast<unsigned>(sysfs::number(base + "/ways_of_associativity").value_or(0)),
                       .cpus = CpuSet::parse(sharers).value_or(CpuSet())};
  }
}

void read_kinds(const std::string& sys, Topology& topology) {
  // Intel's hybrid processors: one PMU per kind, each with the list of its CPUs (and a third for low-power cores).
  const CpuSet core = read_set(sys + "/devices/cpu_core/cpus");
  CpuSet atom = read_set(sys + "/devices/cpu_atom/cpus");
  for (const unsigned cpu : read_set(sys + "/devices/cpu_lowpower/cpus").list()) atom.add(cpu);
  if (!core.empty() && !atom.empty()) {
    for (Cpu& cpu : topology.cpus) cpu.kind = atom.contains(cpu.id) ? CoreKind::Efficiency : CoreKind::Performance;
    topology.kinds_from = "cpu_core and cpu_atom";
  } else if (classify_by_capacity(topology.cpus)) {
    topology.kinds_from = "cpu_capacity";
  }
  for (const Cpu& cpu : topology.cpus)
    (cpu.kind == CoreKind::Efficiency ? topology.efficiency : topology.performance).add(cpu.id);
}

}  // namespace

Result<Topology> read_topology(const HostRoots& roots) {
  const std::string base = roots.sys + "/devices/system/cpu";
  Topology topology;
  topology.online = read_set(base + "/online");
  if (topology.online.empty()) {
    // Without sysfs (a bare chroot) the scheduler still knows.
    if (roots.is_this_host()) topology.online = threading_host::affinity_at_start();
    if (topology.online.empty())
      return fail(VmError(ErrorCode::NotFound, "read CPU topology", base + "/online").with_hint("mount sysfs"));
  }
  topology.isolated = read_set(base + "/isolated");

  std::map<std::tuple<unsigned, std::string, std::string>, Cache> caches;
  for (const unsigned id : topology.online.list()) {
    const std::string folder = base + "/cpu" + std::to_string(id);
    topology.cpus.push_back(Cpu{.id = id,
                                .package = read_id(folder + "/topology/physical_package_id"),
                                .core = read_id(folder + "/topology/core_id"),
                                .node = -1,
                                .capacity = static_cast<unsigned>(sysfs::number(folder + "/cpu_capacity").value_or(0)),
                                .max_frequency_khz = sysfs::number(folder + "/cpufreq/cpuinfo_max_freq").value_or(0)});
    read_caches(folder, caches);
  }
  for (auto& [key, cache] : caches) topology.caches.push_back(std::move(cache));
  read_nodes(roots.sys, topology.cpus);
  read_kinds(roots.sys, topology);

  CpuSet may;
  if (roots.is_this_host()) may = threading_host::affinity_at_start();
  if (may.empty()) {  // another host, or one that forbids the question
    const std::string status = sysfs::read(roots.proc + "/self/status").value_or("");
    may = CpuSet::parse(sysfs::line_value(status, "Cpus_allowed_list").value_or("")).value_or(CpuSet());
  }
  topology.allowed = may.empty() ? topology.online : may & topology.online;
  if (const auto limits = read_cgroup_limits(roots); limits.cpuset)
    topology.allowed = topology.allowed & *limits.cpuset;
  if (const CpuSet rest = topology.allowed.without(topology.isolated); !rest.empty()) topology.allowed = rest;
  return topology;
}

}  // namespace vm_platform
