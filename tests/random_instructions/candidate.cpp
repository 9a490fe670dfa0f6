#include "tests/random_instructions/candidate.hpp"

#include <algorithm>

namespace vm_platform::random_instructions {
namespace {

const ZydisDecoder& decoder() {
  static const ZydisDecoder instance = [] {
    ZydisDecoder d;
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return d;
  }();
  return instance;
}

bool allowed_set(ZydisISASet set) {
  switch (set) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
    case ZYDIS_ISA_SET_SSE4:
    case ZYDIS_ISA_SET_SSE42:
    case ZYDIS_ISA_SET_SSE_PREFETCH:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_LAHF:
    case ZYDIS_ISA_SET_CMPXCHG16B:
    case ZYDIS_ISA_SET_POPCNT:
    case ZYDIS_ISA_SET_LZCNT:
    case ZYDIS_ISA_SET_BMI1:
    case ZYDIS_ISA_SET_BMI2:
    case ZYDIS_ISA_SET_MOVBE:
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_PCLMULQDQ:
    case ZYDIS_ISA_SET_ADOX_ADCX:
    case ZYDIS_ISA_SET_SHA:
    case ZYDIS_ISA_SET_AVXAES:
    case ZYDIS_ISA_SET_AVX:
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
    case ZYDIS_ISA_SET_FMA:
    case ZYDIS_ISA_SET_F16C:
    case ZYDIS_ISA_SET_PAUSE: return true;
    default: return false;
  }
}

bool allowed_category(ZydisInstructionCategory category, bool strings) {
  switch (category) {
    case ZYDIS_CATEGORY_STRINGOP: return strings;
    // The generator makes branches, calls and returns itself; the rest leaves user mode or is not deterministic.
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_SEGOP:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_RDRAND:
    case ZYDIS_CATEGORY_RDSEED: return false;
    default: return true;
  }
}

bool allowed_mnemonic(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
    case ZYDIS_MNEMONIC_UD2:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    // Flags that user mode cannot change freely, or that the host's value would show in: made in groups of their own.
    case ZYDIS_MNEMONIC_PUSHF:
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFQ:
    // They store or load x87's instruction and data pointers, which are not part of the comparison.
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_STD:  // made in a group of its own, because it does not wear off
    // Leftovers of the 8087 and 287 that hosts treat differently.
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP: return false;
    default: return true;
  }
}

bool allowed_register(ZydisRegister reg) {
  switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_SEGMENT:
    case ZYDIS_REGCLASS_CONTROL:
    case ZYDIS_REGCLASS_DEBUG:
    case ZYDIS_REGCLASS_TEST:
    case ZYDIS_REGCLASS_TABLE:
    case ZYDIS_REGCLASS_BOUND:
    case ZYDIS_REGCLASS_ZMM:
    case ZYDIS_REGCLASS_MASK: return false;
    default: return true;
  }
}

std::vector<std::uint8_t> random_encoding(Random& random) {
  std::vector<std::uint8_t> b;
  const auto put = [&](unsigned byte) { b.push_back(static_cast<std::uint8_t>(byte)); };
  if (random.percent(4)) put(0x67);
  if (random.percent(3)) put(0x65);
  if (random.percent(2)) put(std::array{0x2eU, 0x36U, 0x3eU, 0x26U}[random.below(4)]);
  const unsigned kind = static_cast<unsigned>(random.below(100));
  if (kind < 35) {  // VEX
    const unsigned map = 1 + static_cast<unsigned>(random.below(3));
    const unsigned byte2 = random.byte(), vvvv = random.percent(40) ? 0x78 : random.byte() & 0x78U;
    const unsigned last = vvvv | (random.byte() & 0x07U);
    if (map == 1 && random.percent(50)) {
      put(0xc5);
      put((byte2 & 0x80) | last);
    } else {
      put(0xc4);
      put((byte2 & 0xe0) | map);
      put((random.byte() & 0x80U) | last);
    }
    put(random.byte());
  } else {
    if (random.percent(5)) put(0xf0);
    if (random.percent(25)) put(0x66);
    if (random.percent(25)) put(random.percent(50) ? 0xf3 : 0xf2);
    if (random.percent(50)) put(0x40 | (random.byte() & 15U));
    if (kind < 60) {
      put(random.percent(30) ? 0x00 | (random.byte() & 0x3fU) : random.byte());
    } else if (kind < 85) {
      put(0x0f);
      put(random.byte());
    } else {
      put(0x0f);
      put(random.percent(60) ? 0x38 : 0x3a);
      put(random.byte());
    }
  }
  put(random.byte());  // ModRM; the rest is SIB, displacement and immediate, as needed
  while (b.size() < 15) put(random.percent(20) ? (random.percent(50) ? 0U : 0xffU) : random.byte());
  b.resize(15);
  return b;
}

}  // namespace

bool is_allowed(const Candidate& c, bool strings) {
  if (!allowed_set(c.info.meta.isa_set) || !allowed_category(c.info.meta.category, strings) ||
      !allowed_mnemonic(c.info.mnemonic))
    return false;
  // PREFETCHW with a register operand: #UD on AMD, no operation on Intel.
  if (c.info.opcode_map == ZYDIS_OPCODE_MAP_0F && c.info.opcode == 0x0d && c.info.raw.modrm.mod == 3) return false;
  // Zydis 4.0 sees a base register here where the CPU takes a displacement alone; the target would be missed.
  if (c.info.address_width == 32 && (c.info.attributes & ZYDIS_ATTRIB_HAS_SIB) != 0 && c.info.raw.modrm.mod == 0 &&
      c.info.raw.sib.base == 5)
    return false;
  for (unsigned i = 0; i < c.info.operand_count; ++i) {
    const ZydisDecodedOperand& operand = c.operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_REGISTER && !allowed_register(operand.reg.value)) return false;
    if (operand.type == ZYDIS_OPERAND_TYPE_POINTER) return false;
    // FS is the host's thread pointer.
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY && operand.mem.segment == ZYDIS_REGISTER_FS) return false;
  }
  return true;
}

Candidate random_candidate(Random& random, bool strings, bool vex) {
  for (;;) {
    Candidate c;
    c.bytes = random_encoding(random);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder(), c.bytes.data(), c.bytes.size(), &c.info, c.operands.data())))
      continue;
    if (!is_allowed(c, strings) || (!vex && c.info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)) continue;
    c.bytes.resize(c.info.length);
    return c;
  }
}

}  // namespace vm_platform::random_instructions
