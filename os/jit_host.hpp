// What JitMemory needs of a host: pages to run code from, and changing what may be done with them.
#pragma once

#include <memory>
#include <string>
#include <vm_platform/jit_memory.hpp>

namespace vm_platform::jit_host {

struct Pages {
  std::byte* writable = nullptr;  ///< The same as `executable` with ProtectionSwitch.
  std::byte* executable = nullptr;
};

/// Maps `size` bytes (whole pages), zeroed: with ProtectionSwitch they start readable and executable.
Result<Pages> map(JitMode mode, std::uint64_t size, const void* near_address, const std::string& name);
void unmap(const Pages& pages, std::uint64_t size) noexcept;

/// Switches whole pages of a ProtectionSwitch mapping.
Result<void> make_writable(std::byte* pages, std::uint64_t size);
Result<void> make_executable(std::byte* pages, std::uint64_t size);

/// The host's record of how to unwind through one function; forgotten when the object goes.
class Unwind {
 public:
  /// Bytes of the same memory that the description needs (its addresses are relative); 0 where there is none.
  static const std::uint64_t kDescriptionSize;
  static Result<std::unique_ptr<Unwind>> create(const JitMemory& memory, JitBlock block, JitFrame frame,
                                                JitBlock description);
  virtual ~Unwind() = default;
};

}  // namespace vm_platform::jit_host
