// Names of hosts, and the judgement of what was found.
#include <array>
#include <cerrno>
#include <cstdio>
#include <vm_platform/platform.hpp>

namespace vm_platform {

HostOs host_os() noexcept {
#if defined(_WIN32)
  return HostOs::Windows;
#else
  return HostOs::Linux;
#endif
}

HostArch host_arch() noexcept {
#if defined(__x86_64__)
  return HostArch::X86_64;
#else
  return HostArch::Aarch64;
#endif
}

std::string_view to_string(HostOs os) noexcept { return os == HostOs::Linux ? "linux" : "windows"; }
std::string_view to_string(HostArch arch) noexcept { return arch == HostArch::X86_64 ? "x86_64" : "aarch64"; }

std::string_view to_string(HostFinding::Severity severity) noexcept {
  switch (severity) {
    case HostFinding::Severity::Good: return "good";
    case HostFinding::Severity::Note: return "note";
    case HostFinding::Severity::Slow: return "slow";
    case HostFinding::Severity::Missing: return "missing";
  }
  return "";
}

namespace {

using Severity = HostFinding::Severity;

std::string one_decimal(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.*f", value < 10 ? 1 : 0, value);
  return text.data();
}

HostFinding judge_kvm(const KvmState& kvm) {
  const std::string mips = one_decimal(kvm.million_instructions_per_second);
  if (!kvm.present) {
    return {"kvm", Severity::Missing, kvm.detail,
            "guests run on the software engine: fully working, slower than hardware",
            "enable virtualization (SVM, VT-x) in the firmware, or nested virtualization in the hypervisor; modprobe "
            "kvm-amd or kvm-intel"};
  }
  if (!kvm.usable) {
    const char* fix = "journalctl -k -g kvm says what the kernel has against it";
    if (kvm.os_error == EACCES || kvm.os_error == EPERM) fix = "usermod -aG kvm $USER, and log in again";
    if (kvm.os_error == EBUSY) fix = "stop the other hypervisor: modprobe -r vboxdrv";
    return {"kvm", Severity::Missing, kvm.detail, "guests run on the software engine", fix};
  }
  if (kvm.emulated) {
    return {
        "kvm", Severity::Slow,
        "/dev/kvm is there, but runs guest code at emulation speed: " + mips +
            " million instructions per second, measured",
        "a stock kernel would take hours to boot under it; guests run on the software engine instead",
        "turn nested virtualization on in the hypervisor above (Linux: modprobe kvm-amd nested=1, or kvm-intel), or "
        "take a machine that has it"};
  }
  if (!kvm.measured) {
    return {"kvm", Severity::Note, "/dev/kvm makes virtual machines; their speed was not measured: " + kvm.detail,
            "nobody knows whether guests run at the speed of hardware or of an emulator", "vmp doctor"};
  }
  return {"kvm", Severity::Good,
          "/dev/kvm runs guest code at full speed (" + mips + " million instructions per second)", "", ""};
}

HostFinding judge(const char* id, const FeatureState& state, Severity otherwise, std::string cost, std::string fix) {
  if (state.usable) return {id, Severity::Good, state.detail, "", ""};
  return {id, otherwise, state.detail, std::move(cost), std::move(fix)};
}

}  // namespace

std::vector<HostFinding> diagnose_host(const PlatformInfo& info, const PlatformFeatures& features) {
  std::vector<HostFinding> findings;
  const bool linux = info.os == HostOs::Linux;
  if (linux) {
    findings.push_back(judge_kvm(features.kvm));
    findings.push_back(judge("iommu", features.iommu, Severity::Missing, "no device can be handed to a guest",
                             "enable VT-d / AMD-Vi in the firmware; add intel_iommu=on iommu=pt (Intel) to the kernel "
                             "command line"));
    findings.push_back(judge("vfio", features.vfio, Severity::Missing, "no device can be handed to a guest",
                             "modprobe vfio-pci, with a kernel that has CONFIG_VFIO_PCI"));
    findings.push_back(
        judge("userfaultfd", features.userfaultfd, Severity::Slow,
              "snapshots are restored whole before the guest runs, and before Linux 6.7 changes are tracked by faults",
              "sysctl -w vm.unprivileged_userfaultfd=1"));
    findings.push_back(judge("pagemap-scan", features.pagemap_scan, Severity::Note,
                             "changed pages are collected by slower means", "use Linux 6.7 or newer"));
    findings.push_back(judge("io-uring", features.io_uring, Severity::Note, "disks use plain system calls",
                             "sysctl -w kernel.io_uring_disabled=0"));
  }
  findings.push_back(judge("executable-memory", features.executable_memory, Severity::Missing,
                           "the software engine cannot run",
                           linux ? "setsebool -P deny_execmem 0; systemd: MemoryDenyWriteExecute=no"
                                 : "turn Arbitrary Code Guard off for this program"));
  findings.push_back(
      judge("huge-pages", features.explicit_huge_pages, Severity::Note,
            "guest memory cannot use reserved huge pages: more TLB misses, up to some 20 % on large guests",
            linux ? "sysctl -w vm.nr_hugepages=1024" : "grant the right \"Lock pages in memory\""));
  if (linux) {
    findings.push_back(judge("transparent-huge-pages", features.transparent_huge_pages, Severity::Slow,
                             "guest memory uses 4 KiB pages: more TLB misses and slower start",
                             "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"));
  }
  findings.push_back(judge("clock", features.invariant_counter, Severity::Slow,
                           "each reading of the time costs more (some 25 ns to 1 us)",
                           linux ? "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource, or "
                                   "tsc=reliable on the kernel command line, where the processor's counter is invariant"
                                 : "use a processor whose counter is invariant"));
  if (features.lockable_memory && *features.lockable_memory < 64 * kMiB) {
    findings.push_back({"memlock", Severity::Slow,
                        "this process may lock " + std::to_string(*features.lockable_memory / kKiB) + " KiB",
                        "guests with handed-over devices and io_uring buffers need their memory locked",
                        "ulimit -l unlimited, or LimitMEMLOCK=infinity in the service"});
  } else if (linux) {
    findings.push_back({"memlock", Severity::Good,
                        features.lockable_memory
                            ? "this process may lock " + std::to_string(*features.lockable_memory / kMiB) + " MiB"
                            : "this process may lock any amount of memory",
                        "", ""});
  }
  if (features.max_mappings != 0) {
    const bool few = features.max_mappings < 262144;
    findings.push_back({"max-map-count", few ? Severity::Note : Severity::Good,
                        "a process may have " + std::to_string(features.max_mappings) + " mappings",
                        few ? "tracking scattered changes of large guests by faults falls back to whole regions" : "",
                        few ? "sysctl -w vm.max_map_count=1048576" : ""});
  }
  if (features.open_files && *features.open_files < 4096) {
    findings.push_back({"open-files", Severity::Note,
                        "this process may open " + std::to_string(*features.open_files) + " files",
                        "many guests with many devices in one service run out", "ulimit -n 65536"});
  }
  if (info.cgroup_memory) {
    const bool tight = *info.cgroup_memory < info.memory_total;
    findings.push_back({"cgroup-memory", tight ? Severity::Note : Severity::Good,
                        "the control group allows " + std::to_string(*info.cgroup_memory / kMiB) + " MiB of memory",
                        tight ? "guests that need more are killed" : "",
                        tight ? "systemctl set-property UNIT MemoryMax=infinity, or echo max > "
                                "/sys/fs/cgroup/GROUP/memory.max"
                              : ""});
  }
  if (info.cgroup_processes && *info.cgroup_processes < 1024) {
    findings.push_back({"cgroup-processes", Severity::Note,
                        "the control group allows " + std::to_string(*info.cgroup_processes) + " threads",
                        "guests with many virtual CPUs and devices fail to start",
                        "systemctl set-property UNIT TasksMax=infinity, or echo max > /sys/fs/cgroup/GROUP/pids.max"});
  }
  if (info.cgroup_cpuset) {
    const std::size_t usable = (*info.cgroup_cpuset & info.topology.online).count();
    if (usable < info.topology.online.count()) {
      findings.push_back({"cgroup-cpuset", Severity::Note,
                          "the control group may use " + std::to_string(usable) + " of " +
                              std::to_string(info.topology.online.count()) + " CPUs",
                          "guests with more virtual CPUs than that share them",
                          "systemctl set-property UNIT AllowedCPUs=" + info.topology.online.to_string()});
    }
  }
  if (info.cgroup_cpus && *info.cgroup_cpus < static_cast<double>(info.topology.allowed.count())) {
    findings.push_back({"cgroup-cpu", Severity::Slow,
                        "the control group allows the time of " + one_decimal(*info.cgroup_cpus) + " CPUs on " +
                            std::to_string(info.topology.allowed.count()) + " CPUs",
                        "virtual CPUs are stopped in the middle of what they do",
                        "systemctl set-property UNIT CPUQuota=, or echo max > /sys/fs/cgroup/GROUP/cpu.max"});
  }
  return findings;
}

}  // namespace vm_platform
