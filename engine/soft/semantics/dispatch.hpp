// How instructions find what describes them: one table, indexed by mnemonic, filled from the groups.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "engine/soft/semantics.hpp"

namespace vm_platform::soft {

using Handler = void (*)(Cpu& cpu, const Instruction& instruction);

enum class Flow : std::uint8_t {
  Next,  ///< The dispatcher moves rip past the instruction when the handler returns.
  Own,   ///< The handler sets rip.
};

struct Row {
  ZydisMnemonic mnemonic;
  Handler handler;
  Flow flow = Flow::Next;
};

/// Instructions that belong together, and the test that shows them (docs/cpu.md is generated from this).
struct Group {
  std::string_view name;
  std::string_view test;  ///< Test suite in semantics/*_test.cpp.
  std::span<const Row> rows;
};

/// Whether `execute` describes this form: some mnemonics name others too (MOV, PUSH, MOVSD, CALL …).
bool is_described(const Instruction& instruction);

/// All groups, in the order of the documentation.
std::span<const Group> groups();

// One per source file of this folder.
extern const Group kSegmentGroup, kFastSystemCallGroup, kFarTransferGroup, kInterruptGroup, kFlagGroup, kControlGroup,
    kDescriptorTableGroup, kMsrGroup, kCpuidGroup, kProcessorGroup, kPortGroup, kStringGroup, kFpuStateGroup,
    kVectorMemoryGroup, kLegacyGroup;

/// rip past the instruction, as wide as the mode has it.
inline std::uint64_t following_rip(const Cpu& cpu, const Instruction& instruction) {
  const std::uint64_t next = instruction.next_rip();
  return cpu.in_64bit() ? next : next & 0xffffffff;
}

}  // namespace vm_platform::soft
