// PUSHF, POPF, and the flags with privilege rules.
#include "engine/soft/semantics/flags.hpp"

#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

std::size_t size_of(ZydisMnemonic mnemonic) {
  switch (mnemonic) {
    case ZYDIS_MNEMONIC_PUSHFQ:
    case ZYDIS_MNEMONIC_POPFQ: return 8;
    case ZYDIS_MNEMONIC_PUSHFD:
    case ZYDIS_MNEMONIC_POPFD: return 4;
    default: return 2;
  }
}

void require_v86_iopl(const Cpu& cpu) {
  if (cpu.virtual_8086() && cpu.iopl() != 3) raise(Vector::GeneralProtection, 0);
}

void pushf(Cpu& cpu, const Instruction& instruction) {
  require_v86_iopl(cpu);
  Stack stack(cpu);
  stack.push(cpu.flags() & ~(rflags::kResume | rflags::kVirtual8086), size_of(instruction.info.mnemonic));
  stack.commit();
}

void popf(Cpu& cpu, const Instruction& instruction) {
  require_v86_iopl(cpu);
  const std::size_t size = size_of(instruction.info.mnemonic);
  Stack stack(cpu);
  const std::uint64_t value = stack.pop(size);
  std::uint64_t privileged = 0;
  if (cpu.virtual_8086()) {
    privileged = rflags::kInterrupt;
  } else {
    if (cpu.cpl == 0) privileged |= rflags::kIoplMask;
    if (cpu.cpl <= cpu.iopl()) privileged |= rflags::kInterrupt;
  }
  stack.commit();
  load_flags(cpu, value & ~rflags::kResume, size, privileged);
  cpu.system_flags &= ~rflags::kResume;
}

void require_io_privilege(const Cpu& cpu) {
  if (!cpu.real_mode() && cpu.cpl > cpu.iopl()) raise(Vector::GeneralProtection, 0);
}

void cli(Cpu& cpu, const Instruction&) {
  require_io_privilege(cpu);
  cpu.system_flags &= ~rflags::kInterrupt;
}

void sti(Cpu& cpu, const Instruction&) {
  require_io_privilege(cpu);
  if ((cpu.system_flags & rflags::kInterrupt) == 0) cpu.interrupt_shadow = true;
  cpu.system_flags |= rflags::kInterrupt;
}

void clac_stac(Cpu& cpu, const Instruction& instruction) {
  if (cpu.cpl != 0) raise(Vector::InvalidOpcode);
  if (instruction.info.mnemonic == ZYDIS_MNEMONIC_STAC) {
    cpu.system_flags |= rflags::kAlignmentCheck;
  } else {
    cpu.system_flags &= ~rflags::kAlignmentCheck;
  }
}

void cld(Cpu& cpu, const Instruction&) { cpu.system_flags &= ~rflags::kDirection; }
void std_(Cpu& cpu, const Instruction&) { cpu.system_flags |= rflags::kDirection; }

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_PUSHF, pushf},    {ZYDIS_MNEMONIC_PUSHFD, pushf}, {ZYDIS_MNEMONIC_PUSHFQ, pushf},
    {ZYDIS_MNEMONIC_POPF, popf},      {ZYDIS_MNEMONIC_POPFD, popf},   {ZYDIS_MNEMONIC_POPFQ, popf},
    {ZYDIS_MNEMONIC_CLI, cli},        {ZYDIS_MNEMONIC_STI, sti},      {ZYDIS_MNEMONIC_CLAC, clac_stac},
    {ZYDIS_MNEMONIC_STAC, clac_stac}, {ZYDIS_MNEMONIC_CLD, cld},      {ZYDIS_MNEMONIC_STD, std_},
};

}  // namespace

const Group kFlagGroup{"flags", "Flags", kRows};

}  // namespace vm_platform::soft
