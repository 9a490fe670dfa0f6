#include "tests/random_instructions/listing.hpp"

#include <Zydis/Zydis.h>
#include <fmt/format.h>

namespace vm_platform::random_instructions {

std::string disassemble(const Sequence& sequence) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
  std::string text;
  std::uint64_t address = sequence.initial.rip;
  for (std::size_t at = 0; at < sequence.code.size();) {
    ZydisDecodedInstruction info;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    char line[160] = "(bad)";
    std::size_t length = 1;
    if (ZYAN_SUCCESS(
            ZydisDecoderDecodeFull(&decoder, &sequence.code[at], sequence.code.size() - at, &info, operands))) {
      length = info.length;
      ZydisFormatterFormatInstruction(&formatter, &info, operands, info.operand_count_visible, line, sizeof line,
                                      address, nullptr);
    }
    text += fmt::format("  {:x}:", address);
    for (std::size_t i = 0; i < length; ++i) text += fmt::format(" {:02x}", sequence.code[at + i]);
    text += fmt::format("{:>{}}  {}\n", "", length < 12 ? 3 * (12 - length) : 0, line);
    at += length;
    address += length;
  }
  return text;
}

std::vector<std::size_t> boundaries(const Sequence& sequence) {
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
  std::vector<std::size_t> ends;
  for (std::size_t at = 0; at + 1 < sequence.code.size();) {
    ZydisDecodedInstruction info;
    if (!ZYAN_SUCCESS(
            ZydisDecoderDecodeInstruction(&decoder, nullptr, &sequence.code[at], sequence.code.size() - at, &info)))
      break;
    ends.push_back(at += info.length);
  }
  return ends;
}

}  // namespace vm_platform::random_instructions
