// Neighbouring memory accesses that one look into the TLB can serve: several pushes, fields of one structure.
#pragma once

#include <array>
#include <cstdint>

#include "engine/soft/instruction_window.hpp"
#include "engine/soft/mode.hpp"

namespace vm_platform::soft {

/// A run of instructions whose memory accesses all lie at constant distances from one register that does not change
/// meanwhile (or changes by constants: RSP), so that the place of the first tells the places of all.
struct AccessGroup {
  static constexpr std::size_t kMaxInstructions = 16;
  static constexpr unsigned kAbsolute = 16;  ///< As `base`: no register, addresses are constants.
  /// More than this is less likely to lie in one page.
  static constexpr std::int64_t kMaxBytes = 512;

  std::size_t instructions = 0;  ///< From the next one on; 0: there is no group.
  unsigned branches = 0;         ///< Conditional ones among them.
  unsigned base = 0;             ///< Number of the general register.
  std::int64_t low = 0;          ///< Lowest address touched: the base's value at the beginning, plus this.
  std::uint32_t bytes = 0;       ///< From there to the end of the highest access.
  bool write = false;            ///< Some access is a write.
  std::array<std::uint16_t, kMaxInstructions> place = {};  ///< Of each instruction's access, from `low`.
};

/// The group that begins with the next instruction of 64-bit code, of at most so many instructions and conditional
/// branches. A group has two accesses or more; a write that may not happen never makes it one for writing.
AccessGroup find_access_group(InstructionWindow& window, const Mode& mode, std::size_t max_instructions,
                              unsigned max_branches);

}  // namespace vm_platform::soft
