// The rows that no table of the engine holds, each with the tests that show it.
#pragma once

#include <span>
#include <string_view>

namespace vm_platform::cpu_table {

struct Row {
  std::string_view what, how;
  std::string_view tests[5];  ///< Some are empty; where all are, there is none yet.
};

std::span<const Row> inlined();      ///< What the translator writes itself.
std::span<const Row> modes();        ///< Modes of the CPU.
std::span<const Row> translation();  ///< Paging and protection.
std::span<const Row> faults();       ///< Exceptions, interrupts and what happens between instructions.
std::span<const Row> code();         ///< Code that changes.
std::span<const Row> late();         ///< Rare parts, and what is not there.

}  // namespace vm_platform::cpu_table
