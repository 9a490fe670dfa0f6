// Random sequences of user-mode instructions whose memory operands land where the test wants them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/random_instructions/machine_state.hpp"

namespace vm_platform::random_instructions {

struct Sequence {
  MachineState initial;
  std::vector<std::uint8_t> code;  ///< From initial.rip on; ends with INT3.
  std::vector<std::uint8_t> data;  ///< kDataSize bytes for the data pages (holes included, unused).
  /// Arithmetic flags whose value at the end is undefined by the manuals (Zydis' tables); not compared.
  std::uint64_t undefined_flags = 0;
};

struct GeneratorOptions {
  unsigned instructions = 12;             ///< About how many, set-up not counted.
  bool strings = true;                    ///< String instructions, with and without REP.
  bool branches = true;                   ///< Forward jumps, calls and returns.
  std::vector<std::string> without = {};  ///< Mnemonics to leave out.
  bool vex = true;                        ///< VEX encodings: AVX, BMI, FMA.
  bool self_modifying = true;             ///< Writes into the instruction that follows.
};

/// The sequence that `seed` stands for. Never fails; the same on every host whose Zydis is the same.
Sequence generate(std::uint64_t seed, const GeneratorOptions& options);

/// How often each mnemonic was generated so far, for --coverage.
const std::map<std::string, std::uint64_t>& generated_mnemonics();

}  // namespace vm_platform::random_instructions
