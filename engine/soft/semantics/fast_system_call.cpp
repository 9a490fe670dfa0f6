// SYSCALL, SYSRET, SYSENTER, SYSEXIT, as AMD has them (APM vol. 3): no SYSENTER in long mode, SYSRET leaves the hidden
// part of SS alone, and a non-canonical return address faults in user mode.
#include "engine/soft/semantics/descriptors.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint16_t kFlatCode = Segment::kPresent | Segment::kCodeOrData | Segment::kGranular | 0xb;
constexpr std::uint16_t kFlatData = Segment::kPresent | Segment::kCodeOrData | Segment::kGranular | Segment::kBig | 0x3;

constexpr std::uint64_t kSingleStep = 1 << 14;  // DR6.BS

constexpr Segment flat_code(std::uint16_t selector, bool is_64bit, unsigned dpl) {
  const auto attributes =
      static_cast<std::uint16_t>(kFlatCode | (is_64bit ? Segment::kLong : Segment::kBig) | (dpl << 5));
  return {0, 0xffffffff, selector, attributes};
}
constexpr Segment flat_data(std::uint16_t selector, unsigned dpl) {
  return {0, 0xffffffff, selector, static_cast<std::uint16_t>(kFlatData | (dpl << 5))};
}

void syscall(Cpu& cpu, const Instruction& instruction) {
  if ((cpu.efer & efer::kSyscall) == 0 || cpu.real_mode()) raise(Vector::InvalidOpcode);
  const auto selector = static_cast<std::uint16_t>((cpu.star >> 32) & 0xfffc);
  if (cpu.long_mode()) {
    const bool from_64bit = cpu.in_64bit();
    cpu.gpr[kRcx] = from_64bit ? instruction.next_rip() : instruction.next_rip() & 0xffffffff;
    cpu.gpr[kR11] = cpu.flags() & ~rflags::kResume;
    cpu.rip = from_64bit ? cpu.lstar : cpu.cstar;
    cpu.set_flags(cpu.flags() & ~(cpu.sfmask | rflags::kResume));
    cpu.segments[kCs] = flat_code(selector, true, 0);
  } else {
    cpu.gpr[kRcx] = instruction.next_rip() & 0xffffffff;
    cpu.rip = cpu.star & 0xffffffff;
    cpu.system_flags &= ~(rflags::kVirtual8086 | rflags::kInterrupt | rflags::kResume);
    cpu.segments[kCs] = flat_code(selector, false, 0);
  }
  cpu.segments[kSs] = flat_data(static_cast<std::uint16_t>(selector + 8), 0);
  cpu.cpl = 0;
  // Whether a single step traps depends on TF as it is now, here and in SYSRET: a kernel that masks it must not be
  // interrupted before its first instruction, on the caller's stack. No manual says so; CPUs do it.
  cpu.single_step_done = (cpu.system_flags & rflags::kTrap) == 0;
}

void sysret(Cpu& cpu, const Instruction& instruction) {
  if ((cpu.efer & efer::kSyscall) == 0) raise(Vector::InvalidOpcode);
  if (cpu.real_mode()) raise(Vector::GeneralProtection, 0);
  require_cpl0(cpu);
  const auto base = static_cast<std::uint16_t>(cpu.star >> 48);
  if (cpu.in_64bit()) {
    const bool to_64bit = instruction.info.operand_width == 64;
    const auto selector = static_cast<std::uint16_t>((to_64bit ? base + 16 : base) | 3);
    cpu.segments[kCs] = flat_code(selector, to_64bit, 3);
    cpu.rip = to_64bit ? cpu.gpr[kRcx] : cpu.gpr[kRcx] & 0xffffffff;
    cpu.set_flags(cpu.gpr[kR11] & 0x3c7fd7 & ~(rflags::kResume | rflags::kVirtual8086));
  } else {
    cpu.segments[kCs] = flat_code(static_cast<std::uint16_t>(base | 3), false, 3);
    cpu.rip = cpu.gpr[kRcx] & 0xffffffff;
    cpu.system_flags |= rflags::kInterrupt;
  }
  Segment& stack = cpu.segments[kSs];
  stack.selector = static_cast<std::uint16_t>((base + 8) | 3);
  stack.attributes |= Segment::kDplMask;  // where a saved state keeps the CPL; nothing else looks at it
  cpu.cpl = 3;
  if ((cpu.system_flags & rflags::kTrap) != 0) throw GuestFault{Vector::Debug, {}, 0, kSingleStep};
}

void sysenter(Cpu& cpu, const Instruction&) {
  if (cpu.long_mode()) raise(Vector::InvalidOpcode);
  if (cpu.real_mode() || (cpu.sysenter_cs & 0xfffc) == 0) raise(Vector::GeneralProtection, 0);
  const auto selector = static_cast<std::uint16_t>(cpu.sysenter_cs & 0xfffc);
  cpu.system_flags &= ~(rflags::kVirtual8086 | rflags::kInterrupt | rflags::kResume);
  cpu.segments[kCs] = flat_code(selector, false, 0);
  cpu.segments[kSs] = flat_data(static_cast<std::uint16_t>(selector + 8), 0);
  cpu.gpr[kRsp] = cpu.sysenter_esp & 0xffffffff;
  cpu.rip = cpu.sysenter_eip & 0xffffffff;
  cpu.cpl = 0;
}

void sysexit(Cpu& cpu, const Instruction&) {
  if (cpu.long_mode()) raise(Vector::InvalidOpcode);
  if (cpu.real_mode() || (cpu.sysenter_cs & 0xfffc) == 0 || cpu.cpl != 0) raise(Vector::GeneralProtection, 0);
  const auto selector = static_cast<std::uint16_t>(cpu.sysenter_cs & 0xfffc);
  cpu.segments[kCs] = flat_code(static_cast<std::uint16_t>((selector + 16) | 3), false, 3);
  cpu.segments[kSs] = flat_data(static_cast<std::uint16_t>((selector + 24) | 3), 3);
  cpu.gpr[kRsp] = cpu.gpr[kRcx] & 0xffffffff;
  cpu.rip = cpu.gpr[kRdx] & 0xffffffff;
  cpu.cpl = 3;
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_SYSCALL, syscall, Flow::Own},
    {ZYDIS_MNEMONIC_SYSRET, sysret, Flow::Own},
    {ZYDIS_MNEMONIC_SYSENTER, sysenter, Flow::Own},
    {ZYDIS_MNEMONIC_SYSEXIT, sysexit, Flow::Own},
};

}  // namespace

const Group kFastSystemCallGroup{"fast system calls", "FastSystemCall", kRows};

}  // namespace vm_platform::soft
