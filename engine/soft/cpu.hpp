// A guest CPU: its context and what it is connected to.
#pragma once

#include <cstdint>

#include "engine/engine.hpp"
#include "engine/soft/context.hpp"
#include "engine/soft/counter.hpp"
#include "engine/soft/mmu_state.hpp"
#include "engine/soft/semantics/host_cpu.hpp"

namespace vm_platform::soft {

class CodeCache;
class CodePages;

class Cpu : public CpuContext {
 public:
  Cpu(const EngineEnvironment& env, const EngineOptions& opts, CpuInterruptController& interrupts, CodeCache& cache,
      CodePages& pages, unsigned number)
      : environment(env),
        options(opts),
        controller(interrupts),
        code(cache),
        code_pages(pages),
        index(number),
        host(HostCpu::as_used(opts.host_cpu)),
        mmu(env) {}

  [[nodiscard]] std::uint64_t flags() const { return arithmetic_flags | system_flags; }
  void set_flags(std::uint64_t value) {
    arithmetic_flags = value & rflags::kArithmetic;
    system_flags = (value & ~rflags::kArithmetic) | rflags::kFixed;
  }
  [[nodiscard]] bool long_mode() const { return (efer & efer::kLongModeActive) != 0; }
  [[nodiscard]] bool in_64bit() const { return long_mode() && (segments[kCs].attributes & Segment::kLong) != 0; }
  [[nodiscard]] bool real_mode() const { return (cr0 & cr0::kProtection) == 0; }
  [[nodiscard]] bool virtual_8086() const { return (system_flags & rflags::kVirtual8086) != 0; }
  [[nodiscard]] unsigned iopl() const { return static_cast<unsigned>(system_flags >> 12) & 3; }

  /// Power-on state (Intel SDM vol. 3, table 9-1).
  void reset();
  /// What INIT leaves (the same table): MSRs, x87 and vector state, and the TSC stay.
  void init_reset();

  const EngineEnvironment& environment;
  const EngineOptions& options;
  CpuInterruptController& controller;
  CodeCache& code;
  CodePages& code_pages;
  const unsigned index;
  const HostCpu& host;  ///< What its code is made for.
  MmuState mmu;
  struct {
    Counter exits, port_accesses, mmio_accesses, interrupts, exceptions, halts;
  } counters;  ///< See VcpuStats.
};

}  // namespace vm_platform::soft
