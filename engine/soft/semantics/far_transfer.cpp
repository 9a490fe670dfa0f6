// Far JMP, CALL and RET, directly and through call gates (Intel SDM vol. 3, 5.8).
#include "engine/soft/semantics/delivery.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"
#include "engine/soft/semantics/task.hpp"

namespace vm_platform::soft {
namespace {

struct FarPointer {
  std::uint16_t selector;
  std::uint64_t offset;
};

FarPointer far_target(Cpu& cpu, const Instruction& instruction, std::size_t size) {
  const ZydisDecodedOperand& operand = instruction.operands[0];
  if (operand.type == ZYDIS_OPERAND_TYPE_POINTER) {
    return {operand.ptr.segment, low_bits(operand.ptr.offset, static_cast<unsigned>(size) * 8)};
  }
  std::uint8_t bytes[10];
  read_linear(cpu, operand_address(cpu, instruction, operand, size + 2, false), bytes, size + 2);
  FarPointer target{static_cast<std::uint16_t>(bytes[size] | bytes[size + 1] << 8), 0};
  for (std::size_t i = 0; i < size; ++i) target.offset |= std::uint64_t{bytes[i]} << (8 * i);
  return target;
}

void set_code(Cpu& cpu, const Segment& code, std::uint64_t offset) {
  cpu.segments[kCs] = code;
  cpu.rip = offset;
}

/// Real mode and virtual 8086: the selector is the segment.
Segment flat_code_segment(const Cpu& cpu, std::uint16_t selector) {
  if (cpu.virtual_8086()) return virtual8086_segment(selector);
  Segment code = cpu.segments[kCs];
  code.selector = selector;
  code.base = std::uint64_t{selector} << 4;
  return code;
}

void check_code_type(const Cpu& cpu, std::uint16_t selector, const Descriptor& code) {
  if (!code.is_code() || (cpu.long_mode() && code.is_long() && code.is_big())) {
    raise(Vector::GeneralProtection, selector_error(selector));
  }
}
void check_code_present(std::uint16_t selector, const Descriptor& code) {
  if (!code.present()) raise(Vector::SegmentNotPresent, selector_error(selector));
}

/// A code segment that is jumped to or called without a gate.
Segment direct_code_segment(Cpu& cpu, std::uint16_t selector, Descriptor& code, std::uint64_t offset) {
  check_code_type(cpu, selector, code);
  if (code.is_conforming() ? code.dpl() > cpu.cpl : rpl_of(selector) > cpu.cpl || code.dpl() != cpu.cpl) {
    raise(Vector::GeneralProtection, selector_error(selector));
  }
  check_code_present(selector, code);
  const Segment segment = make_segment(static_cast<std::uint16_t>((selector & 0xfffc) | cpu.cpl), code);
  check_code_offset(cpu, segment, offset);
  return segment;
}

/// What a call gate leads to.
struct GateTarget {
  std::uint16_t selector;
  Descriptor code;
  std::uint64_t offset;
  std::size_t size;     ///< Of what is pushed.
  unsigned parameters;  ///< Copied between stacks; legacy modes only.
};

GateTarget follow_gate(Cpu& cpu, std::uint16_t selector, const Descriptor& gate) {
  if (gate.dpl() < cpu.cpl || gate.dpl() < rpl_of(selector)) raise(Vector::GeneralProtection, selector_error(selector));
  if (!gate.present()) raise(Vector::SegmentNotPresent, selector_error(selector));
  const bool wide = gate.type() == system_type::kCallGate;
  GateTarget target{gate.gate_selector(),
                    {},
                    gate.gate_offset(),
                    cpu.long_mode() ? 8U
                    : wide          ? 4U
                                    : 2U,
                    cpu.long_mode() ? 0 : static_cast<unsigned>(gate.raw >> 32) & 31};
  if (!wide) target.offset &= 0xffff;
  if (is_null(target.selector)) raise(Vector::GeneralProtection, 0);
  target.code = fetch_descriptor(cpu, target.selector, Vector::GeneralProtection);
  check_code_type(cpu, target.selector, target.code);
  if (target.code.dpl() > cpu.cpl || (cpu.long_mode() && !target.code.is_long())) {
    raise(Vector::GeneralProtection, selector_error(target.selector));
  }
  return target;
}

void call_inner(Cpu& cpu, const Instruction& instruction, GateTarget& target) {
  const unsigned new_cpl = target.code.dpl();
  Segment stack_segment;
  std::uint64_t pointer = 0;
  unsigned bits = 64;
  if (cpu.long_mode()) {
    stack_segment = null_segment(static_cast<std::uint16_t>(new_cpl));
    pointer = read_long_stack(cpu, new_cpl, 0);
  } else {
    const InnerStack inner = read_inner_stack(cpu, new_cpl, 0);
    stack_segment = checked_stack_segment(cpu, inner.selector, new_cpl, Vector::InvalidTss, 0);
    pointer = inner.pointer;
    bits = (stack_segment.attributes & Segment::kBig) != 0 ? 32 : 16;
  }
  const Segment code = make_segment(static_cast<std::uint16_t>((target.selector & 0xfffc) | new_cpl), target.code);
  check_code_offset(cpu, code, target.offset);
  PendingStack stack(cpu, stack_segment, pointer, bits, Rights::Supervisor, selector_error(stack_segment.selector));
  stack.push(cpu.segments[kSs].selector, target.size);
  stack.push(low_bits(cpu.gpr[kRsp], stack_bits(cpu)), target.size);
  for (unsigned i = target.parameters; i-- > 0;) {
    const std::uint64_t offset = low_bits(cpu.gpr[kRsp] + i * target.size, stack_bits(cpu));
    std::uint64_t value = 0;
    read_linear(cpu, linear_address(cpu, kSs, offset, target.size, false), &value, target.size);
    stack.push(value, target.size);
  }
  stack.push(cpu.segments[kCs].selector, target.size);
  stack.push(instruction.next_rip(), target.size);
  mark_accessed(cpu, target.selector, target.code);
  stack.write();
  cpu.segments[kSs] = stack_segment;
  cpu.cpl = static_cast<std::uint8_t>(new_cpl);
  cpu.gpr[kRsp] = low_bits(stack.pointer(), bits) | (bits == 16 ? cpu.gpr[kRsp] & ~std::uint64_t{0xffff} : 0);
  set_code(cpu, code, target.offset);
}

/// Pushes the return address and goes on at the same privilege.
void call_same(Cpu& cpu, const Instruction& instruction, const Segment& code, std::uint64_t offset, std::size_t size) {
  PendingStack pending(cpu, cpu.segments[kSs], cpu.gpr[kRsp], stack_bits(cpu), Rights::Current, 0);
  pending.push(cpu.segments[kCs].selector, size);
  pending.push(instruction.next_rip(), size);
  pending.write();
  write_gpr(cpu, kRsp, pending.bits(), pending.pointer());
  set_code(cpu, code, offset);
}

void transfer(Cpu& cpu, const Instruction& instruction, bool call) {
  if (instruction.info.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR) raise(Vector::InvalidOpcode);
  const std::size_t size = instruction.info.operand_width / 8;
  const FarPointer target = far_target(cpu, instruction, size);
  if (cpu.real_mode() || cpu.virtual_8086()) {
    const Segment code = flat_code_segment(cpu, target.selector);
    if (target.offset > code.limit) raise(Vector::GeneralProtection, 0);
    if (call) {
      call_same(cpu, instruction, code, target.offset, size);
    } else {
      set_code(cpu, code, target.offset);
    }
    return;
  }
  if (is_null(target.selector)) raise(Vector::GeneralProtection, 0);
  Descriptor descriptor = fetch_system_descriptor(cpu, target.selector, Vector::GeneralProtection);
  if (!descriptor.is_system()) {
    const Segment code = direct_code_segment(cpu, target.selector, descriptor, target.offset);
    mark_accessed(cpu, target.selector, descriptor);
    if (call) {
      call_same(cpu, instruction, code, target.offset, size);
    } else {
      set_code(cpu, code, target.offset);
    }
    return;
  }
  const unsigned type = descriptor.type();
  if (type == system_type::kCallGate || (type == system_type::kCallGate16 && !cpu.long_mode())) {
    GateTarget gate = follow_gate(cpu, target.selector, descriptor);
    const bool inner = !gate.code.is_conforming() && gate.code.dpl() < cpu.cpl;
    if (inner && !call) raise(Vector::GeneralProtection, selector_error(gate.selector));
    check_code_present(gate.selector, gate.code);
    if (inner) {
      call_inner(cpu, instruction, gate);
      return;
    }
    const Segment code = make_segment(static_cast<std::uint16_t>((gate.selector & 0xfffc) | cpu.cpl), gate.code);
    check_code_offset(cpu, code, gate.offset);
    mark_accessed(cpu, gate.selector, gate.code);
    if (call) {
      call_same(cpu, instruction, code, gate.offset, gate.size);
    } else {
      set_code(cpu, code, gate.offset);
    }
    return;
  }
  const bool tss = type == system_type::kTss || type == system_type::kTss16;
  if (cpu.long_mode() || (!tss && type != system_type::kTaskGate)) {
    raise(Vector::GeneralProtection, selector_error(target.selector));
  }
  if (descriptor.dpl() < cpu.cpl || descriptor.dpl() < rpl_of(target.selector)) {
    raise(Vector::GeneralProtection, selector_error(target.selector));
  }
  if (!descriptor.present()) raise(Vector::SegmentNotPresent, selector_error(target.selector));
  switch_task(cpu, tss ? target.selector : descriptor.gate_selector(), call ? TaskSwitch::Call : TaskSwitch::Jump,
              instruction.next_rip(), 0, {});
}

void jmp(Cpu& cpu, const Instruction& instruction) { transfer(cpu, instruction, false); }
void call(Cpu& cpu, const Instruction& instruction) { transfer(cpu, instruction, true); }

void ret(Cpu& cpu, const Instruction& instruction) {
  if (instruction.info.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR) raise(Vector::InvalidOpcode);
  const std::size_t size = instruction.info.operand_width / 8;
  const std::uint64_t release =
      instruction.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? instruction.operands[0].imm.value.u : 0;
  Stack stack(cpu);
  const std::uint64_t rip = stack.pop(size);
  const auto selector = static_cast<std::uint16_t>(stack.pop(size));
  if (cpu.real_mode() || cpu.virtual_8086()) {
    const Segment code = flat_code_segment(cpu, selector);
    if (rip > code.limit) raise(Vector::GeneralProtection, 0);
    stack.skip(release);
    stack.commit();
    set_code(cpu, code, rip);
    return;
  }
  if (is_null(selector)) raise(Vector::GeneralProtection, 0);
  Descriptor code = fetch_descriptor(cpu, selector, Vector::GeneralProtection);
  check_code_type(cpu, selector, code);
  const unsigned new_cpl = rpl_of(selector);
  if (new_cpl < cpu.cpl || (code.is_conforming() ? code.dpl() > new_cpl : code.dpl() != new_cpl)) {
    raise(Vector::GeneralProtection, selector_error(selector));
  }
  check_code_present(selector, code);
  const Segment segment = make_segment(selector, code);
  stack.skip(release);
  if (new_cpl == cpu.cpl) {
    check_code_offset(cpu, segment, rip);
    mark_accessed(cpu, selector, code);
    stack.commit();
    set_code(cpu, segment, rip);
    return;
  }
  const std::uint64_t rsp = stack.pop(size);
  const auto ss = static_cast<std::uint16_t>(stack.pop(size));
  const bool to_64bit = cpu.long_mode() && code.is_long();
  Segment stack_segment;
  if (is_null(ss)) {
    if (!to_64bit || new_cpl == 3 || rpl_of(ss) != new_cpl) raise(Vector::GeneralProtection, 0);
    stack_segment = null_segment(ss);
  } else {
    stack_segment = checked_stack_segment(cpu, ss, new_cpl, Vector::GeneralProtection, 0);
  }
  check_code_offset(cpu, segment, rip);
  mark_accessed(cpu, selector, code);
  const unsigned bits = to_64bit ? 64 : (stack_segment.attributes & Segment::kBig) != 0 ? 32 : 16;
  write_gpr(cpu, kRsp, bits, rsp + release);
  cpu.segments[kSs] = stack_segment;
  set_code(cpu, segment, rip);
  cpu.cpl = static_cast<std::uint8_t>(new_cpl);
  drop_inaccessible_segments(cpu, new_cpl);
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_JMP, jmp, Flow::Own},
    {ZYDIS_MNEMONIC_CALL, call, Flow::Own},
    {ZYDIS_MNEMONIC_RET, ret, Flow::Own},
};

}  // namespace

const Group kFarTransferGroup{"far transfers", "FarTransfers", kRows};

}  // namespace vm_platform::soft
