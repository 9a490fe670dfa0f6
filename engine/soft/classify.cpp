#include "engine/soft/classify.hpp"

#include <array>

#include "engine/soft/recode.hpp"

namespace vm_platform::soft {
namespace {

constexpr ZydisISASet kCopiedSets[] = {
    ZYDIS_ISA_SET_I86,      ZYDIS_ISA_SET_I186,        ZYDIS_ISA_SET_I386,       ZYDIS_ISA_SET_I486,
    ZYDIS_ISA_SET_I486REAL, ZYDIS_ISA_SET_PENTIUMREAL, ZYDIS_ISA_SET_PENTIUMMMX, ZYDIS_ISA_SET_PPRO,
    ZYDIS_ISA_SET_CMOV,     ZYDIS_ISA_SET_FCMOV,       ZYDIS_ISA_SET_X87,        ZYDIS_ISA_SET_LAHF,
    ZYDIS_ISA_SET_LONGMODE, ZYDIS_ISA_SET_CMPXCHG16B,  ZYDIS_ISA_SET_PAUSE,      ZYDIS_ISA_SET_SSE,
    ZYDIS_ISA_SET_SSE2,     ZYDIS_ISA_SET_SSE2MMX,     ZYDIS_ISA_SET_SSE3,       ZYDIS_ISA_SET_SSE3X87,
    ZYDIS_ISA_SET_SSSE3,    ZYDIS_ISA_SET_SSSE3MMX,    ZYDIS_ISA_SET_SSE4,       ZYDIS_ISA_SET_SSE42,
    ZYDIS_ISA_SET_AES,      ZYDIS_ISA_SET_PCLMULQDQ,   ZYDIS_ISA_SET_POPCNT,     ZYDIS_ISA_SET_LZCNT,
    ZYDIS_ISA_SET_MOVBE,    ZYDIS_ISA_SET_BMI1,        ZYDIS_ISA_SET_BMI2,       ZYDIS_ISA_SET_ADOX_ADCX,
    ZYDIS_ISA_SET_SHA,      ZYDIS_ISA_SET_F16C,        ZYDIS_ISA_SET_FMA,        ZYDIS_ISA_SET_AVX,
    ZYDIS_ISA_SET_AVXAES,   ZYDIS_ISA_SET_AVX2,
};

bool may_be_copied(ZydisISASet set) {
  static const auto table = [] {
    std::array<bool, ZYDIS_ISA_SET_MAX_VALUE + 1> allowed{};
    for (const ZydisISASet member : kCopiedSets) allowed[member] = true;
    return allowed;
  }();
  return table[set];
}

bool refused_category(ZydisInstructionCategory category) {
  switch (category) {
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_STRINGOP:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_DECIMAL: return true;
    default: return false;
  }
}

/// State images with host addresses in them, masked operations whose faults depend on the mask, flags that generated
/// code must not touch, and forms with memory operands that the encoding does not show.
bool refused_mnemonic(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
    case ZYDIS_MNEMONIC_XLAT:
    case ZYDIS_MNEMONIC_ENTER:
    case ZYDIS_MNEMONIC_BOUND:
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_SALC:
    case ZYDIS_MNEMONIC_UD0:  // whose operands nobody looks at
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2: return true;
    default: return false;
  }
}

/// Whether every operand is one that the recoder can place: general registers that are free to move, vector and x87
/// registers, flags, immediates, and at most one explicit memory operand of a plain size.
bool operands_can_be_placed(const Instruction& instruction) {
  unsigned memory_operands = 0;
  for (unsigned i = 0; i < instruction.info.operand_count; ++i) {
    const ZydisDecodedOperand& operand = instruction.operands[i];
    const bool explicit_operand = operand.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT;
    switch (operand.type) {
      case ZYDIS_OPERAND_TYPE_IMMEDIATE: break;
      case ZYDIS_OPERAND_TYPE_MEMORY:
        if (!explicit_operand || operand.encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM) return false;
        if (operand.mem.type != ZYDIS_MEMOP_TYPE_MEM || ++memory_operands > 1) return false;
        switch (operand.size) {
          case 8:
          case 16:
          case 32:
          case 64:
          case 80:
          case 128:
          case 256: break;
          default: return false;
        }
        break;
      case ZYDIS_OPERAND_TYPE_REGISTER:
        switch (ZydisRegisterGetClass(operand.reg.value)) {
          case ZYDIS_REGCLASS_GPR8:
          case ZYDIS_REGCLASS_GPR16:
          case ZYDIS_REGCLASS_GPR32:
          case ZYDIS_REGCLASS_GPR64: {
            const auto gpr = gpr_operand(operand);
            if (!gpr) return false;
            const bool in_encoding = operand.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG ||
                                     operand.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
                                     operand.encoding == ZYDIS_OPERAND_ENCODING_NDSNDD ||
                                     operand.encoding == ZYDIS_OPERAND_ENCODING_OPCODE;
            if (!in_encoding && (gpr->number == kRsp || in_memory(gpr->number))) return false;
            break;
          }
          case ZYDIS_REGCLASS_X87:
          case ZYDIS_REGCLASS_MMX:
          case ZYDIS_REGCLASS_XMM:
          case ZYDIS_REGCLASS_YMM:
          case ZYDIS_REGCLASS_FLAGS: break;
          default:
            switch (operand.reg.value) {
              case ZYDIS_REGISTER_X87CONTROL:
              case ZYDIS_REGISTER_X87STATUS:
              case ZYDIS_REGISTER_X87TAG:
              case ZYDIS_REGISTER_MXCSR: break;
              default: return false;
            }
        }
        break;
      default: return false;
    }
  }
  return true;
}

bool is_bit_test(ZydisMnemonic mnemonic) {
  return mnemonic == ZYDIS_MNEMONIC_BT || mnemonic == ZYDIS_MNEMONIC_BTS || mnemonic == ZYDIS_MNEMONIC_BTR ||
         mnemonic == ZYDIS_MNEMONIC_BTC;
}

}  // namespace

std::span<const ZydisISASet> copied_sets() { return kCopiedSets; }

Treatment treatment_of(const Instruction& instruction) {
  const ZydisDecodedInstruction& info = instruction.info;
  switch (info.mnemonic) {
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW: return Treatment::Nothing;
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_LEAVE:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP: return Treatment::Template;
    default: break;
  }
  switch (info.meta.category) {
    case ZYDIS_CATEGORY_COND_BR:
      // Not the instructions of transactions, nor the VEX forms of Knights Corner.
      return info.mnemonic == ZYDIS_MNEMONIC_XBEGIN || info.mnemonic == ZYDIS_MNEMONIC_XEND ||
                     info.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY
                 ? Treatment::Execute
                 : Treatment::Template;
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
      if (info.mnemonic != ZYDIS_MNEMONIC_JMP && info.mnemonic != ZYDIS_MNEMONIC_CALL &&
          info.mnemonic != ZYDIS_MNEMONIC_RET)
        return Treatment::Execute;
      return info.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ? Treatment::Execute : Treatment::Template;
    case ZYDIS_CATEGORY_PUSH:
    case ZYDIS_CATEGORY_POP:
      if (info.mnemonic != ZYDIS_MNEMONIC_PUSH && info.mnemonic != ZYDIS_MNEMONIC_POP) return Treatment::Execute;
      return instruction.operands[0].type == ZYDIS_OPERAND_TYPE_REGISTER && !gpr_operand(instruction.operands[0])
                 ? Treatment::Execute  // segment registers
                 : Treatment::Template;
    default: break;
  }
  const ZydisDecodedOperand& first = instruction.operands[0];
  const ZydisDecodedOperand& second = instruction.operands[1];
  if (is_bit_test(info.mnemonic) && first.type == ZYDIS_OPERAND_TYPE_MEMORY &&
      second.type == ZYDIS_OPERAND_TYPE_REGISTER)
    return Treatment::Template;
  if (info.mnemonic == ZYDIS_MNEMONIC_MOV && info.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && info.opcode >= 0xa0 &&
      info.opcode <= 0xa3)
    return Treatment::Template;
  if (info.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY && info.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
    return Treatment::Execute;
  if (!may_be_copied(info.meta.isa_set) || refused_category(info.meta.category) || refused_mnemonic(info.mnemonic) ||
      !operands_can_be_placed(instruction))
    return Treatment::Execute;
  return Treatment::Copy;
}

FpuUse fpu_use_of(const Instruction& instruction) {
  const ZydisDecodedInstruction& info = instruction.info;
  if (info.meta.category == ZYDIS_CATEGORY_X87_ALU && info.meta.isa_set == ZYDIS_ISA_SET_PPRO)
    return FpuUse::X87;  // FCOMI …
  switch (info.meta.isa_set) {
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_SSE3X87: return info.mnemonic == ZYDIS_MNEMONIC_FWAIT ? FpuUse::Wait : FpuUse::X87;
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2: return info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX ? FpuUse::Vex : FpuUse::None;
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSSE3MMX: return FpuUse::Mmx;
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_FMA: return FpuUse::Avx;
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_SHA:
      switch (info.mnemonic) {
        case ZYDIS_MNEMONIC_LFENCE:
        case ZYDIS_MNEMONIC_MFENCE:
        case ZYDIS_MNEMONIC_SFENCE:
        case ZYDIS_MNEMONIC_MOVNTI:
        case ZYDIS_MNEMONIC_CRC32:
        case ZYDIS_MNEMONIC_POPCNT: return FpuUse::None;
        default: break;
      }
      for (unsigned i = 0; i < info.operand_count; ++i) {
        if (instruction.operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(instruction.operands[i].reg.value) == ZYDIS_REGCLASS_MMX)
          return FpuUse::Mmx;
      }
      return FpuUse::Sse;
    default: return FpuUse::None;
  }
}

}  // namespace vm_platform::soft
