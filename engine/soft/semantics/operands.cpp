#include "engine/soft/semantics/operands.hpp"

#include <cstring>

namespace vm_platform::soft {
namespace {

struct GprPlace {
  unsigned number, bits, shift;
};

GprPlace place_of(ZydisRegister name) {
  const auto number = [&](ZydisRegister first) { return static_cast<unsigned>(name) - static_cast<unsigned>(first); };
  if (name >= ZYDIS_REGISTER_RAX && name <= ZYDIS_REGISTER_R15) return {number(ZYDIS_REGISTER_RAX), 64, 0};
  if (name >= ZYDIS_REGISTER_EAX && name <= ZYDIS_REGISTER_R15D) return {number(ZYDIS_REGISTER_EAX), 32, 0};
  if (name >= ZYDIS_REGISTER_AX && name <= ZYDIS_REGISTER_R15W) return {number(ZYDIS_REGISTER_AX), 16, 0};
  if (name >= ZYDIS_REGISTER_SPL && name <= ZYDIS_REGISTER_R15B) return {number(ZYDIS_REGISTER_SPL) + 4, 8, 0};
  if (name >= ZYDIS_REGISTER_AH && name <= ZYDIS_REGISTER_BH) return {number(ZYDIS_REGISTER_AH), 8, 8};
  if (name >= ZYDIS_REGISTER_AL && name <= ZYDIS_REGISTER_BL) return {number(ZYDIS_REGISTER_AL), 8, 0};
  raise(Vector::InvalidOpcode);
}

}  // namespace

std::uint64_t read_register(const Cpu& cpu, ZydisRegister name) {
  const GprPlace place = place_of(name);
  return low_bits(cpu.gpr[place.number] >> place.shift, place.bits);
}

void write_register(Cpu& cpu, ZydisRegister name, std::uint64_t value) {
  const GprPlace place = place_of(name);
  if (place.shift != 0) {
    cpu.gpr[place.number] = (cpu.gpr[place.number] & ~std::uint64_t{0xff00}) | ((value & 0xff) << 8);
  } else {
    write_gpr(cpu, place.number, place.bits, value);
  }
}

MemoryOperand effective_address(const Cpu& cpu, const Instruction& instruction, const ZydisDecodedOperand& operand) {
  const auto& memory = operand.mem;
  std::uint64_t offset = static_cast<std::uint64_t>(memory.disp.value);
  if (memory.base == ZYDIS_REGISTER_RIP || memory.base == ZYDIS_REGISTER_EIP) {
    offset += instruction.next_rip();
  } else if (memory.base != ZYDIS_REGISTER_NONE) {
    offset += read_register(cpu, memory.base);
  }
  if (memory.index >= ZYDIS_REGISTER_AL && memory.index <= ZYDIS_REGISTER_R15) {
    offset += read_register(cpu, memory.index) * memory.scale;
  }
  return {segment_of(memory.segment), low_bits(offset, instruction.info.address_width)};
}

std::uint64_t operand_address(Cpu& cpu, const Instruction& instruction, const ZydisDecodedOperand& operand,
                              std::size_t size, bool write) {
  const MemoryOperand memory = effective_address(cpu, instruction, operand);
  const std::uint64_t linear = linear_address(cpu, memory.segment, memory.offset, size, write);
  check_alignment(cpu, linear, size);
  return linear;
}

std::uint64_t read_operand(Cpu& cpu, const Instruction& instruction, unsigned index, std::size_t size) {
  const ZydisDecodedOperand& operand = instruction.operands[index];
  switch (operand.type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
      return low_bits(read_register(cpu, operand.reg.value), static_cast<unsigned>(size) * 8);
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: return operand.imm.value.u;
    case ZYDIS_OPERAND_TYPE_MEMORY: {
      std::uint64_t value = 0;
      read_linear(cpu, operand_address(cpu, instruction, operand, size, false), &value, size);
      return value;
    }
    default: raise(Vector::InvalidOpcode);
  }
}

std::uint64_t read_operand(Cpu& cpu, const Instruction& instruction, unsigned index) {
  return read_operand(cpu, instruction, index, instruction.operands[index].size / 8);
}

void write_operand(Cpu& cpu, const Instruction& instruction, unsigned index, std::uint64_t value) {
  const ZydisDecodedOperand& operand = instruction.operands[index];
  if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER) {
    write_register(cpu, operand.reg.value, value);
    return;
  }
  const std::size_t size = operand.size / 8;
  write_linear(cpu, operand_address(cpu, instruction, operand, size, true), &value, size);
}

void Stack::push(std::uint64_t value, std::size_t size) {
  const std::uint64_t next = low_bits(pointer_ - size, bits_);
  write_linear(cpu_, stack_address(cpu_, next, size, true), &value, size);
  pointer_ = next;
}

std::uint64_t Stack::pop(std::size_t size) {
  std::uint64_t value = 0;
  read_linear(cpu_, stack_address(cpu_, low_bits(pointer_, bits_), size, false), &value, size);
  pointer_ += size;
  return value;
}

}  // namespace vm_platform::soft
