// A decoded guest instruction, and its operands as C++ sees them.
#pragma once

#include <Zydis/Zydis.h>

#include <cstdint>
#include <optional>

#include "engine/cpu_state.hpp"

namespace vm_platform::soft {

class Cpu;

/// What code is decoded as; follows from CS, EFER and CR0.
enum class CodeSize : std::uint8_t { Bits16, Bits32, Bits64 };

struct Instruction {
  ZydisDecodedInstruction info;
  ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
  std::uint8_t bytes[15];
  std::uint64_t rip = 0;  ///< Of its first byte, as an offset into CS.

  [[nodiscard]] std::uint64_t next_rip() const { return rip + info.length; }
};

/// DS where there is none.
inline SegmentRegister segment_of(ZydisRegister name) {
  if (name < ZYDIS_REGISTER_ES || name > ZYDIS_REGISTER_GS) return kDs;
  return static_cast<SegmentRegister>(name - ZYDIS_REGISTER_ES);
}

/// Decodes the bytes; false (and `instruction` undefined) where they are no valid instruction (#UD) or too few.
bool decode(const std::uint8_t* bytes, std::size_t available, std::uint64_t rip, CodeSize size,
            Instruction& instruction);
std::optional<Instruction> decode(const std::uint8_t* bytes, std::size_t available, std::uint64_t rip, CodeSize size);

/// Whether the bytes fail to decode because there are too few of them.
bool goes_on(const std::uint8_t* bytes, std::size_t available, CodeSize size);

/// Whether the bytes fail to decode because they go on for more than 15 bytes (#GP rather than #UD).
bool is_too_long(const std::uint8_t* bytes, std::size_t available, CodeSize size);

}  // namespace vm_platform::soft
