// Finds out which limit a memory call ran into.
#pragma once

#include <string>
#include <vm_platform/memory.hpp>

namespace vm_platform {

enum class MemoryCall : std::uint8_t { Map, Protect, Commit, Lock, MapExecutable, Memfd, Other };

/// ftruncate, which for a size beyond RLIMIT_FSIZE is EFBIG without the signal that would end the process: SIGXFSZ
/// comes only where a program that had no limit at its first call here has got one since. 0 or errno.
int set_file_size(int descriptor, std::uint64_t size) noexcept;

/// The error for `os_error` of a memory call, with the `MemoryError` and the fix that fit this process and host now.
VmError memory_failure(MemoryCall call, int os_error, std::string operation, std::string subject,
                       std::uint64_t size = 0);

}  // namespace vm_platform
