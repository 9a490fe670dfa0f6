// Moving segment registers, and their bases.
#include "engine/soft/semantics/descriptors.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {

void move_control_or_debug(Cpu& cpu, const Instruction& instruction);  // control.cpp

namespace {

bool is_segment(const Instruction& instruction, unsigned index) {
  return is_register(instruction, index) &&
         ZydisRegisterGetClass(instruction.operands[index].reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

void mov(Cpu& cpu, const Instruction& instruction) {
  if (is_segment(instruction, 0)) {
    const SegmentRegister which = segment_of(instruction.operands[0].reg.value);
    if (which == kCs) raise(Vector::InvalidOpcode);
    load_segment(cpu, which, static_cast<std::uint16_t>(read_operand(cpu, instruction, 1, 2)));
    if (which == kSs) cpu.interrupt_shadow = true;
  } else if (is_segment(instruction, 1)) {
    write_operand(cpu, instruction, 0, cpu.segments[segment_of(instruction.operands[1].reg.value)].selector);
  } else {
    move_control_or_debug(cpu, instruction);
  }
}

void push(Cpu& cpu, const Instruction& instruction) {
  const std::size_t size = instruction.info.operand_width / 8;
  Stack stack(cpu);
  const std::uint16_t selector = cpu.segments[segment_of(instruction.operands[0].reg.value)].selector;
  if (size == 4) {  // only the low half is written (Intel SDM vol. 2, PUSH)
    stack.skip(~std::uint64_t{1});
    stack.push(selector, 2);
  } else {
    stack.push(selector, size);
  }
  stack.commit();
}

void pop(Cpu& cpu, const Instruction& instruction) {
  const SegmentRegister which = segment_of(instruction.operands[0].reg.value);
  const std::size_t size = instruction.info.operand_width / 8;
  const unsigned bits = stack_bits(cpu);
  Stack stack(cpu);
  const auto selector = static_cast<std::uint16_t>(stack.pop(2));
  load_segment(cpu, which, selector);
  // by the stack width before SS changed
  write_gpr(cpu, kRsp, bits, cpu.gpr[kRsp] + size);
  if (which == kSs) cpu.interrupt_shadow = true;
}

/// LDS, LES, LFS, LGS, LSS: offset, then selector.
void load_far_pointer(Cpu& cpu, const Instruction& instruction) {
  SegmentRegister which = kDs;
  switch (instruction.info.mnemonic) {
    case ZYDIS_MNEMONIC_LES: which = kEs; break;
    case ZYDIS_MNEMONIC_LFS: which = kFs; break;
    case ZYDIS_MNEMONIC_LGS: which = kGs; break;
    case ZYDIS_MNEMONIC_LSS: which = kSs; break;
    default: break;
  }
  if (is_register(instruction, 1)) raise(Vector::InvalidOpcode);
  const std::size_t size = instruction.info.operand_width / 8;
  const std::uint64_t address = operand_address(cpu, instruction, instruction.operands[1], size + 2, false);
  std::uint8_t bytes[10];
  read_linear(cpu, address, bytes, size + 2);
  std::uint64_t offset = 0;
  for (std::size_t i = 0; i < size; ++i) offset |= std::uint64_t{bytes[i]} << (8 * i);
  load_segment(cpu, which, static_cast<std::uint16_t>(bytes[size] | bytes[size + 1] << 8));
  write_operand(cpu, instruction, 0, offset);
}

void swapgs(Cpu& cpu, const Instruction&) {
  if (!cpu.in_64bit()) raise(Vector::InvalidOpcode);
  require_cpl0(cpu);
  const std::uint64_t base = cpu.segments[kGs].base;
  cpu.segments[kGs].base = cpu.kernel_gs_base;
  cpu.kernel_gs_base = base;
}

void fs_gs_base(Cpu& cpu, const Instruction& instruction) {
  if (!cpu.in_64bit() || (cpu.cr4 & cr4::kFsgsbase) == 0) raise(Vector::InvalidOpcode);
  const ZydisMnemonic mnemonic = instruction.info.mnemonic;
  const bool fs = mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_WRFSBASE;
  std::uint64_t& base = cpu.segments[fs ? kFs : kGs].base;
  if (mnemonic == ZYDIS_MNEMONIC_RDFSBASE || mnemonic == ZYDIS_MNEMONIC_RDGSBASE) {
    write_operand(cpu, instruction, 0, base);
    return;
  }
  const std::uint64_t value = read_operand(cpu, instruction, 0);
  if (!is_canonical(cpu, value)) raise(Vector::GeneralProtection, 0);
  base = value;
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_MOV, mov},
    {ZYDIS_MNEMONIC_PUSH, push},
    {ZYDIS_MNEMONIC_POP, pop},
    {ZYDIS_MNEMONIC_LDS, load_far_pointer},
    {ZYDIS_MNEMONIC_LES, load_far_pointer},
    {ZYDIS_MNEMONIC_LFS, load_far_pointer},
    {ZYDIS_MNEMONIC_LGS, load_far_pointer},
    {ZYDIS_MNEMONIC_LSS, load_far_pointer},
    {ZYDIS_MNEMONIC_SWAPGS, swapgs},
    {ZYDIS_MNEMONIC_RDFSBASE, fs_gs_base},
    {ZYDIS_MNEMONIC_RDGSBASE, fs_gs_base},
    {ZYDIS_MNEMONIC_WRFSBASE, fs_gs_base},
    {ZYDIS_MNEMONIC_WRGSBASE, fs_gs_base},
};

}  // namespace

const Group kSegmentGroup{"segment registers", "Segments", kRows};

}  // namespace vm_platform::soft
