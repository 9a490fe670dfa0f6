// CPUs as GetLogicalProcessorInformationEx describes them; numbers run through all processor groups.
#include <windows.h>

#include <cstring>
#include <vector>
#include <vm_platform/topology.hpp>

#include "os/threading_host.hpp"
#include "os/windows/failure.hpp"
#include "os/windows/groups.hpp"

namespace vm_platform {
namespace {

CpuSet from_group_mask(const GROUP_AFFINITY& affinity) {
  CpuSet set;
  const unsigned first = first_cpu_of_group(affinity.Group);
  for (unsigned bit = 0; bit < 64; ++bit)
    if ((affinity.Mask >> bit & 1) != 0) set.add(first + bit);
  return set;
}

template <typename Visit>
Result<void> each_record(Visit visit) {
  DWORD length = 0;
  ::GetLogicalProcessorInformationEx(RelationAll, nullptr, &length);
  std::vector<std::byte> buffer(length);
  auto* first = reinterpret_cast<SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX*>(buffer.data());
  if (length == 0 || ::GetLogicalProcessorInformationEx(RelationAll, first, &length) == 0)
    return fail(VmError::from_last_error(::GetLastError(), "GetLogicalProcessorInformationEx", "this host"));
  for (DWORD at = 0; at + 8 <= length;) {
    const auto* record = reinterpret_cast<const SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX*>(buffer.data() + at);
    if (record->Size == 0) break;
    visit(*record);
    at += record->Size;
  }
  return {};
}

const char* cache_type(PROCESSOR_CACHE_TYPE type) {
  switch (type) {
    case CacheInstruction: return "Instruction";
    case CacheData: return "Data";
    default: return "Unified";
  }
}

}  // namespace

Result<Topology> read_topology(const HostRoots& /*roots*/) {
  Topology topology;
  for (unsigned cpu = 0; cpu < first_cpu_of_group(::GetActiveProcessorGroupCount()); ++cpu) {
    topology.online.add(cpu);
    topology.cpus.push_back({.id = cpu});
  }
  int core = 0, package = 0;
  const auto for_each = [&](const CpuSet& set, auto&& change) {
    for (const unsigned cpu : set.list())
      if (cpu < topology.cpus.size()) change(topology.cpus[cpu]);
  };
  const auto done = each_record([&](const SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX& record) {
    switch (record.Relationship) {
      case RelationProcessorCore: {
        // EfficiencyClass is the byte after Flags; MinGW's header does not name it. Higher is faster.
        std::uint8_t efficiency = 0;
        std::memcpy(&efficiency, reinterpret_cast<const std::byte*>(&record.Processor) + 1, 1);
        for_each(from_group_mask(record.Processor.GroupMask[0]), [&](Cpu& cpu) {
          cpu.core = core;
          cpu.capacity = efficiency + 1U;
        });
        ++core;
        break;
      }
      case RelationProcessorPackage:
        for (WORD i = 0; i < record.Processor.GroupCount; ++i)
          for_each(from_group_mask(record.Processor.GroupMask[i]), [&](Cpu& cpu) { cpu.package = package; });
        ++package;
        break;
      case RelationNumaNode:
        for_each(from_group_mask(record.NumaNode.GroupMask),
                 [&](Cpu& cpu) { cpu.node = static_cast<int>(record.NumaNode.NodeNumber); });
        break;
      case RelationCache:
        topology.caches.push_back(Cache{.level = record.Cache.Level,
                                        .type = cache_type(record.Cache.Type),
                                        .size = record.Cache.CacheSize,
                                        .line = record.Cache.LineSize,
                                        .ways = record.Cache.Associativity,
                                        .cpus = from_group_mask(record.Cache.GroupMask)});
        break;
      default: break;
    }
  });
  if (!done) return fail(done.error());
  if (classify_by_capacity(topology.cpus)) topology.kinds_from = "EfficiencyClass";
  for (const Cpu& cpu : topology.cpus)
    (cpu.kind == CoreKind::Efficiency ? topology.efficiency : topology.performance).add(cpu.id);
  topology.allowed = threading_host::affinity_at_start() & topology.online;
  return topology;
}

}  // namespace vm_platform
