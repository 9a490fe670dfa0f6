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

std::optional<Instruction> decode(const std::uint8_t* bytes, std::size_t available, std::uint64_t rip, CodeSize size) {
  Instruction instruction;
  if (!ZYAN_SUCCESS(
          ZydisDecoderDecodeFull(&decoder_for(size), bytes, available, &instruction.info, instruction.operands)))
    return std::nullopt;
  std::memcpy(instruction.bytes, bytes, instruction.info.length);
  instruction.rip = rip;
  return instruction;
}

}  // namespace vm_platform::soft
