// vmp host: what the host is and what it can do.
#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>
#include <vm_platform/timer.hpp>

#include "apps/vmp/command.hpp"

namespace vm_platform::vmp {
namespace {

using nlohmann::json;

json to_json(const FeatureState& state) {
  return {{"present", state.present}, {"usable", state.usable}, {"detail", state.detail}};
}

template <typename T>
json or_null(const std::optional<T>& value) {
  return value ? json(*value) : json();
}

json to_json(const PlatformInfo& info) {
  json caches = json::array(), pools = json::array();
  for (const Cache& cache : info.topology.caches)
    caches.push_back({{"level", cache.level},
                      {"type", cache.type},
                      {"size", cache.size},
                      {"line", cache.line},
                      {"ways", cache.ways},
                      {"cpus", cache.cpus.to_string()}});
  for (const HugePagePool& pool : info.huge_pages)
    pools.push_back({{"page_size", pool.page_size}, {"total", pool.total}, {"free", pool.free}});
  json cpus = json::array();
  for (const Cpu& cpu : info.topology.cpus)
    cpus.push_back({{"id", cpu.id},
                    {"package", cpu.package},
                    {"core", cpu.core},
                    {"node", cpu.node},
                    {"capacity", cpu.capacity},
                    {"max_frequency_khz", cpu.max_frequency_khz},
                    {"kind", cpu.kind == CoreKind::Performance ? "performance" : "efficiency"}});
  return {{"os", to_string(info.os)},
          {"arch", to_string(info.arch)},
          {"os_name", info.os_name},
          {"kernel", info.kernel},
          {"cpu",
           {{"model", info.cpu_model},
            {"vendor", info.cpu_vendor},
            {"flags", info.cpu_flags},
            {"online", info.topology.online.to_string()},
            {"allowed", info.topology.allowed.to_string()},
            {"isolated", info.topology.isolated.to_string()},
            {"performance", info.topology.performance.to_string()},
            {"efficiency", info.topology.efficiency.to_string()},
            {"kinds_from", info.topology.kinds_from},
            {"cpus", cpus},
            {"caches", caches}}},
          {"memory",
           {{"total", info.memory_total},
            {"available", info.memory_available},
            {"page_size", info.page_size},
            {"huge_pages", pools},
            {"transparent_huge_pages", info.transparent_huge_pages}}},
          {"hypervisor", info.hypervisor},
          {"container", info.container},
          {"cgroup",
           {{"version", info.cgroup_version},
            {"memory", or_null(info.cgroup_memory)},
            {"cpus", or_null(info.cgroup_cpus)},
            {"processes", or_null(info.cgroup_processes)},
            {"cpuset", info.cgroup_cpuset ? json(info.cgroup_cpuset->to_string()) : json()}}}};
}

json to_json(const PlatformFeatures& features) {
  const TimerInfo timer = timer_info();
  return {{"kvm",
           {{"present", features.kvm.present},
            {"usable", features.kvm.usable},
            {"measured", features.kvm.measured},
            {"emulated", features.kvm.emulated},
            {"million_instructions_per_second", features.kvm.million_instructions_per_second},
            {"exit_ns", features.kvm.exit_ns},
            {"detail", features.kvm.detail}}},
          {"iommu", to_json(features.iommu)},
          {"vfio", to_json(features.vfio)},
          {"userfaultfd", to_json(features.userfaultfd)},
          {"pagemap_scan", to_json(features.pagemap_scan)},
          {"soft_dirty", to_json(features.soft_dirty)},
          {"memfd", to_json(features.memfd)},
          {"executable_memory", to_json(features.executable_memory)},
          {"io_uring", to_json(features.io_uring)},
          {"membarrier", to_json(features.membarrier)},
          {"explicit_huge_pages", to_json(features.explicit_huge_pages)},
          {"transparent_huge_pages", to_json(features.transparent_huge_pages)},
          {"invariant_counter", to_json(features.invariant_counter)},
          {"counter_hz", timer.frequency_hz},
          {"max_mappings", features.max_mappings},
          {"lockable_memory", or_null(features.lockable_memory)},
          {"open_files", or_null(features.open_files)}};
}

json to_json(const PlatformPaths& paths) {
  return {{"config", paths.config}, {"data", paths.data},       {"cache", paths.cache},
          {"state", paths.state},   {"runtime", paths.runtime}, {"temporary", paths.temporary}};
}

void line(const char* name, const std::string& value) {
  if (!value.empty()) fmt::print("{:<24}{}\n", name, value);
}

std::string readable(std::uint64_t bytes) {
  if (bytes >= 10 * kGiB) return fmt::format("{} GiB", bytes / kGiB);
  if (bytes >= 10 * kMiB) return fmt::format("{} MiB", bytes / kMiB);
  return fmt::format("{} KiB", bytes / kKiB);
}

void print(const PlatformInfo& info) {
  line("system", fmt::format("{}, {} {}", info.os_name, info.kernel, to_string(info.arch)));
  line("processor", info.cpu_model);
  const Topology& cpus = info.topology;
  line("CPUs", fmt::format("{} online ({}), allowed: {}", cpus.online.count(), cpus.online.to_string(),
                           cpus.allowed.to_string()));
  if (cpus.hybrid()) {
    line("  performance", cpus.performance.to_string());
    line("  efficiency", fmt::format("{} (by {})", cpus.efficiency.to_string(), cpus.kinds_from));
  }
  line("  isolated", cpus.isolated.to_string());
  for (const Cache& cache : cpus.caches)
    if (cache.cpus.contains(cpus.online.list().front()))
      line(fmt::format("  L{} {}", cache.level, cache.type).c_str(),
           fmt::format("{}, {} B lines, CPUs {}", readable(cache.size), cache.line, cache.cpus.to_string()));
  line("memory", fmt::format("{} ({} available), {} pages", readable(info.memory_total),
                             readable(info.memory_available), readable(info.page_size)));
  for (const HugePagePool& pool : info.huge_pages)
    line("  huge pages", fmt::format("{}: {} of {} free", readable(pool.page_size), pool.free, pool.total));
  line("  transparent", info.transparent_huge_pages);
  line("runs under", info.hypervisor);
  line("container", info.container);
  if (info.cgroup_memory) line("cgroup memory", readable(*info.cgroup_memory));
  if (info.cgroup_cpus) line("cgroup CPU", fmt::format("{} CPUs", *info.cgroup_cpus));
}

void print(const PlatformFeatures& features) {
  const auto feature = [](const char* name, const FeatureState& state) {
    line(name, fmt::format("{:<5}{}", state.usable ? "yes" : "no", state.detail));
  };
  const KvmState& kvm = features.kvm;
  std::string speed = kvm.detail;
  if (kvm.measured)
    speed = fmt::format("{:.4g} million instructions per second, exit {:.1f} us{}", kvm.million_instructions_per_second,
                        static_cast<double>(kvm.exit_ns) / 1000, kvm.emulated ? ": emulation speed" : "");
  line("KVM", fmt::format("{:<5}{}", kvm.emulated ? "slow" : kvm.usable ? "yes" : "no", speed));
  feature("IOMMU", features.iommu);
  feature("VFIO", features.vfio);
  feature("userfaultfd", features.userfaultfd);
  feature("PAGEMAP_SCAN", features.pagemap_scan);
  feature("memfd", features.memfd);
  feature("executable memory", features.executable_memory);
  feature("io_uring", features.io_uring);
  feature("membarrier", features.membarrier);
  feature("huge pages", features.explicit_huge_pages);
  feature("clock", features.invariant_counter);
}

void print(const PlatformPaths& paths) {
  line("configuration", paths.config);
  line("data", paths.data);
  line("cache", paths.cache);
  line("state", paths.state);
  line("runtime", paths.runtime);
  line("temporary", paths.temporary);
}

}  // namespace

void add_host(CLI::App& app, Action& action) {
  struct Options {
    bool json = false, no_probe = false;
  };
  const auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("host", "Show what this host is and what it can do");
  command->add_flag("--json", options->json, "Print one JSON document instead of a table");
  command->add_flag("--no-kvm-probe", options->no_probe, "Do not run guest code to measure /dev/kvm");
  command->footer(
      "Examples:\n"
      "  vmp host                             a table for people\n"
      "  vmp host --json | jq .cpu.allowed    the CPUs this process may use\n"
      "  vmp doctor                           what is missing or slow here, and how to fix it");
  command->callback([&action, options] {
    action = [options] {
      const auto info = PlatformInfo::detect();
      if (!info) return report(info.error());
      const auto features = PlatformFeatures::detect({.probe_kvm = !options->no_probe});
      const auto paths = PlatformPaths::of("vm-platform");
      if (options->json) {
        json document = to_json(*info);
        document["features"] = to_json(features);
        document["paths"] = paths ? to_json(*paths) : json();
        fmt::print("{}\n", document.dump(2));
        return static_cast<int>(kDone);
      }
      print(*info);
      fmt::print("\n");
      print(features);
      fmt::print("\n");
      if (paths) print(*paths);
      return static_cast<int>(kDone);
    };
  });
}

}  // namespace vm_platform::vmp
