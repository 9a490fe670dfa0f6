// The page-table walk (Intel SDM vol. 3, chapter 4) and the fill of the first-level TLB. Compiled without vector
// instructions and free of calls into the C library, because generated code comes here with the guest's vector state
// still in the registers.
#pragma once

#include <cstdint>

#include "engine/soft/mmu_state.hpp"

namespace vm_platform::soft {

class Cpu;

/// Whose rights are checked, resolved from Rights, CPL and EFLAGS.AC.
enum class Walker : std::uint8_t { User, Supervisor, SupervisorOpen };

/// Page-fault error code (Intel SDM vol. 3, figure 4-12).
namespace page_fault {
inline constexpr std::uint32_t kPresent = 1, kWrite = 2, kUser = 4, kReserved = 8, kFetch = 16;
}

enum class WalkStatus : std::uint8_t { Done, Fault, NotCanonical };

struct WalkResult {
  WalkStatus status;
  std::uint32_t error_code;  ///< With Fault.
  const TlbEntry* entry;     ///< With Done: in the second-level TLB, good until the next walk.
};

/// Translates for a data access or an instruction fetch, setting accessed and dirty bits as the access would.
WalkResult walk(Cpu& cpu, std::uint64_t linear, bool write, bool execute, Walker walker) noexcept;

/// Asked when a write translation is installed: pages with translated code never become directly writable.
bool page_has_code(const Cpu& cpu, std::uint64_t physical) noexcept;

/// Empties the first-level TLB.
void clear_first_level(Cpu& cpu) noexcept;
void clear_first_level_page(Cpu& cpu, std::uint64_t linear) noexcept;

}  // namespace vm_platform::soft
