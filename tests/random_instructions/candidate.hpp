// One random instruction: random bytes in the shape of an encoding, kept if they decode to something on the list.
#pragma once

#include <Zydis/Zydis.h>

#include <array>
#include <cstdint>
#include <vector>

#include "tests/random_instructions/machine_state.hpp"

namespace vm_platform::random_instructions {

struct Candidate {
  ZydisDecodedInstruction info;
  std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
  std::vector<std::uint8_t> bytes;
};

/// Whether the generator may take it: deterministic, in user mode, and on the list of instruction sets.
bool is_allowed(const Candidate& candidate, bool strings);

/// Tries until one is allowed.
Candidate random_candidate(Random& random, bool strings, bool vex);

}  // namespace vm_platform::random_instructions
