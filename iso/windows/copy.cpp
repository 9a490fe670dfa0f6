#include "iso/copy.hpp"

#include <io.h>

#include <algorithm>
#include <cerrno>

namespace vm_platform::iso {

Result<void> write_all(int descriptor, Bytes bytes) {
  while (!bytes.empty()) {
    const auto want = static_cast<unsigned>(std::min<std::size_t>(bytes.size(), std::size_t{1} << 30));
    const int put = ::_write(descriptor, bytes.data(), want);
    if (put < 0) return fail(VmError::from_os(errno, "write", "descriptor " + std::to_string(descriptor)));
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return {};
}

Result<void> write_zeros(int descriptor, std::uint64_t size) { return write_zero_bytes(descriptor, size); }

std::uint64_t copy_in_kernel(int, std::uint64_t, std::uint64_t, int, const std::atomic<bool>*) { return 0; }

}  // namespace vm_platform::iso
