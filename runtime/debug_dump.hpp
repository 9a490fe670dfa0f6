// A CPU's state for people: registers, the way through the page tables, the instructions it was at.
#pragma once

#include <string>

#include "engine/cpu_state.hpp"
#include "guest/guest_memory.hpp"

namespace vm_platform::runtime {

/// Several lines, the last one ended. Reads guest memory; the CPU stands still.
[[nodiscard]] std::string debug_dump(unsigned cpu, const CpuState& state, const GuestMemory& memory);

}  // namespace vm_platform::runtime
