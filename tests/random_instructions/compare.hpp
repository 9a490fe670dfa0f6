// What counts as a difference.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/random_instructions/generator.hpp"

namespace vm_platform::random_instructions {

/// The contents of data page number `page` (not for holes).
using MemoryImage = std::function<const std::uint8_t*(std::size_t page)>;

/// A line for each difference; empty when there is none.
std::string compare(const Sequence& sequence, const Outcome& expected, const MemoryImage& expected_memory,
                    const Outcome& got, const MemoryImage& got_memory);

std::string describe(const MachineState& state);
/// The general registers and flags only.
std::string describe_registers(const MachineState& state);
std::vector<std::uint8_t> copy_pages(const MemoryImage& memory);

}  // namespace vm_platform::random_instructions
