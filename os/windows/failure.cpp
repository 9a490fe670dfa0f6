#include "os/windows/failure.hpp"

#include <windows.h>

namespace vm_platform {

VmError memory_failure(unsigned long last_error, std::string operation, std::string subject) {
  auto error = VmError::from_last_error(last_error, std::move(operation), std::move(subject));
  switch (last_error) {
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_COMMITMENT_LIMIT:
      return std::move(error)
          .with_detail(make_error_code(MemoryError::OutOfMemory))
          .with_hint("enlarge the paging file, or reserve first and commit what is needed");
    case ERROR_WORKING_SET_QUOTA:
      return std::move(error)
          .with_detail(make_error_code(MemoryError::LockLimit))
          .with_hint("raise the working set of the process: SetProcessWorkingSetSize");
    case 1655:  // ERROR_DYNAMIC_CODE_BLOCKED, which MinGW does not name
      return std::move(error)
          .with_detail(make_error_code(MemoryError::ExecutableDenied))
          .with_hint("turn Arbitrary Code Guard off for this program");
    case ERROR_PRIVILEGE_NOT_HELD:
      return std::move(error)
          .with_detail(make_error_code(MemoryError::NoHugePages))
          .with_hint("grant the right \"Lock pages in memory\" to the user");
    default: return error;
  }
}

unsigned long to_page_protection(MemoryProtection protection) noexcept {
  const bool write = allows(protection, MemoryProtection::Write);
  if (allows(protection, MemoryProtection::Execute)) return PAGE_EXECUTE_READ;
  if (write) return PAGE_READWRITE;
  return allows(protection, MemoryProtection::Read) ? PAGE_READONLY : PAGE_NOACCESS;
}

}  // namespace vm_platform
