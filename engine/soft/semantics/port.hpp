// Who may use which I/O port.
#pragma once

#include <cstdint>

#include "engine/soft/cpu.hpp"

namespace vm_platform::soft {

/// #GP(0) unless IOPL or the TSS's permission bitmap allows the access (Intel SDM vol. 1, 19.5).
void check_port(Cpu& cpu, std::uint16_t port, unsigned size);

}  // namespace vm_platform::soft
