// What a Linux host is.
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <vm_platform/memory.hpp>
#include <vm_platform/platform.hpp>

#include "os/linux/cgroup.hpp"
#include "os/linux/sysfs.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace vm_platform {
namespace {

std::string unquoted(std::string text) {
  if (text.size() >= 2 && text.front() == '"' && text.back() == '"') text = text.substr(1, text.size() - 2);
  return text;
}

/// The hypervisor's signature (CPUID 40000000h), or what the firmware calls the machine.
std::string find_hypervisor(const HostRoots& roots, [[maybe_unused]] const std::vector<std::string>& cpu_flags) {
#if defined(__x86_64__)
  // An x86 CPU says whether it is a virtual one, and "Amazon EC2" and "Google" make real machines too.
  if (!cpu_flags.empty() && std::ranges::find(cpu_flags, "hypervisor") == cpu_flags.end()) return {};
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (roots.is_this_host() && __get_cpuid(1, &a, &b, &c, &d) != 0 && (c >> 31) != 0) {
    __cpuid(0x40000000, a, b, c, d);
    std::array<char, 13> signature{};
    std::memcpy(signature.data(), &b, 4);
    std::memcpy(signature.data() + 4, &c, 4);
    std::memcpy(signature.data() + 8, &d, 4);
    const std::string text = signature.data();
    if (text == "KVMKVMKVM") return "KVM";
    if (text == "TCGTCGTCGTCG") return "TCG";
    if (text == "bhyve bhyve ") return "bhyve";
    if (text.empty()) return "unknown";
    return text.substr(0, text.find_last_not_of(' ') + 1);
  }
#endif
  const std::string vendor = sysfs::read(roots.sys + "/class/dmi/id/sys_vendor").value_or("");
  for (const char* known : {"QEMU", "VMware", "Xen", "innotek", "Amazon EC2", "Google"})
    if (vendor.find(known) != std::string::npos) return vendor;
  if (const auto model = sysfs::read(roots.proc + "/device-tree/compatible"))
    if (model->find("dummy-virt") != std::string::npos) return "QEMU";
  return {};
}

std::string find_container(const HostRoots& roots) {
  if (roots.is_this_host()) {
    if (::access("/.dockerenv", F_OK) == 0) return "docker";
    if (::access("/run/.containerenv", F_OK) == 0) return "podman";
    if (const char* name = std::getenv("container")) return name;
  }
  if (const auto name = sysfs::read("/run/systemd/container"); name && roots.is_this_host()) return *name;
  const std::string group = sysfs::read(roots.proc + "/1/cgroup").value_or("");
  for (const char* known : {"docker", "lxc", "kubepods"})
    if (group.find(known) != std::string::npos) return known;
  return {};
}

void read_cpu(const HostRoots& roots, PlatformInfo& info) {
  const std::string text = sysfs::read(roots.proc + "/cpuinfo").value_or("");
  info.cpu_model = sysfs::line_value(text, "model name").value_or("");
  info.cpu_vendor = sysfs::line_value(text, "vendor_id").value_or("");
  auto flags = sysfs::line_value(text, "flags");
  if (!flags) flags = sysfs::line_value(text, "Features");  // aarch64
  std::istringstream words(flags.value_or(""));
  for (std::string word; words >> word;) info.cpu_flags.push_back(word);
  if (info.cpu_model.empty()) {
    const auto implementer = sysfs::line_value(text, "CPU implementer"), part = sysfs::line_value(text, "CPU part");
    if (implementer && part) {
      info.cpu_vendor = *implementer == "0x41" ? "Arm" : "implementer " + *implementer;
      info.cpu_model = info.cpu_vendor + " part " + *part;
    }
  }
}

void read_huge_pages(const HostRoots& roots, PlatformInfo& info) {
  const std::string folder = roots.sys + "/kernel/mm/hugepages/";
  for (const std::string& name : sysfs::names_in(folder)) {  // hugepages-2048kB
    if (!name.starts_with("hugepages-")) continue;
    info.huge_pages.push_back({.page_size = std::strtoull(name.c_str() + 10, nullptr, 10) * kKiB,
                               .total = sysfs::number(folder + name + "/nr_hugepages").value_or(0),
                               .free = sysfs::number(folder + name + "/free_hugepages").value_or(0)});
  }
  std::ranges::sort(info.huge_pages, {}, &HugePagePool::page_size);
  const std::string modes = sysfs::read(roots.sys + "/kernel/mm/transparent_hugepage/enabled").value_or("");
  const auto open = modes.find('['), close = modes.find(']');
  if (open != std::string::npos && close != std::string::npos)
    info.transparent_huge_pages = modes.substr(open + 1, close - open - 1);
}

}  // namespace

Result<PlatformInfo> PlatformInfo::detect(const HostRoots& roots) {
  PlatformInfo info;
  info.os = host_os();
  info.arch = host_arch();
  const std::string release = sysfs::read(roots.etc + "/os-release").value_or("");
  info.os_name = unquoted(sysfs::line_value(release, "PRETTY_NAME=").value_or("Linux"));
  info.kernel = sysfs::read(roots.proc + "/sys/kernel/osrelease").value_or("");
  utsname name{};
  if (info.kernel.empty() && ::uname(&name) == 0) info.kernel = name.release;
  read_cpu(roots, info);
  auto topology = read_topology(roots);
  if (!topology) return fail(topology.error());
  info.topology = std::move(*topology);
  const std::string memory = sysfs::read(roots.proc + "/meminfo").value_or("");
  const auto kib = [&](const char* key) {
    return std::strtoull(sysfs::line_value(memory, key).value_or("0").c_str(), nullptr, 10) * kKiB;
  };
  info.memory_total = kib("MemTotal:");
  info.memory_available = kib("MemAvailable:");
  info.page_size = host_page_size();
  read_huge_pages(roots, info);
  info.hypervisor = find_hypervisor(roots, info.cpu_flags);
  info.container = find_container(roots);
  CgroupLimits limits = read_cgroup_limits(roots);
  info.cgroup_version = limits.version;
  info.cgroup_memory = limits.memory_bytes;
  info.cgroup_cpus = limits.cpus;
  info.cgroup_processes = limits.processes;
  info.cgroup_cpuset = std::move(limits.cpuset);
  return info;
}

Result<PlatformPaths> PlatformPaths::of(std::string_view application) {
  if (application.empty() || application == "." || application == ".." || application.contains('/'))
    return fail(ErrorCode::InvalidArgument, "find folders", std::string(application), "not a name");
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value != nullptr && value[0] == '/' ? value : "";  // relative paths are to be ignored (specification)
  };
  const std::string home = variable("HOME");
  const auto folder = [&](const char* name, const char* fallback) -> std::string {
    std::string base = variable(name);
    if (base.empty() && !home.empty()) base = home + fallback;
    return base.empty() ? base : base + "/" + std::string(application);
  };
  PlatformPaths paths;
  paths.config = folder("XDG_CONFIG_HOME", "/.config");
  paths.data = folder("XDG_DATA_HOME", "/.local/share");
  paths.cache = folder("XDG_CACHE_HOME", "/.cache");
  paths.state = folder("XDG_STATE_HOME", "/.local/state");
  if (paths.config.empty() || paths.data.empty() || paths.cache.empty() || paths.state.empty()) {
    return fail(VmError(ErrorCode::NotFound, "find folders", std::string(application), "$HOME is not set")
                    .with_hint("set HOME, or the XDG_*_HOME variables"));
  }
  paths.temporary = variable("TMPDIR").empty() ? "/tmp" : variable("TMPDIR");
  paths.runtime = variable("XDG_RUNTIME_DIR").empty()
                      ? paths.temporary + "/" + std::string(application) + "-" + std::to_string(::getuid())
                      : variable("XDG_RUNTIME_DIR") + "/" + std::string(application);
  return paths;
}

}  // namespace vm_platform
