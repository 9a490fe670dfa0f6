#include "os/fault_lock.hpp"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace vm_platform::fault_host {

static_assert(std::atomic<std::uint32_t>::is_always_lock_free && sizeof(std::atomic<std::uint32_t>) == 4);

void wait(std::atomic<std::uint32_t>& word, std::uint32_t expected) noexcept {
  const int error = errno;
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
  errno = error;
}

void wake_one(std::atomic<std::uint32_t>& word) noexcept {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

bool unprotect(std::byte* from, std::uint64_t size) noexcept {
  return ::mprotect(from, size, PROT_READ | PROT_WRITE) == 0;
}

}  // namespace vm_platform::fault_host
