#include "engine/soft/recode.hpp"

namespace vm_platform::soft {

std::optional<GprOperand> gpr_operand(const ZydisDecodedOperand& operand) {
  if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) return std::nullopt;
  const ZydisRegister reg = operand.reg.value;
  const auto from = [reg](ZydisRegister first) { return static_cast<std::uint8_t>(reg - first); };
  if (reg >= ZYDIS_REGISTER_AL && reg <= ZYDIS_REGISTER_BL) return GprOperand{from(ZYDIS_REGISTER_AL), 1, false};
  if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) return GprOperand{from(ZYDIS_REGISTER_AH), 1, true};
  if (reg >= ZYDIS_REGISTER_SPL && reg <= ZYDIS_REGISTER_R15B)
    return GprOperand{static_cast<std::uint8_t>(from(ZYDIS_REGISTER_SPL) + 4), 1, false};
  if (reg >= ZYDIS_REGISTER_AX && reg <= ZYDIS_REGISTER_R15W) return GprOperand{from(ZYDIS_REGISTER_AX), 2, false};
  if (reg >= ZYDIS_REGISTER_EAX && reg <= ZYDIS_REGISTER_R15D) return GprOperand{from(ZYDIS_REGISTER_EAX), 4, false};
  if (reg >= ZYDIS_REGISTER_RAX && reg <= ZYDIS_REGISTER_R15) return GprOperand{from(ZYDIS_REGISTER_RAX), 8, false};
  return std::nullopt;
}

namespace {

/// The full number (0 to 15) in each register field of the instruction, after replacement.
struct Fields {
  unsigned reg = 0, rm = 0, vvvv = 0, opcode_register = 0;
  bool byte_register_needs_rex = false;  // SPL BPL SIL DIL
};

unsigned vector_number(ZydisRegister reg) {
  const ZyanI8 id = ZydisRegisterGetId(reg);
  return id < 0 ? 0 : static_cast<unsigned>(id);
}

Fields collect(const Instruction& instruction, const Recoding& recoding) {
  Fields fields;
  fields.reg = instruction.info.raw.modrm.reg;  // an opcode extension, unless an operand says otherwise
  fields.rm = instruction.info.raw.modrm.rm;
  fields.opcode_register = instruction.info.opcode & 7;
  for (unsigned i = 0; i < instruction.info.operand_count_visible; ++i) {
    const ZydisDecodedOperand& operand = instruction.operands[i];
    if (operand.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
    const auto gpr = gpr_operand(operand);
    const auto number = [&](const std::optional<Host>& replacement) -> unsigned {
      if (!gpr) return vector_number(operand.reg.value);
      if (gpr->high) return gpr->number + 4u;
      const unsigned host = replacement ? unsigned{*replacement} : unsigned{gpr->number};
      if (gpr->bytes == 1 && host >= 4) fields.byte_register_needs_rex = true;
      return host;
    };
    switch (operand.encoding) {
      case ZYDIS_OPERAND_ENCODING_MODRM_REG: fields.reg = number(recoding.reg); break;
      case ZYDIS_OPERAND_ENCODING_MODRM_RM: fields.rm = number(recoding.rm); break;
      case ZYDIS_OPERAND_ENCODING_NDSNDD: fields.vvvv = number(recoding.vvvv); break;
      case ZYDIS_OPERAND_ENCODING_OPCODE: fields.opcode_register = number(recoding.opcode_register); break;
      default: break;
    }
  }
  return fields;
}

bool opcode_holds_register(const Instruction& instruction) {
  for (unsigned i = 0; i < instruction.info.operand_count_visible; ++i)
    if (instruction.operands[i].encoding == ZYDIS_OPERAND_ENCODING_OPCODE) return true;
  return false;
}

struct Target {
  Host base = hRax, index = hRsp;  // RSP: none
  std::int32_t displacement = 0;
  /// For the bit of a REX or VEX prefix.
  [[nodiscard]] unsigned index_bits() const { return index == hRsp ? 0u : unsigned{index}; }
};

Target target_of(const Recoding& recoding) {
  switch (recoding.memory) {
    case Recoding::Memory::R10R11: return {hR10, hR11, recoding.displacement};
    case Recoding::Memory::R10: return {hR10, hRsp, recoding.displacement};
    case Recoding::Memory::Rcx: return {hRcx, hRsp, recoding.displacement};
    case Recoding::Memory::Rsi: return {hRsi, hRsp, recoding.displacement};
    case Recoding::Memory::None: break;
  }
  return {};
}

void write_modrm(Emitter& out, const Fields& fields, bool memory, const Target& target) {
  if (memory) {
    out.memory(fields.reg, target.base, target.index, 1, target.displacement);
  } else {
    out.modrm(3, fields.reg, fields.rm);
  }
}

bool is_long(const Instruction& instruction) { return instruction.info.machine_mode == ZYDIS_MACHINE_MODE_LONG_64; }

bool has_register_in_immediate(const Instruction& instruction) {
  for (unsigned i = 0; i < instruction.info.operand_count_visible; ++i)
    if (instruction.operands[i].encoding == ZYDIS_OPERAND_ENCODING_IS4) return true;
  return false;
}

void write_immediates(Emitter& out, const Instruction& instruction) {
  // The fourth register operand of some VEX forms (always a vector register) stands in the upper half of an immediate
  // byte, whose highest bit counts in 64-bit mode only.
  if (!is_long(instruction) && has_register_in_immediate(instruction)) {
    out.u8(instruction.bytes[instruction.info.raw.imm[0].offset] & 0x7fu);
    return;
  }
  for (const auto& immediate : instruction.info.raw.imm)
    if (immediate.size != 0) out.bytes(instruction.bytes + immediate.offset, immediate.size / 8);
}

/// VEX.W as the host must see it. Where it chooses between 32 and 64 bits of a general register or of memory, it is
/// ignored outside of 64-bit mode (Intel SDM vol. 2, 2.3.5.5 and the entry of each instruction), but not by the host:
/// it would reach beyond the operand that was looked at. Elsewhere it chooses the instruction, as in VPERMQ, and stays.
bool vex_w(const Instruction& instruction) {
  const ZydisDecodedInstruction& info = instruction.info;
  if (info.raw.vex.W == 0 || is_long(instruction)) return info.raw.vex.W != 0;
  if (info.meta.isa_set == ZYDIS_ISA_SET_BMI1 || info.meta.isa_set == ZYDIS_ISA_SET_BMI2) return false;
  switch (info.mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI: return false;
    default: return true;
  }
}

/// Whether a 66h prefix chooses the operand size of this instruction (rather than the instruction itself).
bool sized_by_prefix(const Instruction& instruction) {
  switch (instruction.info.meta.isa_set) {
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA: return false;
    default: return true;
  }
}

/// Prefixes that stay. In 16-bit code the operand-size prefix means the opposite of what it means to the host.
void write_prefixes(Emitter& out, const Instruction& instruction) {
  const ZydisDecodedInstruction& info = instruction.info;
  const bool turned = info.machine_mode == ZYDIS_MACHINE_MODE_LEGACY_16 && sized_by_prefix(instruction);
  if (turned && info.operand_width == 16) out.u8(0x66);
  for (unsigned i = 0; i < info.raw.prefix_count; ++i) {
    const auto& prefix = info.raw.prefixes[i];
    switch (prefix.value) {
      case 0x66:
        if (!turned || prefix.type == ZYDIS_PREFIX_TYPE_MANDATORY) out.u8(0x66);
        break;
      case 0xf0:
      case 0xf2:
      case 0xf3: out.u8(prefix.value); break;
      default: break;  // segment and address size are in the new operand; REX is made anew
    }
  }
}

}  // namespace

void Recoding::replace(ZydisOperandEncoding encoding, Host host) {
  switch (encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG: reg = host; break;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM: rm = host; break;
    case ZYDIS_OPERAND_ENCODING_NDSNDD: vvvv = host; break;
    case ZYDIS_OPERAND_ENCODING_OPCODE: opcode_register = host; break;
    default: break;
  }
}

bool recode(Emitter& out, const Instruction& instruction, const Recoding& recoding) {
  const ZydisDecodedInstruction& info = instruction.info;
  const bool has_modrm = (info.attributes & ZYDIS_ATTRIB_HAS_MODRM) != 0;
  const bool memory = has_modrm && info.raw.modrm.mod != 3;
  const Target target = target_of(recoding);
  const Fields fields = collect(instruction, recoding);
  const unsigned rm_bits = memory ? unsigned{target.base} : has_modrm ? fields.rm : fields.opcode_register;

  if (info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
    const unsigned map = info.opcode_map == ZYDIS_OPCODE_MAP_0F ? 1 : info.opcode_map == ZYDIS_OPCODE_MAP_0F38 ? 2 : 3;
    out.u8(0xc4);
    out.u8((fields.reg > 7 ? 0u : 0x80u) | (memory && target.index_bits() > 7 ? 0u : 0x40u) |
           (rm_bits > 7 ? 0u : 0x20u) | map);
    out.u8((vex_w(instruction) ? 0x80u : 0u) | (~fields.vvvv & 15) << 3 | static_cast<unsigned>(info.raw.vex.L) << 2 |
           info.raw.vex.pp);
    out.u8(info.opcode);
    if (has_modrm) write_modrm(out, fields, memory, target);
    write_immediates(out, instruction);
    return true;
  }
  if (info.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY) return false;

  write_prefixes(out, instruction);
  if (!is_long(instruction) && info.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && info.opcode >= 0x40 &&
      info.opcode <= 0x4f) {  // INC and DEC, whose short forms are REX prefixes now
    out.rex_rxb(false, 0, 0, fields.opcode_register);
    out.u8(0xff);
    out.modrm(3, info.opcode >= 0x48 ? 1 : 0, fields.opcode_register);
    return true;
  }
  out.rex_rxb(info.raw.rex.W != 0, has_modrm ? fields.reg : 0, memory ? target.index_bits() : 0, rm_bits,
              fields.byte_register_needs_rex);
  switch (info.opcode_map) {
    case ZYDIS_OPCODE_MAP_DEFAULT: break;
    case ZYDIS_OPCODE_MAP_0F: out.u8(0x0f); break;
    case ZYDIS_OPCODE_MAP_0F38: out.u8(0x0f), out.u8(0x38); break;
    case ZYDIS_OPCODE_MAP_0F3A: out.u8(0x0f), out.u8(0x3a); break;
    default: return false;
  }
  const bool old_alias = info.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && info.opcode == 0x82;  // of 80h
  out.u8(old_alias                            ? 0x80u
         : opcode_holds_register(instruction) ? (info.opcode & 0xf8u) | (fields.opcode_register & 7)
                                              : info.opcode);
  if (has_modrm) write_modrm(out, fields, memory, target);
  write_immediates(out, instruction);
  return true;
}

}  // namespace vm_platform::soft
