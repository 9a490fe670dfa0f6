// What the engine does with each instruction: every encoding there is, decoded and shown to the engine's own tables.
#pragma once

#include <Zydis/Zydis.h>

#include <map>
#include <set>
#include <string>

namespace vm_platform::cpu_table {

using Names = std::set<std::string>;

struct Survey {
  struct CopiedSet {
    Names compared;  ///< Instructions of which `random_instructions` makes forms.
    Names others;
  };
  std::map<std::string, CopiedSet> copied;  ///< By instruction set.
  Names templates, nothing;                 ///< Written by the translator; without an effect.
  std::map<std::string, Names> undefined;   ///< #UD, by instruction set.
};

/// Goes through all opcodes of the legacy maps and of VEX, in 16-, 32- and 64-bit code.
Survey survey();

}  // namespace vm_platform::cpu_table
