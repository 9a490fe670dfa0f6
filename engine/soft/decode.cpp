#include <algorithm>
#include <cstring>

#include "engine/soft/instruction.hpp"

namespace vm_platform::soft {
namespace {

ZydisDecoder make_decoder(ZydisMachineMode mode, ZydisStackWidth width) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, mode, width);
  // A Pentium-era reading of 0F 1A/1B/1E and F3 0F BC/BD must not surprise: these are what the CPUID bits announce.
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_AMD_BRANCHES, ZYAN_FALSE);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_KNC, ZYAN_FALSE);
  ZydisDecoderEnableMode(&decoder, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
  return decoder;
}

const ZydisDecoder& decoder_for(CodeSize size) {
  static const ZydisDecoder k16 = make_decoder(ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
  static const ZydisDecoder k32 = make_decoder(ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
  static const ZydisDecoder k64 = make_decoder(ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  return size == CodeSize::Bits64 ? k64 : size == CodeSize::Bits32 ? k32 : k16;
}

}  // namespace

bool decode(const std::uint8_t* bytes, std::size_t available, std::uint64_t rip, CodeSize size,
            Instruction& instruction) {
  // From a copy: another CPU may be writing to the guest's bytes, and what is decoded must be what is copied to run.
  const std::size_t taken = std::min(available, sizeof instruction.bytes);
  std::memcpy(instruction.bytes, bytes, taken);
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_for(size), instruction.bytes, taken, &instruction.info,
                                           instruction.operands)))
    return false;
  // Zydis 4.0 takes SIB base 101b with mod 00 for R13 where the address size is 32 bits and REX.B is set; there is
  // none.
  const auto& raw = instruction.info.raw;
  if (raw.rex.B != 0 && instruction.info.address_width == 32 && raw.modrm.mod == 0 && raw.modrm.rm == 4 &&
      raw.sib.base == 5) {
    for (unsigned i = 0; i < instruction.info.operand_count; ++i) {
      ZydisDecodedOperand& operand = instruction.operands[i];
      if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY || operand.encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM) continue;
      operand.mem.base = ZYDIS_REGISTER_NONE;
      operand.mem.disp = {ZYAN_TRUE, raw.disp.value};
    }
  }
  instruction.rip = rip;
  return true;
}

std::optional<Instruction> decode(const std::uint8_t* bytes, std::size_t available, std::uint64_t rip, CodeSize size) {
  std::optional<Instruction> instruction(std::in_place);
  if (!decode(bytes, available, rip, size, *instruction)) instruction.reset();
  return instruction;
}

namespace {

ZyanStatus decoding_status(const std::uint8_t* bytes, std::size_t available, CodeSize size) {
  ZydisDecodedInstruction info;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  return ZydisDecoderDecodeFull(&decoder_for(size), bytes, available, &info, operands);
}

}  // namespace

bool goes_on(const std::uint8_t* bytes, std::size_t available, CodeSize size) {
  return available == 0 || decoding_status(bytes, available, size) == ZYDIS_STATUS_NO_MORE_DATA;
}

bool is_too_long(const std::uint8_t* bytes, std::size_t available, CodeSize size) {
  return available >= 15 && decoding_status(bytes, available, size) == ZYDIS_STATUS_INSTRUCTION_TOO_LONG;
}

}  // namespace vm_platform::soft
