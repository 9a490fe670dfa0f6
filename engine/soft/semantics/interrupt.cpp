// Software interrupts and IRET.
#include "engine/soft/semantics/delivery.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/flags.hpp"
#include "engine/soft/semantics/operands.hpp"
#include "engine/soft/semantics/task.hpp"

namespace vm_platform::soft {
namespace {

void software_interrupt(Cpu& cpu, const Instruction& instruction, std::uint8_t vector) {
  deliver_event(cpu, {vector, true, {}, following_rip(cpu, instruction)});
  cpu.single_step_done = true;
}

void int_n(Cpu& cpu, const Instruction& instruction) {
  if (cpu.virtual_8086() && cpu.iopl() != 3) raise(Vector::GeneralProtection, 0);
  software_interrupt(cpu, instruction, static_cast<std::uint8_t>(instruction.operands[0].imm.value.u));
}

void int3(Cpu& cpu, const Instruction& instruction) { software_interrupt(cpu, instruction, 3); }

void into(Cpu& cpu, const Instruction& instruction) {
  if ((cpu.arithmetic_flags & rflags::kOverflow) != 0) {
    software_interrupt(cpu, instruction, 4);
  } else {
    cpu.rip = following_rip(cpu, instruction);
  }
}

/// A trap without DR6 bits, and with EXT: no software interrupt as far as the gate is concerned.
void int1(Cpu& cpu, const Instruction& instruction) {
  deliver_event(cpu, {1, false, {}, following_rip(cpu, instruction)});
  cpu.dr7 &= ~(std::uint64_t{1} << 13);
  cpu.single_step_done = true;
}

void iret_real(Cpu& cpu, std::size_t size) {
  Stack stack(cpu);
  const std::uint64_t rip = stack.pop(size);
  const auto selector = static_cast<std::uint16_t>(stack.pop(size));
  const std::uint64_t popped = stack.pop(size);
  if (rip > cpu.segments[kCs].limit) raise(Vector::GeneralProtection, 0);
  stack.commit();
  const bool v86 = cpu.virtual_8086();
  load_flags(cpu, popped, size, v86 ? rflags::kInterrupt : rflags::kInterrupt | rflags::kIoplMask);
  if (v86) {
    cpu.segments[kCs] = virtual8086_segment(selector);
  } else {
    cpu.segments[kCs].selector = selector;
    cpu.segments[kCs].base = std::uint64_t{selector} << 4;
  }
  cpu.rip = rip;
}

void return_to_v86(Cpu& cpu, Stack& stack, std::uint64_t rip, std::uint16_t cs, std::uint64_t popped) {
  const std::uint64_t esp = stack.pop(4);
  std::uint16_t selectors[5];  // SS ES DS FS GS
  for (std::uint16_t& selector : selectors) selector = static_cast<std::uint16_t>(stack.pop(4));
  if (rip > 0xffff) raise(Vector::GeneralProtection, 0);
  cpu.set_flags(popped & kLoadableFlags32);
  cpu.system_flags |= rflags::kVirtual8086;
  cpu.cpl = 3;
  cpu.gpr[kRsp] = esp;
  cpu.segments[kCs] = virtual8086_segment(cs);
  const SegmentRegister order[] = {kSs, kEs, kDs, kFs, kGs};
  for (unsigned i = 0; i < 5; ++i) cpu.segments[order[i]] = virtual8086_segment(selectors[i]);
  cpu.rip = rip & 0xffff;
}

void iret_protected(Cpu& cpu, const Instruction& instruction, std::size_t size) {
  const bool from_64bit = cpu.in_64bit();
  if ((cpu.system_flags & rflags::kNestedTask) != 0) {
    if (cpu.long_mode()) raise(Vector::GeneralProtection, 0);
    const auto link = read_linear<std::uint16_t>(cpu, cpu.tr.base, Rights::Supervisor);
    switch_task(cpu, link, TaskSwitch::Return, following_rip(cpu, instruction), 0, {});
    return;
  }
  std::uint64_t frame[5] = {};  // RIP CS RFLAGS RSP SS
  Stack stack(cpu);
  if (from_64bit && size == 8) {
    read_linear(cpu, linear_address(cpu, kSs, cpu.gpr[kRsp], sizeof frame, false), frame, sizeof frame);
  } else {
    for (unsigned i = 0; i < 3; ++i) frame[i] = stack.pop(size);
  }
  const std::uint64_t rip = frame[0], popped = frame[2];
  const auto cs = static_cast<std::uint16_t>(frame[1]);
  if ((popped & rflags::kVirtual8086) != 0 && cpu.cpl == 0 && !cpu.long_mode() && size == 4) {
    return_to_v86(cpu, stack, rip, cs, popped);
    return;
  }
  if (is_null(cs)) raise(Vector::GeneralProtection, 0);
  Descriptor code = fetch_descriptor(cpu, cs, Vector::GeneralProtection);
  const unsigned new_cpl = rpl_of(cs);
  if (!code.is_code() || new_cpl < cpu.cpl || (code.is_conforming() ? code.dpl() > new_cpl : code.dpl() != new_cpl)) {
    raise(Vector::GeneralProtection, selector_error(cs));
  }
  const bool to_64bit = cpu.long_mode() && code.is_long();
  if (to_64bit && code.is_big()) raise(Vector::GeneralProtection, selector_error(cs));
  if (!code.present()) raise(Vector::SegmentNotPresent, selector_error(cs));
  const bool outer = new_cpl > cpu.cpl;
  const bool has_stack = outer || from_64bit;
  if (has_stack && size != 8) {
    frame[3] = stack.pop(size);
    frame[4] = stack.pop(size);
  }
  const Segment code_segment = make_segment(cs, code);
  check_code_offset(cpu, code_segment, rip);

  Segment stack_segment = cpu.segments[kSs];
  if (has_stack) {
    const auto ss = static_cast<std::uint16_t>(frame[4]);
    if (is_null(ss)) {
      if (!to_64bit || new_cpl == 3 || rpl_of(ss) != new_cpl) raise(Vector::GeneralProtection, 0);
      stack_segment = null_segment(ss);
    } else {
      stack_segment = checked_stack_segment(cpu, ss, new_cpl, Vector::GeneralProtection, 0);
    }
  }
  mark_accessed(cpu, cs, code);

  std::uint64_t privileged = 0;
  if (cpu.cpl == 0) privileged |= rflags::kIoplMask | rflags::kVirtualInterrupt | rflags::kVirtualInterruptPending;
  if (cpu.cpl <= cpu.iopl()) privileged |= rflags::kInterrupt;
  if (has_stack) {
    const bool big = to_64bit || (stack_segment.attributes & Segment::kBig) != 0;
    write_gpr(cpu, kRsp, to_64bit ? 64 : big ? 32 : 16, frame[3]);
  } else {
    stack.commit();
  }
  load_flags(cpu, popped, size, privileged);
  cpu.segments[kSs] = stack_segment;
  cpu.segments[kCs] = code_segment;
  cpu.rip = rip;
  cpu.cpl = static_cast<std::uint8_t>(new_cpl);
  if (outer) drop_inaccessible_segments(cpu, new_cpl);
}

void iret(Cpu& cpu, const Instruction& instruction) {
  const std::size_t size = instruction.info.mnemonic == ZYDIS_MNEMONIC_IRETQ   ? 8
                           : instruction.info.mnemonic == ZYDIS_MNEMONIC_IRETD ? 4
                                                                               : 2;
  cpu.nmi_masked = false;  // even if the instruction faults (Intel SDM vol. 3, 6.7.1)
  if (cpu.virtual_8086() && cpu.iopl() != 3) raise(Vector::GeneralProtection, 0);
  if (cpu.real_mode() || cpu.virtual_8086()) {
    iret_real(cpu, size);
  } else {
    iret_protected(cpu, instruction, size);
  }
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_INT, int_n, Flow::Own},  {ZYDIS_MNEMONIC_INT3, int3, Flow::Own},
    {ZYDIS_MNEMONIC_INTO, into, Flow::Own},  {ZYDIS_MNEMONIC_INT1, int1, Flow::Own},
    {ZYDIS_MNEMONIC_IRET, iret, Flow::Own},  {ZYDIS_MNEMONIC_IRETD, iret, Flow::Own},
    {ZYDIS_MNEMONIC_IRETQ, iret, Flow::Own},
};

}  // namespace

const Group kInterruptGroup{"interrupts and IRET", "Interrupt", kRows};

}  // namespace vm_platform::soft
