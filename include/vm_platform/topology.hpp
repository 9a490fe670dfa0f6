// Which CPUs the host has, of what kind, and which of them this process may use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// A set of CPU numbers, of any size. Numbers are the kernel's; on Windows those of all processor groups in a row.
class CpuSet {
 public:
  CpuSet() = default;
  CpuSet(std::initializer_list<unsigned> cpus) {
    for (const unsigned cpu : cpus) add(cpu);
  }
  /// "0-3,8,10-11" as the kernel writes it (also with a stride, "0-31:2/4"); empty text is the empty set.
  static Result<CpuSet> parse(std::string_view list);

  /// Grows the set as needed.
  void add(unsigned cpu);
  void remove(unsigned cpu) noexcept;  ///< Nothing happens where it is not in the set.
  [[nodiscard]] bool contains(unsigned cpu) const noexcept;
  [[nodiscard]] bool empty() const noexcept { return count() == 0; }
  [[nodiscard]] std::size_t count() const noexcept;
  [[nodiscard]] std::vector<unsigned> list() const;  ///< In rising order.
  /// "0-3,8".
  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] CpuSet operator&(const CpuSet& other) const;
  /// Those of this set that are not in `other`.
  [[nodiscard]] CpuSet without(const CpuSet& other) const;
  bool operator==(const CpuSet& other) const noexcept;
  /// The set as a bit mask, 64 CPUs per word.
  [[nodiscard]] const std::vector<std::uint64_t>& words() const noexcept { return words_; }

 private:
  std::vector<std::uint64_t> words_;
};

/// What a core is made for. On a host with one kind all are `Performance`.
enum class CoreKind : std::uint8_t { Performance, Efficiency };

/// One CPU (hardware thread) of the host.
struct Cpu {
  unsigned id = 0;
  int package = -1;  ///< -1 where the host does not tell; the same for the next two.
  int core = -1;
  int node = -1;                        ///< NUMA node.
  unsigned capacity = 0;                ///< Relative computing power (Linux cpu_capacity, Windows EfficiencyClass).
  std::uint64_t max_frequency_khz = 0;  ///< 0 where unknown.
  CoreKind kind = CoreKind::Performance;
};

/// One cache of the host, shared by `cpus`.
struct Cache {
  unsigned level = 0;
  std::string type;                  ///< "Data", "Instruction", "Unified".
  std::uint64_t size = 0, line = 0;  ///< Bytes.
  unsigned ways = 0;
  CpuSet cpus;  ///< Who shares it.
};

/// The host's CPUs, from /sys/devices/system/cpu (Linux: Documentation/ABI/testing/sysfs-devices-system-cpu) or
/// GetLogicalProcessorInformationEx (Windows).
struct Topology {
  std::vector<Cpu> cpus;  ///< All that are online, by number.
  CpuSet online, isolated;
  /// Those this process may use: affinity at start (where the host forbids to ask: as /proc/self/status has it, else
  /// all), cgroup cpuset, online; without isolated ones unless only those are left.
  CpuSet allowed;
  CpuSet performance, efficiency;  ///< All online ones are in exactly one; `efficiency` is empty with one kind only.
  std::vector<Cache> caches;       ///< Each once.
  /// Where the kinds come from: "cpu_capacity", "cpu_core and cpu_atom", "EfficiencyClass", or "one kind".
  std::string kinds_from = "one kind";
  [[nodiscard]] bool hybrid() const noexcept { return !efficiency.empty(); }
};

/// Where the host's description lies, so that another host's can be looked at (tests, support).
struct HostRoots {
  std::string sys = "/sys";
  std::string proc = "/proc";
  std::string etc = "/etc";
  std::string dev = "/dev";
  [[nodiscard]] bool is_this_host() const { return sys == "/sys" && proc == "/proc" && dev == "/dev"; }
};

/// Reads it anew; takes milliseconds. CPUs come and go (hotplug, cgroups). `NotFound` where the host does not tell its
/// CPUs. On Windows `roots` are not used. Any thread.
Result<Topology> read_topology(const HostRoots& roots = {});

/// Splits capacities into two kinds: at the largest ratio between neighbouring values, if that is at least 1.15 (cores
/// that merely clock a little higher are no kind of their own). Sets `kind` of each and returns whether there are two.
bool classify_by_capacity(std::vector<Cpu>& cpus);

}  // namespace vm_platform
