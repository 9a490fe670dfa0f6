// Instructions of 16- and 32-bit code that have no 64-bit form, and ENTER and XLAT.
#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

void pusha(Cpu& cpu, const Instruction& instruction) {
  const std::size_t size = instruction.info.mnemonic == ZYDIS_MNEMONIC_PUSHAD ? 4 : 2;
  const unsigned bits = stack_bits(cpu);
  const auto place = [&](unsigned i) {  // of the i-th register pushed
    return stack_address(cpu, low_bits(cpu.gpr[kRsp] - (i + 1) * size, bits), size, true);
  };
  for (unsigned i = 0; i < 8; ++i) check_write(cpu, place(i), size);
  for (unsigned i = 0; i < 8; ++i) write_linear(cpu, place(i), &cpu.gpr[i], size);
  write_gpr(cpu, kRsp, bits, cpu.gpr[kRsp] - 8 * size);
}

void popa(Cpu& cpu, const Instruction& instruction) {
  const std::size_t size = instruction.info.mnemonic == ZYDIS_MNEMONIC_POPAD ? 4 : 2;
  Stack stack(cpu);
  std::uint64_t values[8];
  for (unsigned i = 8; i-- > 0;) values[i] = stack.pop(size);
  for (unsigned i = 0; i < 8; ++i) {
    if (i != kRsp) write_gpr(cpu, i, static_cast<unsigned>(size) * 8, values[i]);
  }
  stack.commit();
}

void bound(Cpu& cpu, const Instruction& instruction) {
  const unsigned bits = instruction.info.operand_width;
  const std::size_t size = bits / 8;
  std::uint8_t bytes[8];
  read_linear(cpu, operand_address(cpu, instruction, instruction.operands[1], 2 * size, false), bytes, 2 * size);
  std::uint64_t limits[2] = {};
  for (std::size_t i = 0; i < 2 * size; ++i) limits[i / size] |= std::uint64_t{bytes[i]} << (8 * (i % size));
  const auto wide = [&](std::uint64_t value) { return static_cast<std::int64_t>(sign_extend(value, bits)); };
  const std::int64_t index = wide(read_operand(cpu, instruction, 0));
  if (index < wide(limits[0]) || index > wide(limits[1])) raise(Vector::BoundRange);
}

void arpl(Cpu& cpu, const Instruction& instruction) {
  if (cpu.real_mode() || cpu.virtual_8086()) raise(Vector::InvalidOpcode);
  const std::uint64_t target = read_operand(cpu, instruction, 0, 2), source = read_operand(cpu, instruction, 1, 2);
  const bool raises = (target & 3) < (source & 3);
  if (raises) write_operand(cpu, instruction, 0, (target & ~std::uint64_t{3}) | (source & 3));
  cpu.arithmetic_flags = (cpu.arithmetic_flags & ~rflags::kZero) | (raises ? rflags::kZero : 0);
}

std::uint8_t al(const Cpu& cpu) { return static_cast<std::uint8_t>(cpu.gpr[kRax]); }
void set_al(Cpu& cpu, std::uint64_t value) { write_gpr(cpu, kRax, 8, value); }
bool has(const Cpu& cpu, std::uint64_t flag) { return (cpu.arithmetic_flags & flag) != 0; }

std::uint64_t result_flags(std::uint64_t value) {
  const auto byte = static_cast<std::uint8_t>(value);
  return (byte == 0 ? rflags::kZero : 0) | ((byte & 0x80) != 0 ? rflags::kSign : 0) |
         (__builtin_parity(byte) == 0 ? rflags::kParity : 0);
}

void decimal_adjust(Cpu& cpu, bool subtract) {
  const std::uint8_t before = al(cpu);
  const bool carry = has(cpu, rflags::kCarry);
  const bool low = (before & 0xf) > 9 || has(cpu, rflags::kAdjust);
  const bool high = before > 0x99 || carry;
  unsigned value = before;
  bool carry_out = high;
  if (low) {
    if (subtract && before < 6) carry_out = true;  // the borrow of the first step
    value = subtract ? value - 6 : value + 6;
  }
  if (high) value = subtract ? value - 0x60 : value + 0x60;
  set_al(cpu, value);
  cpu.arithmetic_flags = result_flags(value) | (carry_out ? rflags::kCarry : 0) | (low ? rflags::kAdjust : 0);
}

void daa(Cpu& cpu, const Instruction&) { decimal_adjust(cpu, false); }
void das(Cpu& cpu, const Instruction&) { decimal_adjust(cpu, true); }

void ascii_adjust(Cpu& cpu, bool subtract) {
  const bool adjusts = (al(cpu) & 0xf) > 9 || has(cpu, rflags::kAdjust);
  std::uint64_t ax = cpu.gpr[kRax] & 0xffff;
  if (adjusts) ax = subtract ? ax - 0x106 : ax + 0x106;
  write_gpr(cpu, kRax, 16, ax & 0xff0f);
  const std::uint64_t keep = cpu.arithmetic_flags & ~(rflags::kCarry | rflags::kAdjust | rflags::kZero | rflags::kSign |
                                                      rflags::kParity | rflags::kOverflow);
  cpu.arithmetic_flags = keep | result_flags(ax & 0xf) | (adjusts ? rflags::kCarry | rflags::kAdjust : 0);
}

void aaa(Cpu& cpu, const Instruction&) { ascii_adjust(cpu, false); }
void aas(Cpu& cpu, const Instruction&) { ascii_adjust(cpu, true); }

void aam(Cpu& cpu, const Instruction& instruction) {
  const auto base = static_cast<std::uint8_t>(instruction.operands[0].imm.value.u);
  if (base == 0) raise(Vector::DivideError);
  const unsigned value = al(cpu);
  const unsigned high = value / base, low = value % base;
  write_gpr(cpu, kRax, 16, high << 8 | low);
  cpu.arithmetic_flags = result_flags(low);
}

void aad(Cpu& cpu, const Instruction& instruction) {
  const auto base = static_cast<std::uint8_t>(instruction.operands[0].imm.value.u);
  const std::uint64_t value = (al(cpu) + (cpu.gpr[kRax] >> 8 & 0xff) * base) & 0xff;
  write_gpr(cpu, kRax, 16, value);
  cpu.arithmetic_flags = result_flags(value);
}

void salc(Cpu& cpu, const Instruction&) { set_al(cpu, has(cpu, rflags::kCarry) ? 0xff : 0); }

void xlat(Cpu& cpu, const Instruction& instruction) {
  SegmentRegister segment = kDs;
  for (unsigned i = 0; i < instruction.info.operand_count; ++i) {
    if (instruction.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
      segment = segment_of(instruction.operands[i].mem.segment);
    }
  }
  const std::uint64_t offset = low_bits(cpu.gpr[kRbx] + al(cpu), instruction.info.address_width);
  std::uint8_t value;
  read_linear(cpu, linear_address(cpu, segment, offset, 1, false), &value, 1);
  set_al(cpu, value);
}

/// What was pushed stays in memory when a later push, or the check of the frame's end, faults; the registers do not
/// move.
void enter(Cpu& cpu, const Instruction& instruction) {
  const std::size_t size = instruction.info.operand_width / 8;
  const auto bits = static_cast<unsigned>(size) * 8;
  const unsigned stack = stack_bits(cpu);
  const std::uint64_t locals = instruction.operands[0].imm.value.u & 0xffff;
  const unsigned level = static_cast<unsigned>(instruction.operands[1].imm.value.u) & 31;
  const std::uint64_t frame = low_bits(cpu.gpr[kRsp] - size, stack);
  Stack pushes(cpu);
  pushes.push(read_gpr(cpu, kRbp, bits), size);
  std::uint64_t base = cpu.gpr[kRbp];
  for (unsigned i = 1; i < level; ++i) {
    base -= size;
    std::uint64_t value = 0;
    read_linear(cpu, stack_address(cpu, low_bits(base, stack), size, false), &value, size);
    pushes.push(value, size);
  }
  if (level != 0) pushes.push(frame, size);
  const std::uint64_t top = cpu.gpr[kRsp] - (level + 1) * size - locals;
  check_write(cpu, linear_address(cpu, kSs, low_bits(top, stack), size, true), size);  // the frame must be usable
  write_gpr(cpu, kRbp, bits, frame);
  write_gpr(cpu, kRsp, stack, top);
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_PUSHA, pusha}, {ZYDIS_MNEMONIC_PUSHAD, pusha}, {ZYDIS_MNEMONIC_POPA, popa},
    {ZYDIS_MNEMONIC_POPAD, popa},  {ZYDIS_MNEMONIC_BOUND, bound},  {ZYDIS_MNEMONIC_ARPL, arpl},
    {ZYDIS_MNEMONIC_DAA, daa},     {ZYDIS_MNEMONIC_DAS, das},      {ZYDIS_MNEMONIC_AAA, aaa},
    {ZYDIS_MNEMONIC_AAS, aas},     {ZYDIS_MNEMONIC_AAM, aam},      {ZYDIS_MNEMONIC_AAD, aad},
    {ZYDIS_MNEMONIC_SALC, salc},   {ZYDIS_MNEMONIC_XLAT, xlat},    {ZYDIS_MNEMONIC_ENTER, enter},
};

}  // namespace

const Group kLegacyGroup{"16- and 32-bit forms", "Legacy", kRows};

}  // namespace vm_platform::soft
