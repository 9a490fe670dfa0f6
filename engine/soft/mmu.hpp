// Guest linear addresses: page walks, the TLBs, and access to guest memory from C++.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "engine/soft/fault.hpp"

namespace vm_platform::soft {

class Cpu;

/// Whose rights an access has (Intel SDM vol. 3, 4.6.1).
enum class Rights : std::uint8_t {
  Current,     ///< An explicit access of the instruction: CPL and EFLAGS.AC decide.
  Supervisor,  ///< An implicit access to a system structure (GDT, LDT, IDT, TSS), or one made for CPL 0 by delivery.
  User,        ///< As if at CPL 3.
};
enum class Access : std::uint8_t { Read, Write, Execute };

// All of these raise #PF (through GuestFault) and leave memory as it was when any byte of the range faults; they reach
// RAM and MMIO, cross pages, and keep self-modifying code right. Canonical and segment checks are the caller's
// (semantics/operands.hpp).
void read_linear(Cpu& cpu, std::uint64_t linear, void* out, std::size_t size, Rights rights = Rights::Current);
void write_linear(Cpu& cpu, std::uint64_t linear, const void* in, std::size_t size, Rights rights = Rights::Current);
/// Checks that a read would succeed, and reads nothing, a device's register least of all.
void check_read(Cpu& cpu, std::uint64_t linear, std::size_t size, Rights rights = Rights::Current);
/// Checks that a write would succeed (and sets accessed and dirty bits), for operations that must not half-happen.
void check_write(Cpu& cpu, std::uint64_t linear, std::size_t size, Rights rights = Rights::Current);

template <typename T>
  requires std::is_trivially_copyable_v<T>
T read_linear(Cpu& cpu, std::uint64_t linear, Rights rights = Rights::Current) {
  T value;
  read_linear(cpu, linear, &value, sizeof value, rights);
  return value;
}
template <typename T>
  requires std::is_trivially_copyable_v<T>
void write_linear(Cpu& cpu, std::uint64_t linear, T value, Rights rights = Rights::Current) {
  write_linear(cpu, linear, &value, sizeof value, rights);
}

/// The host address of a range that lies in one page of plain RAM (for Write: one that holds no translated code), for
/// bulk operations; null where the access must go through read_linear / write_linear instead. Raises #PF. The pointer
/// is good until the guest's next instruction.
std::byte* host_pointer(Cpu& cpu, std::uint64_t linear, std::size_t size, Access access,
                        Rights rights = Rights::Current);

// TLB maintenance, for what instructions ask (Intel SDM vol. 3, 4.10.4).
void flush_tlb(Cpu& cpu);             ///< Everything, global pages and all PCIDs: CR0.PG, CR4.PGE … changed.
void flush_tlb_non_global(Cpu& cpu);  ///< The current PCID's, except global pages.
void flush_tlb_page(Cpu& cpu, std::uint64_t linear);  ///< INVLPG.
void flush_tlb_pcid(Cpu& cpu, std::uint16_t pcid);    ///< Not global pages.
void flush_tlb_pcid_page(Cpu& cpu, std::uint16_t pcid, std::uint64_t linear);
void flush_tlb_all_but_global(Cpu& cpu);  ///< All PCIDs.
/// After CR3 was loaded (cpu.cr3 holds the new value, without bit 63): switches to its PCID's translations, dropping
/// them first unless `keep`.
void address_space_changed(Cpu& cpu, bool keep);

}  // namespace vm_platform::soft
