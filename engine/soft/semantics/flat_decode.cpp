// decode() for tests that are built without the engine's decoder.
#include <cstring>

#include "engine/soft/instruction.hpp"

namespace vm_platform::soft {

std::optional<Instruction> decode(const std::uint8_t* bytes, std::size_t available, std::uint64_t rip, CodeSize size) {
  ZydisDecoder decoder;
  const ZydisMachineMode mode = size == CodeSize::Bits64   ? ZYDIS_MACHINE_MODE_LONG_64
                                : size == CodeSize::Bits32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                                           : ZYDIS_MACHINE_MODE_LEGACY_16;
  const ZydisStackWidth width = size == CodeSize::Bits64   ? ZYDIS_STACK_WIDTH_64
                                : size == CodeSize::Bits32 ? ZYDIS_STACK_WIDTH_32
                                                           : ZYDIS_STACK_WIDTH_16;
  if (!ZYAN_SUCCESS(ZydisDecoderInit(&decoder, mode, width))) return std::nullopt;
  Instruction instruction;
  if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, available, &instruction.info, instruction.operands))) {
    return std::nullopt;
  }
  std::memcpy(instruction.bytes, bytes, instruction.info.length);
  instruction.rip = rip;
  return instruction;
}

}  // namespace vm_platform::soft
