// Re-encoding one guest instruction for the host: other registers, another memory operand, the same operation.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/soft/emitter.hpp"
#include "engine/soft/instruction.hpp"

namespace vm_platform::soft {

/// Where guest general registers live. R8 to R11 have no host register of their own.
inline constexpr std::uint8_t kHostOf[16] = {hRax, hR9,  hRdx, hRbx, hR8,  hRbp, hRsi, hRdi,
                                             0xff, 0xff, 0xff, 0xff, hR12, hR13, hR14, hR15};
[[nodiscard]] constexpr bool in_memory(unsigned gpr) { return gpr >= kR8 && gpr <= kR11; }

/// A general register operand, as the guest names it.
struct GprOperand {
  std::uint8_t number = 0;
  std::uint8_t bytes = 0;  ///< 1, 2, 4 or 8
  bool high = false;       ///< AH, CH, DH, BH
};
/// Nothing where the operand is no general register.
std::optional<GprOperand> gpr_operand(const ZydisDecodedOperand& operand);

/// How the instruction is to be written. Fields that the instruction does not have are ignored.
struct Recoding {
  std::optional<Host> reg, rm, vvvv, opcode_register;  ///< Replacements for general register operands.
  enum class Memory : std::uint8_t { None, R10R11, R10, Rcx, Rsi } memory = Memory::None;
  std::int32_t displacement = 0;  ///< Of the memory operand.

  /// `host` takes the place of a register operand that is encoded so; nothing where the encoding has no field for it.
  void replace(ZydisOperandEncoding encoding, Host host);
};

/// Writes `instruction` with the replacements made; everything else stays as it is. False where the encoding is one
/// this does not know (XOP, EVEX, MVEX, 3DNow).
[[nodiscard]] bool recode(Emitter& out, const Instruction& instruction, const Recoding& recoding);

}  // namespace vm_platform::soft
