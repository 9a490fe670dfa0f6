// The border between C++ and generated code (entry.S): how it is entered, left, and how it calls back.
//
// In generated code:
//   guest RAX RDX RBX RBP RSI RDI R12-R15   are in the host registers of the same name;
//   guest RCX is in R9 and guest RSP in R8; guest R8-R11 live in CpuContext::gpr;
//   RCX, R10 and R11 are scratch;
//   GS points to the CpuContext; RSP is a host stack with RSP mod 64 = 12, so that RSP serves as the count of shifts
//   by 12 (SHRX takes its count modulo 64): the TLB probe needs no register for it and leaves the flags alone;
//   RFLAGS holds the guest's arithmetic flags, and DF = TF = AC = 0;
//   the guest's x87 and vector state is in the registers only while fpu_absent is 0.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/soft/context.hpp"
#include "engine/soft/context_offsets.h"

namespace vm_platform::soft {

enum class ExitReason : std::uint64_t {
  Link = EXIT_LINK,                 ///< A direct jump without a target yet; value: exit number.
  Indirect = EXIT_INDIRECT,         ///< An indirect jump the cache does not know; value: RIP; scratch[8]: jump info,
                                    ///< scratch[9]: host PC.
  Execute = EXIT_EXECUTE,           ///< An instruction described in C++; value: exit number.
  Poll = EXIT_POLL,                 ///< `poll` was set; value: host PC, scratch[8]: access info of the instruction.
  Checked = EXIT_CHECKED,           ///< A memory access that needs the checked path; value: host PC.
  PageFault = EXIT_PAGE_FAULT,      ///< Value: host PC; fault_error and fault_address say the rest.
  NativeFault = EXIT_NATIVE_FAULT,  ///< The host CPU raised an exception in a copied instruction; value: host PC.
  AccessFault = EXIT_ACCESS_FAULT,  ///< A checked access raised a fault; Cpu::pending_fault.
};

enum Thunk : unsigned {
  kThunkLink,           ///< jmp, ECX = exit number
  kThunkIndirect,       ///< call, R10 = RIP, ECX = jump info; does not return
  kThunkExecute,        ///< jmp, ECX = exit number
  kThunkPoll,           ///< call, ECX = access info (only the instruction's offset counts); does not return
  kThunkMiss,           ///< call, R10 = linear address, ECX = access info; returns R11 = addend
  kThunkFpuLoad,        ///< call
  kThunkCheckedAccess,  ///< call, R10 = offset, ECX = access info; returns R10 = host address, R11 = 0
  kThunkNativeFault,    ///< where the signal handler resumes
  kThunkCount
};

/// Where generated code finds a thunk's address.
constexpr std::uint32_t offset_of_thunk(Thunk thunk) {
  return static_cast<std::uint32_t>(offsetof(CpuContext, thunks) + std::size_t{8} * thunk);
}

/// Where slot `n` of the scratch memory is.
constexpr std::uint32_t offset_of_scratch(unsigned n) {
  return static_cast<std::uint32_t>(offsetof(CpuContext, scratch) + std::size_t{8} * n);
}

/// Access info, as the thunks get it in ECX: what is accessed, and where the instruction stands in its block.
inline constexpr std::uint32_t kInfoWrite = 1 << 7, kInfoRead = 1 << 8;
inline constexpr unsigned kInfoTlbShift = 9;       ///< 2 bits: TlbIndex
inline constexpr unsigned kInfoSegmentShift = 11;  ///< 3 bits: SegmentRegister
inline constexpr unsigned kInfoIndexShift = 14;    ///< 2 bits: which of the instruction's accesses
inline constexpr unsigned kInfoRipShift = 16;      ///< 16 bits: offset of the instruction in its block

/// Jump info: what RSP is to be changed by when the jump is made (18 bits, signed), and the instruction's offset.
inline constexpr unsigned kJumpInfoRipShift = 18;

enum class MissStatus : std::uint64_t { Done, Checked, PageFault };
struct MissResult {
  std::uint64_t addend;
  MissStatus status;
};

extern "C" {
/// Runs generated code until it leaves; exit_reason and exit_value say why. GS must point to the context.
void vmp_soft_enter(const std::byte* code);
extern const std::uint64_t vmp_soft_thunk_table[kThunkCount];
MissResult vmp_soft_tlb_miss(CpuContext* context, std::uint64_t linear, std::uint32_t info) noexcept;
/// Returns where the access may be made instead (committed when the instruction has ended), or null: a fault is
/// pending.
std::byte* vmp_soft_checked_access(CpuContext* context, std::uint64_t offset, std::uint32_t info) noexcept;
}

/// Points this thread's GS at a context, and back.
class GsBinding {
 public:
  explicit GsBinding(CpuContext& context);
  ~GsBinding();
  GsBinding(const GsBinding&) = delete;
  GsBinding& operator=(const GsBinding&) = delete;

 private:
  std::uint64_t previous_;
};

/// Fills in the thunk addresses.
void prepare_context(CpuContext& context);

}  // namespace vm_platform::soft
