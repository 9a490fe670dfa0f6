// Time stamps, random numbers, HLT, and what is always undefined.
#include "engine/soft/semantics/control.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/msr.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

void check_tsc_access(const Cpu& cpu) {
  if ((cpu.cr4 & cr4::kTsd) != 0 && cpu.cpl != 0) raise(Vector::GeneralProtection, 0);
}

void rdtsc(Cpu& cpu, const Instruction&) {
  check_tsc_access(cpu);
  const std::uint64_t now = guest_tsc(cpu);
  cpu.gpr[kRax] = now & 0xffffffff;
  cpu.gpr[kRdx] = now >> 32;
}

void rdtscp(Cpu& cpu, const Instruction& instruction) {
  rdtsc(cpu, instruction);
  cpu.gpr[kRcx] = cpu.tsc_aux & 0xffffffff;
}

void rdpid(Cpu& cpu, const Instruction& instruction) { write_operand(cpu, instruction, 0, cpu.tsc_aux); }

/// There are no counters to read.
void rdpmc(Cpu&, const Instruction&) { raise(Vector::GeneralProtection, 0); }

void random(Cpu& cpu, const Instruction& instruction) {
  const bool seed = instruction.info.mnemonic == ZYDIS_MNEMONIC_RDSEED;
  if (seed ? !offers_rdseed(cpu) : !offers_rdrand(cpu)) raise(Vector::InvalidOpcode);
  std::uint64_t value = 0;
  bool good = false;
  if (seed) {
    __asm__ volatile("rdseed %0" : "=r"(value), "=@ccc"(good));
  } else {
    __asm__ volatile("rdrand %0" : "=r"(value), "=@ccc"(good));
  }
  write_operand(cpu, instruction, 0, good ? value : 0);
  cpu.arithmetic_flags = good ? rflags::kCarry : 0;
}

void hlt(Cpu& cpu, const Instruction&) {
  require_cpl0(cpu);
  cpu.halted = true;
}

/// PAUSE, and hints of later CPUs in encodings that are NOPs on those without.
void nothing(Cpu&, const Instruction&) {}

/// KVM's hypercalls, none of which CPUID offers: "no such call".
void hypercall(Cpu& cpu, const Instruction&) {
  constexpr std::uint64_t kNoSuchCall = ~std::uint64_t{999};  // -1000
  require_cpl0(cpu);
  cpu.gpr[kRax] = cpu.in_64bit() ? kNoSuchCall : kNoSuchCall & 0xffffffff;
}

void undefined(Cpu&, const Instruction&) { raise(Vector::InvalidOpcode); }

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_RDTSC, rdtsc},       {ZYDIS_MNEMONIC_RDTSCP, rdtscp},    {ZYDIS_MNEMONIC_RDPID, rdpid},
    {ZYDIS_MNEMONIC_RDPMC, rdpmc},       {ZYDIS_MNEMONIC_RDRAND, random},    {ZYDIS_MNEMONIC_RDSEED, random},
    {ZYDIS_MNEMONIC_HLT, hlt},           {ZYDIS_MNEMONIC_PAUSE, nothing},    {ZYDIS_MNEMONIC_CLDEMOTE, nothing},
    {ZYDIS_MNEMONIC_RDSSPD, nothing},    {ZYDIS_MNEMONIC_RDSSPQ, nothing},   {ZYDIS_MNEMONIC_PREFETCHWT1, nothing},
    {ZYDIS_MNEMONIC_VMMCALL, hypercall}, {ZYDIS_MNEMONIC_VMCALL, hypercall}, {ZYDIS_MNEMONIC_UD0, undefined},
    {ZYDIS_MNEMONIC_UD1, undefined},     {ZYDIS_MNEMONIC_UD2, undefined},
};

}  // namespace

const Group kProcessorGroup{"processor", "Processor", kRows};

}  // namespace vm_platform::soft
