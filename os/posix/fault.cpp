// Reading and changing the registers of a fault, from what Linux puts on the signal frame.
#include <ucontext.h>

#include <array>
#include <csignal>
#include <cstring>
#include <vm_platform/signals.hpp>

namespace vm_platform {
namespace {

mcontext_t& machine(void* context) { return static_cast<ucontext_t*>(context)->uc_mcontext; }
const siginfo_t& information(void* info) { return *static_cast<const siginfo_t*>(info); }

#if defined(__x86_64__)
// Numbers in machine code, in the order of the manual (AMD64 volume 3, table B-2).
constexpr std::array<int, 16> kGeneral = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                          REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
constexpr int kBreakpoint = 3, kPageFault = 14;  // AMD64 volume 2, table 8-1
#elif defined(__aarch64__)
/// The fault's syndrome register (ESR_EL1), a record among those behind the registers; 0 where there is none.
std::uint64_t syndrome(mcontext_t& context) {
  const unsigned char* at = context.__reserved;
  const unsigned char* end = at + sizeof context.__reserved;
  while (at + sizeof(_aarch64_ctx) <= end) {
    _aarch64_ctx head{};
    std::memcpy(&head, at, sizeof head);
    if (head.magic == 0 || head.size < sizeof head) return 0;
    if (head.magic == ESR_MAGIC) {
      esr_context record{};
      std::memcpy(&record, at, sizeof record);
      return record.esr;
    }
    at += head.size;
  }
  return 0;
}
#endif

}  // namespace

bool Fault::synchronous() const noexcept { return information(information_).si_code > 0; }
int Fault::code() const noexcept { return information(information_).si_code; }

#if defined(__x86_64__)

std::uintptr_t Fault::address() const noexcept {
  const auto told = reinterpret_cast<std::uintptr_t>(information(information_).si_addr);
  if (told != 0 || kind_ == FaultKind::Memory || kind_ == FaultKind::Bus) return told;
  // Of INT3 Linux tells no address; the program counter is behind its one byte.
  return machine(context_).gregs[REG_TRAPNO] == kBreakpoint ? pc() - 1 : pc();
}

bool Fault::address_known() const noexcept {
  if (!synchronous()) return false;
  if (kind_ != FaultKind::Memory && kind_ != FaultKind::Bus) return true;
  // Other exceptions than a page fault come without an address: #GP (SIGSEGV) and #SS (SIGBUS) of a non-canonical one,
  // #AC (SIGBUS). A machine check has one.
  return machine(context_).gregs[REG_TRAPNO] == kPageFault || code() == BUS_MCEERR_AR || code() == BUS_MCEERR_AO;
}

FaultAccess Fault::access() const noexcept {
  const auto& registers = machine(context_).gregs;
  if (registers[REG_TRAPNO] != kPageFault) return FaultAccess::Unknown;
  const auto error = registers[REG_ERR];  // AMD64 volume 2, 8.4.2: bit 1 write, bit 4 instruction fetch
  if ((error & 16) != 0) return FaultAccess::Execute;
  return (error & 2) != 0 ? FaultAccess::Write : FaultAccess::Read;
}

std::uintptr_t Fault::pc() const noexcept { return static_cast<std::uintptr_t>(machine(context_).gregs[REG_RIP]); }
void Fault::set_pc(std::uintptr_t pc) noexcept { machine(context_).gregs[REG_RIP] = static_cast<greg_t>(pc); }
std::uintptr_t Fault::sp() const noexcept { return general(4); }
void Fault::set_sp(std::uintptr_t sp) noexcept { set_general(4, sp); }
std::uint64_t Fault::general(unsigned number) const noexcept {
  return number < kGeneral.size() ? static_cast<std::uint64_t>(machine(context_).gregs[kGeneral[number]]) : 0;
}
void Fault::set_general(unsigned number, std::uint64_t value) noexcept {
  if (number < kGeneral.size()) machine(context_).gregs[kGeneral[number]] = static_cast<greg_t>(value);
}
std::uint64_t Fault::flags() const noexcept { return static_cast<std::uint64_t>(machine(context_).gregs[REG_EFL]); }
void Fault::set_flags(std::uint64_t flags) noexcept { machine(context_).gregs[REG_EFL] = static_cast<greg_t>(flags); }

#elif defined(__aarch64__)

std::uintptr_t Fault::address() const noexcept {
  return reinterpret_cast<std::uintptr_t>(information(information_).si_addr);
}
bool Fault::address_known() const noexcept { return synchronous(); }

FaultAccess Fault::access() const noexcept {
  if (kind_ != FaultKind::Memory && kind_ != FaultKind::Bus) return FaultAccess::Unknown;
  const std::uint64_t esr = syndrome(machine(context_));
  switch ((esr >> 26) & 0x3f) {  // Arm ARM D17.2.37: EC; 0x20/0x21 instruction abort, 0x24/0x25 data abort, bit 6 WnR
    case 0x20:
    case 0x21: return FaultAccess::Execute;
    case 0x24:
    case 0x25: return (esr & 64) != 0 ? FaultAccess::Write : FaultAccess::Read;
    default: return FaultAccess::Unknown;
  }
}

std::uintptr_t Fault::pc() const noexcept { return machine(context_).pc; }
void Fault::set_pc(std::uintptr_t pc) noexcept { machine(context_).pc = pc; }
std::uintptr_t Fault::sp() const noexcept { return machine(context_).sp; }
void Fault::set_sp(std::uintptr_t sp) noexcept { machine(context_).sp = sp; }
std::uint64_t Fault::general(unsigned number) const noexcept {
  if (number == 31) return sp();
  return number < 31 ? machine(context_).regs[number] : 0;
}
void Fault::set_general(unsigned number, std::uint64_t value) noexcept {
  if (number == 31) return set_sp(value);
  if (number < 31) machine(context_).regs[number] = value;
}
std::uint64_t Fault::flags() const noexcept { return machine(context_).pstate; }
void Fault::set_flags(std::uint64_t flags) noexcept { machine(context_).pstate = flags; }

#else
#error "the signal frame of this processor is not described yet"
#endif

}  // namespace vm_platform
