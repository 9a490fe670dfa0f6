// The model-specific registers that the engine answers, found by asking for every one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace vm_platform::cpu_table {

struct Msr {
  std::uint32_t first, last;
  unsigned count;    ///< That exist between them, both included.
  std::string name;  ///< Empty: the table has no name for it.
};

/// Neighbours of one name are one. Registers of the local APIC are not asked for: that is the machine's.
std::vector<Msr> known_msrs();

}  // namespace vm_platform::cpu_table
