#include "os/fault_lock.hpp"

#include <windows.h>

namespace vm_platform::fault_host {

void wait(std::atomic<std::uint32_t>& word, std::uint32_t expected) noexcept {
  ::WaitOnAddress(&word, &expected, sizeof expected, INFINITE);
}

void wake_one(std::atomic<std::uint32_t>& word) noexcept { ::WakeByAddressSingle(&word); }

bool unprotect(std::byte* from, std::uint64_t size) noexcept {
  unsigned long old = 0;
  return ::VirtualProtect(from, size, PAGE_READWRITE, &old) != 0;
}

}  // namespace vm_platform::fault_host
