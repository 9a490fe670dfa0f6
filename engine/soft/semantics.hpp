// What the translator does not copy from the guest: system instructions, far transfers, strings, and the delivery of
// exceptions and interrupts. One description of each, in semantics/.
#pragma once

#include <cstdint>

#include "engine/soft/cpu.hpp"
#include "engine/soft/fault.hpp"
#include "engine/soft/instruction.hpp"

namespace vm_platform::soft {

/// Executes one instruction. On entry cpu.rip is its address; on return cpu.rip is that of the next one to run. Throws
/// GuestFault with the state as before it (rep prefixes: as after the last whole element). A long rep may return with
/// rip unchanged and the registers advanced, so that interrupts are taken between.
/// An instruction this does not know raises #UD.
void execute(Cpu& cpu, const Instruction& instruction);

/// Whether `execute` describes this instruction (docs/cpu.md is generated from it).
bool is_described(ZydisMnemonic mnemonic);

/// Delivers an exception through the IDT (or the real-mode vector table), with double-fault escalation (Intel SDM
/// vol. 3, 6.15). cpu.rip is what is pushed. Throws TripleFault.
void deliver_exception(Cpu& cpu, GuestFault fault);
/// Delivers an external interrupt or (vector 2, `nmi`) an NMI.
void deliver_interrupt(Cpu& cpu, std::uint8_t vector, bool nmi = false);

/// The offset `offset` of a segment as a linear address, after limit, type, and canonical checks of `size` bytes.
/// Raises #GP(0) or #SS(0).
std::uint64_t linear_address(Cpu& cpu, SegmentRegister segment, std::uint64_t offset, std::size_t size, bool write);

/// CPUID as this CPU answers it.
struct CpuidResult {
  std::uint32_t eax, ebx, ecx, edx;
};
CpuidResult cpuid(const Cpu& cpu, std::uint32_t leaf, std::uint32_t subleaf);

}  // namespace vm_platform::soft
