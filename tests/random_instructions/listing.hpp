// A sequence as people read it, and where its instructions end.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tests/random_instructions/generator.hpp"

namespace vm_platform::random_instructions {

/// The sequence as text, an instruction a line, for reports.
std::string disassemble(const Sequence& sequence);

/// Where each instruction ends, as offsets into the code, the closing INT3 aside.
std::vector<std::size_t> boundaries(const Sequence& sequence);

}  // namespace vm_platform::random_instructions
