// One guest CPU's state as generated code and the C++ around it share it. Generated code reaches it through GS, so the
// offsets of the first members are part of the code it contains.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cpu_state.hpp"

namespace vm_platform::soft {

/// RFLAGS (Intel SDM vol. 1, 3.4.3).
namespace rflags {
inline constexpr std::uint64_t kCarry = 1 << 0, kFixed = 1 << 1, kParity = 1 << 2, kAdjust = 1 << 4, kZero = 1 << 6,
                               kSign = 1 << 7, kTrap = 1 << 8, kInterrupt = 1 << 9, kDirection = 1 << 10,
                               kOverflow = 1 << 11, kIoplMask = 3 << 12, kNestedTask = 1 << 14, kResume = 1 << 16,
                               kVirtual8086 = 1 << 17, kAlignmentCheck = 1 << 18, kVirtualInterrupt = 1 << 19,
                               kVirtualInterruptPending = 1 << 20, kIdentification = 1 << 21;
inline constexpr std::uint64_t kArithmetic = kCarry | kParity | kAdjust | kZero | kSign | kOverflow;
}  // namespace rflags

namespace cr0 {
inline constexpr std::uint64_t kProtection = 1 << 0, kMonitorCoprocessor = 1 << 1, kEmulation = 1 << 2,
                               kTaskSwitched = 1 << 3, kExtensionType = 1 << 4, kNumericError = 1 << 5,
                               kWriteProtect = 1 << 16, kAlignmentMask = 1 << 18, kNotWriteThrough = 1 << 29,
                               kCacheDisable = 1 << 30, kPaging = 1U << 31;
}
namespace cr4 {
inline constexpr std::uint64_t kVme = 1 << 0, kPvi = 1 << 1, kTsd = 1 << 2, kDe = 1 << 3, kPse = 1 << 4, kPae = 1 << 5,
                               kMce = 1 << 6, kPge = 1 << 7, kPce = 1 << 8, kOsfxsr = 1 << 9, kOsxmmexcpt = 1 << 10,
                               kUmip = 1 << 11, kLa57 = 1 << 12, kFsgsbase = 1 << 16, kPcide = 1 << 17,
                               kOsxsave = 1 << 18, kSmep = 1 << 20, kSmap = 1 << 21;
}
namespace efer {
inline constexpr std::uint64_t kSyscall = 1 << 0, kLongModeEnable = 1 << 8, kLongModeActive = 1 << 10,
                               kNoExecute = 1 << 11, kFastFxsave = 1 << 14, kAutoIbrs = 1 << 21;
}

/// Which set of translations applies to a data access (chosen when code is translated, so part of a block's key).
enum class TlbIndex : std::uint8_t {
  User,            ///< CPL 3.
  Supervisor,      ///< CPL 0 to 2 with SMAP in force: user pages fault.
  SupervisorOpen,  ///< CPL 0 to 2, SMAP off or EFLAGS.AC set.
};
inline constexpr unsigned kTlbSets = 3, kTlbEntries = 256;

/// First-level TLB as probed by generated code, direct-mapped by the low bits of the page number.
/// A tag is the negated address of the page (so that tag + address is the offset into the page, below 4096, on a hit).
/// Host address = guest linear address + addend. A page that is not plain RAM, or that must be watched for writes,
/// has no write tag.
struct TlbSet {
  /// A tag that no access mapping to this slot matches, nor one that begins there and ends in the next page.
  static constexpr std::uint64_t empty_tag(unsigned slot) {
    return 0 - (std::uint64_t{slot ^ (kTlbEntries / 2)} << 12);
  }

  std::uint64_t read_tag[kTlbEntries];
  std::uint64_t write_tag[kTlbEntries];
  std::uint64_t addend[kTlbEntries];
  std::uint64_t used = 1;  ///< Nonzero: something is in it (at first: zeros, which are no empty tags).
};

/// Where indirect jumps of generated code look for their target, by the low 16 bits of RIP.
struct JumpCacheEntry {
  std::uint64_t tag;     ///< Negated RIP.
  std::uint64_t target;  ///< Host address of the code.
};
inline constexpr unsigned kJumpCacheEntries = 1 << 16;

struct CpuContext {
  // ---- reached by generated code -------------------------------------------------------------------------------
  std::uint64_t gpr[16] = {};
  std::uint64_t rip = 0;
  /// RFLAGS in two parts, so that generated code saves and loads the arithmetic ones (CF PF AF ZF SF OF, in their
  /// places) without touching the rest. Use Cpu::flags() and set_flags().
  std::uint64_t arithmetic_flags = 0;
  std::uint64_t system_flags = rflags::kFixed;
  /// Nonzero: leave generated code at the next poll. Written by other threads.
  std::uint64_t poll = 0;
  std::uint64_t fpu_absent = 1;  ///< 0 while the guest's x87 / vector state is in the host's registers.
  std::uint64_t host_rsp = 0;
  std::uint64_t exit_reason = 0, exit_value = 0;
  std::uint64_t bounce_pointer = 0;
  /// Entry points of the thunks (entry.S), which are too far away for a direct call.
  std::uint64_t thunks[16] = {};
  std::uint64_t scratch[16] = {};
  std::uint64_t masks[3] = {15, 31, 63};  ///< Bit offsets within 16, 32 and 64 bits.
  std::uint64_t tsc_offset = 0;
  /// Nonzero: an interrupt waits for IF to be set; instructions that set it look here.
  std::uint64_t interrupt_waiting = 0;
  std::uint64_t fpu_mask = 3;  ///< HostCpu::components.
  Segment segments[6];

  /// The guest's x87, SSE and AVX state in the standard XSAVE format while it is not in the host's registers
  /// (always, when C++ code outside of the entry thunks runs). The host's XSAVE writes all of it, but leaves components
  /// out of XSTATE_BV that are in their initial state, and its XRSTOR initializes those: see components_changed.
  alignas(64) std::uint8_t xsave[1024] = {};
  /// Where an access that cannot be made in place is made instead, at the same offset modulo 64.
  alignas(64) std::uint8_t bounce[3][128] = {};

  /// After each change that C++ makes to `xsave`: puts the components (1 x87, 2 SSE, 4 AVX) into XSTATE_BV.
  void components_changed(std::uint8_t components) { xsave[512] |= static_cast<std::uint8_t>(components & fpu_mask); }
  /// XSTATE_BV with all there is. A bit of a component that the host's XCR0 lacks would make its XRSTOR fault, whatever
  /// that is asked to load (Intel SDM vol. 1, 13.8.1).
  [[nodiscard]] std::uint8_t all_components() const { return static_cast<std::uint8_t>(fpu_mask != 0 ? fpu_mask : 3); }

  // ---- the rest of the CPU -------------------------------------------------------------------------------------
  Segment ldtr, tr;
  DescriptorTable gdtr, idtr;
  std::uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0, xcr0 = 1;
  std::uint64_t pdpte[4] = {};  ///< PAE paging: the page-directory pointers, as they were when CR3 was loaded.
  std::uint64_t debug_address[4] = {};
  std::uint64_t dr6 = 0xffff0ff0, dr7 = 0x400;
  std::uint8_t cpl = 0;
  bool interrupt_shadow = false;  ///< No interrupt before the next instruction has run (STI, MOV SS, POP SS).
  bool nmi_masked = false;        ///< Between the delivery of an NMI and IRET.
  bool halted = false;            ///< HLT was executed.

  // MSRs that are no part of the above (Intel SDM vol. 4, AMD APM vol. 2 appendix A).
  std::uint64_t star = 0, lstar = 0, cstar = 0, sfmask = 0, kernel_gs_base = 0;
  std::uint64_t sysenter_cs = 0, sysenter_esp = 0, sysenter_eip = 0;
  std::uint64_t pat = 0x0007040600070406, tsc_aux = 0, tsc_adjust = 0, misc_enable = 1;
  // Memory types are the host's business: the MTRRs are storage, preset as firmware leaves them (all write-back), since
  // a kernel that finds them off leaves PAT off too.
  std::uint64_t mtrr_default = 0xc06, mtrr_variable[16] = {}, mtrr_fixed[11] = {};
  std::uint64_t hardware_configuration = 1 << 24;  ///< HWCR; the TSC counts at the P0 frequency.
  bool single_step_done = false;  ///< INT n and its like: TF goes with the saved flags, and no trap follows.
  std::uint64_t debug_hits = 0;   ///< Breakpoints that data accesses of this instruction hit: bits of DR6.
  std::uint64_t debug_control = 0, kvm_system_time = 0, kvm_wall_clock = 0;
  std::uint64_t amd_configuration[10] = {};  ///< SYSCFG, NB_CFG … (semantics/msr.cpp has the list).

  /// The page fault that vmp_soft_tlb_miss met.
  std::uint32_t fault_error = 0;
  std::uint64_t fault_address = 0;
  bool alone = true;  ///< No other CPU shares the memory.

  TlbSet tlb[kTlbSets] = {};
};

}  // namespace vm_platform::soft
