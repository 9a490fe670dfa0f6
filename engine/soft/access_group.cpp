#include "engine/soft/access_group.hpp"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "engine/soft/classify.hpp"
#include "engine/soft/recode.hpp"

namespace vm_platform::soft {
namespace {

/// A memory access by a register and a constant.
struct Access {
  unsigned base = 0;
  std::int64_t offset = 0;
  std::uint32_t bytes = 0;
  bool write = false;
};

/// What one instruction is to a group.
struct Part {
  std::optional<Access> access;
  std::int64_t rsp_change = 0;  ///< By this constant, where it changes RSP.
  std::uint32_t written = 0;    ///< Other general registers that it changes, as bits.
  bool branch = false;          ///< It may lead out of the group.
  bool last = false;            ///< Nothing can follow it.
};

unsigned number_of(ZydisRegister reg) { return static_cast<unsigned>(ZydisRegisterGetId(reg)); }

std::optional<Access> access_of(const Instruction& instruction, const ZydisDecodedOperand& operand) {
  const auto& memory = operand.mem;
  if (instruction.info.address_width != 64 || memory.index != ZYDIS_REGISTER_NONE ||
      memory.segment == ZYDIS_REGISTER_FS || memory.segment == ZYDIS_REGISTER_GS)
    return std::nullopt;
  Access access;
  access.offset = memory.disp.has_displacement ? memory.disp.value : 0;
  access.bytes = operand.size / 8u;
  access.write = (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
  access.base = AccessGroup::kAbsolute;
  if (memory.base == ZYDIS_REGISTER_RIP) {
    access.offset = static_cast<std::int64_t>(instruction.next_rip() + static_cast<std::uint64_t>(access.offset));
  } else if (memory.base != ZYDIS_REGISTER_NONE) {
    access.base = number_of(memory.base);
  }
  return access;
}

/// ADD or SUB of a constant to RSP: by how much it changes.
std::optional<std::int64_t> constant_rsp_change(const Instruction& instruction) {
  const bool add = instruction.info.mnemonic == ZYDIS_MNEMONIC_ADD;
  if (!add && instruction.info.mnemonic != ZYDIS_MNEMONIC_SUB) return std::nullopt;
  const ZydisDecodedOperand &to = instruction.operands[0], &by = instruction.operands[1];
  if (to.type != ZYDIS_OPERAND_TYPE_REGISTER || to.reg.value != ZYDIS_REGISTER_RSP ||
      by.type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
    return std::nullopt;
  return add ? by.imm.value.s : -by.imm.value.s;
}

/// What the translator copies. Its code may use one scratch register at most, since the other two hold the place.
std::optional<Part> copied(const Instruction& instruction, const Mode& mode) {
  if (instruction.info.mnemonic == ZYDIS_MNEMONIC_PAUSE || !is_usable(mode, fpu_use_of(instruction)))
    return std::nullopt;
  Part part;
  std::uint32_t in_scratch = 0;  // registers that need one, as bits
  for (unsigned i = 0; i < instruction.info.operand_count; ++i) {
    const ZydisDecodedOperand& operand = instruction.operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      part.access = access_of(instruction, operand);
      if (!part.access) return std::nullopt;
    } else if (const auto gpr = gpr_operand(operand)) {
      if (gpr->high) return std::nullopt;
      const std::uint32_t bit = 1U << gpr->number;
      if ((operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0) part.written |= bit;
      if (in_memory(gpr->number) || gpr->number == kRcx) in_scratch |= bit;
    }
  }
  if ((in_scratch & (in_scratch - 1)) != 0) return std::nullopt;
  if (const auto change = constant_rsp_change(instruction)) {
    part.rsp_change = *change;
    part.written &= ~(1U << kRsp);
  }
  return part;
}

std::optional<Part> templated(const Instruction& instruction) {
  const ZydisDecodedOperand& operand = instruction.operands[0];
  Part part;
  switch (instruction.info.mnemonic) {
    case ZYDIS_MNEMONIC_LEA: {
      const auto to = *gpr_operand(operand);
      const auto& address = instruction.operands[1].mem;
      const auto needs_scratch = [](ZydisRegister reg) {
        return reg >= ZYDIS_REGISTER_R8D && reg <= ZYDIS_REGISTER_R15 && in_memory(number_of(reg));
      };
      if (to.bytes == 2 || in_memory(to.number) || needs_scratch(address.base) || needs_scratch(address.index))
        return std::nullopt;
      part.written = 1U << to.number;
      return part;
    }
    case ZYDIS_MNEMONIC_PUSH:
      if (instruction.info.operand_width != 64 || operand.type == ZYDIS_OPERAND_TYPE_MEMORY) return std::nullopt;
      part.access = Access{kRsp, -8, 8, true};
      part.rsp_change = -8;
      return part;
    case ZYDIS_MNEMONIC_POP: {
      const auto to = gpr_operand(operand);
      if (instruction.info.operand_width != 64 || !to || to->number == kRsp) return std::nullopt;
      part.access = Access{kRsp, 0, 8, false};
      part.rsp_change = 8;
      part.written = 1U << to->number;
      return part;
    }
    case ZYDIS_MNEMONIC_RET:
      part.access = Access{kRsp, 0, 8, false};
      part.last = true;
      return part;
    case ZYDIS_MNEMONIC_CALL:
      if (operand.type != ZYDIS_OPERAND_TYPE_IMMEDIATE) return std::nullopt;
      part.access = Access{kRsp, -8, 8, true};
      part.last = true;
      return part;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: return std::nullopt;
    default:
      if (instruction.info.meta.category != ZYDIS_CATEGORY_COND_BR) return std::nullopt;
      part.branch = true;
      return part;
  }
}

std::optional<Part> part_of(const Instruction& instruction, const Mode& mode) {
  switch (treatment_of(instruction)) {
    case Treatment::Nothing: return Part{};
    case Treatment::Copy: return copied(instruction, mode);
    case Treatment::Template: return templated(instruction);
    case Treatment::Execute: break;
  }
  return std::nullopt;
}

/// Cheap: most instructions are none that a group begins with.
bool may_begin(const Instruction& instruction) {
  const ZydisDecodedInstruction& info = instruction.info;
  if (info.meta.category == ZYDIS_CATEGORY_PUSH || info.meta.category == ZYDIS_CATEGORY_POP) return true;
  return (info.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0 && info.raw.modrm.mod != 3;
}

}  // namespace

AccessGroup find_access_group(InstructionWindow& window, const Mode& mode, std::size_t max_instructions,
                              unsigned max_branches) {
  AccessGroup group;
  const Instruction* first = window.peek();
  if (first == nullptr || !may_begin(*first)) return group;
  std::array<std::int64_t, AccessGroup::kMaxInstructions> offsets = {};
  std::int64_t low = 0, high = 0, rsp = 0;
  unsigned accesses = 0, branches = 0;
  max_instructions = std::min(max_instructions, AccessGroup::kMaxInstructions);
  for (std::size_t i = 0; i < max_instructions; ++i) {
    const Instruction* instruction = window.peek(i);
    if (instruction == nullptr) break;
    const auto part = part_of(*instruction, mode);
    if (!part) break;
    if (const auto& access = part->access) {
      const std::int64_t begin = access->offset + (access->base == kRsp ? rsp : 0), end = begin + access->bytes;
      if (i == 0) group.base = access->base, low = begin, high = end;
      if (access->base != group.base || (access->write && !group.write && branches != 0)) break;
      const std::int64_t new_low = std::min(low, begin), new_high = std::max(high, end);
      if (new_high - new_low > AccessGroup::kMaxBytes) break;
      if (group.base != AccessGroup::kAbsolute && new_low < INT32_MIN) break;  // no displacement reaches there
      low = new_low, high = new_high;
      offsets[i] = begin;
      ++accesses;
      group.write = group.write || access->write;
      group.instructions = i + 1;  // what follows the last access stays outside
      group.branches = branches;
    } else if (i == 0) {
      break;
    }
    if (part->branch && ++branches > max_branches) break;
    rsp += part->rsp_change;
    if (part->last || (part->written >> group.base & 1) != 0) break;
  }
  if (accesses < 2) return {};
  group.low = low;
  group.bytes = static_cast<std::uint32_t>(high - low);
  for (std::size_t i = 0; i < group.instructions; ++i)
    group.place[i] = static_cast<std::uint16_t>(offsets[i] - low);  // of those without an access: not looked at
  return group;
}

}  // namespace vm_platform::soft
