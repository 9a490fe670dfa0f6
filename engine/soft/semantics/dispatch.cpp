#include "engine/soft/semantics/dispatch.hpp"

#include <array>

namespace vm_platform::soft {
namespace {

const Group* const kGroups[] = {
    &kSegmentGroup, &kFastSystemCallGroup,  &kFarTransferGroup, &kInterruptGroup,    &kFlagGroup,
    &kControlGroup, &kDescriptorTableGroup, &kMsrGroup,         &kCpuidGroup,        &kProcessorGroup,
    &kPortGroup,    &kStringGroup,          &kFpuStateGroup,    &kVectorMemoryGroup, &kLegacyGroup};

struct Table {
  std::array<Group, std::size(kGroups)> groups{};
  std::array<const Row*, ZYDIS_MNEMONIC_MAX_VALUE + 1> rows{};
  Table() {
    std::size_t count = 0;
    for (const Group* group : kGroups) {
      groups[count++] = *group;
      for (const Row& row : group->rows) rows[static_cast<std::size_t>(row.mnemonic)] = &row;
    }
  }
};

const Table& table() {
  static const Table instance;
  return instance;
}

/// Mnemonics that name both something described here and something that is not.
bool is_described_form(const Instruction& instruction) {
  const ZydisDecodedInstruction& info = instruction.info;
  const auto special = [&](unsigned operand) {
    if (instruction.operands[operand].type != ZYDIS_OPERAND_TYPE_REGISTER) return false;
    const ZydisRegisterClass kind = ZydisRegisterGetClass(instruction.operands[operand].reg.value);
    return kind == ZYDIS_REGCLASS_SEGMENT || kind == ZYDIS_REGCLASS_CONTROL || kind == ZYDIS_REGCLASS_DEBUG;
  };
  switch (info.mnemonic) {
    case ZYDIS_MNEMONIC_MOV: return special(0) || special(1);
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_POP: return special(0);
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_CMPSD: return info.meta.category == ZYDIS_CATEGORY_STRINGOP;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL:
    case ZYDIS_MNEMONIC_RET: return info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
    default: return true;
  }
}

}  // namespace

std::span<const Group> groups() { return table().groups; }

bool is_described(ZydisMnemonic mnemonic) { return table().rows[static_cast<std::size_t>(mnemonic)] != nullptr; }

bool is_described(const Instruction& instruction) {
  return is_described(instruction.info.mnemonic) && is_described_form(instruction);
}

void execute(Cpu& cpu, const Instruction& instruction) {
  static const Table& rows = table();
  const Row* row = rows.rows[static_cast<std::size_t>(instruction.info.mnemonic)];
  if (row == nullptr || !is_described_form(instruction)) raise(Vector::InvalidOpcode);
  // What the instruction writes may be the instruction, and so end the life of its translation.
  const std::uint64_t next = following_rip(cpu, instruction);
  row->handler(cpu, instruction);
  if (row->flow == Flow::Next) cpu.rip = next;
}

}  // namespace vm_platform::soft
