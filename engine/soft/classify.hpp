// Which instructions the translator copies, which it has a template for, and which C++ describes.
#pragma once

#include <span>

#include "engine/soft/instruction.hpp"
#include "engine/soft/mode.hpp"

namespace vm_platform::soft {

enum class Treatment : std::uint8_t {
  Copy,      ///< The host CPU runs it, with other registers and another memory operand.
  Template,  ///< The translator writes what it does (templates.cpp).
  Nothing,   ///< It has no effect that a guest can see.
  Execute,   ///< semantics.hpp describes it, or it is invalid.
};
Treatment treatment_of(const Instruction& instruction);

/// The instruction sets whose members are copied, unless they are of a kind that cannot be (classify.cpp says which).
std::span<const ZydisISASet> copied_sets();

/// The state an instruction needs to be usable; what is missing decides between #NM and #UD.
enum class FpuUse : std::uint8_t {
  None,
  Vex,  ///< Of general registers alone, but VEX-coded: not in real and virtual-8086 mode.
  X87,
  Wait,
  Mmx,
  Sse,
  Avx,
};
FpuUse fpu_use_of(const Instruction& instruction);
/// Whether it is there in this mode.
[[nodiscard]] constexpr bool is_usable(const Mode& mode, FpuUse use) {
  switch (use) {
    case FpuUse::None: return true;
    case FpuUse::Vex: return mode.vex;
    case FpuUse::Sse: return mode.sse;
    case FpuUse::Avx: return mode.avx;
    default: return mode.x87;
  }
}

}  // namespace vm_platform::soft
