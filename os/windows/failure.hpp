// Errors of Windows' memory calls with the limit that was hit.
#pragma once

#include <string>
#include <vm_platform/memory.hpp>

namespace vm_platform {

VmError memory_failure(unsigned long last_error, std::string operation, std::string subject);

/// PAGE_READWRITE and so on.
unsigned long to_page_protection(MemoryProtection protection) noexcept;

}  // namespace vm_platform
