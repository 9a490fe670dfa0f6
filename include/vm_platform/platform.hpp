// What the host is and what it can do, read and, where reading is not enough, measured.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/core.hpp>
#include <vm_platform/topology.hpp>

namespace vm_platform {

/// Systems and processors that the platform is made for.
enum class HostOs : std::uint8_t { Linux, Windows };
enum class HostArch : std::uint8_t { X86_64, Aarch64 };
/// What this library was built for, which is what it runs on.
[[nodiscard]] HostOs host_os() noexcept;
[[nodiscard]] HostArch host_arch() noexcept;
[[nodiscard]] std::string_view to_string(HostOs os) noexcept;      ///< "linux", "windows"
[[nodiscard]] std::string_view to_string(HostArch arch) noexcept;  ///< "x86_64", "aarch64"

/// How much of the host's CPU the software engine makes use of.
enum class HostCpuUse : std::uint8_t {
  All,
  NoBmi2,    ///< As on a CPU without BMI2 (Intel before 2013, AMD before 2015).
  Baseline,  ///< As on a CPU without BMI2 and XSAVE, which so has no AVX either (Intel before 2008, AMD before 2011).
};

/// Huge pages of one size that the host has set aside.
struct HugePagePool {
  std::uint64_t page_size = 0;  ///< Bytes.
  std::uint64_t total = 0, free = 0;
};

/// What the host is: read from sysfs, procfs, os-release(5) and CPUID; on Windows from the system's calls. Sizes are
/// bytes; 0 or empty where the host does not tell.
struct PlatformInfo {
  HostOs os{};
  HostArch arch{};
  std::string os_name;     ///< "Debian GNU/Linux 12 (bookworm)".
  std::string kernel;      ///< "6.1.0-18-amd64".
  std::string cpu_model;   ///< "AMD EPYC 7763 64-Core Processor".
  std::string cpu_vendor;  ///< "AuthenticAMD".
  std::vector<std::string> cpu_flags;
  Topology topology;
  std::uint64_t memory_total = 0, memory_available = 0;
  std::uint64_t page_size = 0;
  std::vector<HugePagePool> huge_pages;
  std::string transparent_huge_pages;  ///< "always", "madvise", "never".
  /// The hypervisor this host is itself a guest of ("KVM", "Microsoft Hv", "TCG"); empty on bare metal.
  std::string hypervisor;
  std::string container;  ///< "docker", "podman", "lxc", "systemd-nspawn", "wine"; empty for none.
  int cgroup_version = 0;
  std::optional<std::uint64_t> cgroup_memory;  ///< Limit.
  std::optional<double> cgroup_cpus;           ///< CPU time per time.
  std::optional<std::uint64_t> cgroup_processes;
  std::optional<CpuSet> cgroup_cpuset;

  /// Reads it anew, in some milliseconds. Fails only where the CPUs cannot be told (`NotFound`: no sysfs). Any thread.
  static Result<PlatformInfo> detect(const HostRoots& roots = {});
};

/// Folders for files of an application, by the XDG base directory specification 0.8 (Windows: known folders). None of
/// them is created.
struct PlatformPaths {
  std::string config, data, cache, state;
  std::string runtime;  ///< Sockets and such; on Linux $XDG_RUNTIME_DIR, else a folder of the user's under /tmp.
  std::string temporary;

  /// For one application ("vm-platform"). `InvalidArgument` where that is no name of a folder, `NotFound` where the
  /// user has no home. Any thread that runs beside no change of the environment.
  static Result<PlatformPaths> of(std::string_view application);
};

/// Whether something can be used by this process, and why not.
struct FeatureState {
  bool present = false;     ///< The host has it.
  bool usable = false;      ///< This process may use it.
  std::string detail = {};  ///< Version, kind, or the reason why not.
};

/// Hardware virtualization, by having tried it.
struct KvmState {
  bool present = false;   ///< /dev/kvm exists.
  bool usable = false;    ///< It opens and makes virtual machines.
  bool measured = false;  ///< Guest code was run and timed.
  /// Guest instructions run at the speed of an emulator: a /dev/kvm without hardware behind it (nested without nested
  /// paging, or an emulated one). Guests work, and crawl.
  bool emulated = false;
  double million_instructions_per_second = 0;
  std::uint64_t exit_ns = 0;  ///< Median of one round trip out of the guest and back.
  int os_error = 0;           ///< Why it is not usable: EACCES, EBUSY …; 0 where it is.
  std::string detail = {};
};

/// What the host can do, found by trying where that is harmless. What can only be tried (system calls) is not asked of
/// another host's `roots`: it is absent there.
struct PlatformFeatures {
  KvmState kvm;
  FeatureState iommu;  ///< `detail` has the number of groups.
  FeatureState vfio;
  FeatureState userfaultfd;
  FeatureState pagemap_scan;
  FeatureState soft_dirty;
  FeatureState memfd;
  FeatureState executable_memory;
  FeatureState io_uring;
  FeatureState membarrier;
  FeatureState explicit_huge_pages;
  FeatureState transparent_huge_pages;
  FeatureState invariant_counter;
  std::uint64_t max_mappings = 0;                ///< vm.max_map_count; 0 for no such limit.
  std::optional<std::uint64_t> lockable_memory;  ///< RLIMIT_MEMLOCK in bytes; nothing for unlimited.
  std::optional<std::uint64_t> open_files;       ///< RLIMIT_NOFILE.

  struct Options {
    bool probe_kvm = true;  ///< Runs guest code for some milliseconds.
    HostRoots roots = {};
  };
  /// Takes some milliseconds, with the KVM probe some ten. Never fails: what cannot be found out is absent, and its
  /// `detail` says why. Any thread.
  static PlatformFeatures detect(const Options& options);
  static PlatformFeatures detect() { return detect(Options{}); }
};

/// One thing `vmp doctor` has to say.
struct HostFinding {
  enum class Severity : std::uint8_t { Good, Note, Slow, Missing };
  std::string id;  ///< Stable, for programs: "kvm", "iommu", "memlock" …
  Severity severity = Severity::Good;
  std::string what;  ///< What is so.
  std::string cost;  ///< What it costs the user; empty where it is good.
  std::string fix;   ///< The command that changes it, or what else does; empty where it is good.
};
/// "good", "note", "slow", "missing"
[[nodiscard]] std::string_view to_string(HostFinding::Severity severity) noexcept;

/// Looks at everything that decides how well virtual machines run here. Judges only what it is given.
std::vector<HostFinding> diagnose_host(const PlatformInfo& info, const PlatformFeatures& features);

}  // namespace vm_platform
