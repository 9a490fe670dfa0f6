// Registers and memory that a sequence begins with.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/random_instructions/candidate.hpp"
#include "tests/random_instructions/machine_state.hpp"

namespace vm_platform::random_instructions {

/// Small numbers, single bits, masks, and any.
std::uint64_t random_word(Random& random);

/// General registers, flags, and x87 and vector state, all of it valid.
MachineState random_state(Random& random);

/// kDataSize bytes: anything, with tables of small offsets, of MXCSR values and of x87 control words where
/// machine_state.hpp says.
std::vector<std::uint8_t> random_data(Random& random);

}  // namespace vm_platform::random_instructions
