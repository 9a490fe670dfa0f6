// CPUID: an AMD-like CPU (family 19h), because kernels leave page-table isolation off on those. Its bits say that it
// needs no return thunks (SRSO_NO, BTC_NO, TSA_*_NO) and has automatic IBRS, so that Linux chooses neither these nor
// retpolines, which would defeat return and branch prediction in translated code. Features that the host must have to
// be given are given where it has them.
#include <cpuid.h>

#include <bit>
#include <cstring>

#include "engine/soft/semantics/control.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint32_t bit(unsigned number) { return std::uint32_t{1} << number; }

template <typename... Numbers>
constexpr std::uint32_t bits(Numbers... numbers) {
  return (std::uint32_t{0} | ... | bit(static_cast<unsigned>(numbers)));
}

/// What of the host's features can be passed on.
struct Host {
  std::uint32_t leaf1_ecx = 0, leaf7_ebx = 0, leaf7_ecx = 0, leaf7_edx = 0, extended_ecx = 0;
  bool xsave = false, avx = false;

  Host() {
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    leaf1_ecx = ecx;
    if ((ecx & bit(27)) != 0) {
      std::uint32_t low = 0, high = 0;
      __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
      xsave = true;
      avx = (low & 6) == 6 && (ecx & bit(28)) != 0;
    }
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
      leaf7_ebx = ebx;
      leaf7_ecx = ecx;
      leaf7_edx = edx;
    }
    if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0) extended_ecx = ecx;
    if (!avx) {  // what uses YMM registers or the VEX encoding
      leaf1_ecx &= ~bits(12, 28, 29);
      leaf7_ebx &= ~bits(3, 5, 8);
    }
  }
};

const Host& host() {
  static const Host instance;
  return instance;
}

constexpr std::uint32_t kSignature = 0x00a10f11;  // family 19h, model 11h, stepping 1
constexpr std::uint32_t kFirstExtended = 0x80000000, kLastExtended = 0x80000021, kLastBasic = 0x16;
constexpr std::uint32_t kHypervisor = 0x40000000, kLastHypervisor = 0x40000010;
// FPU DE PSE TSC MSR PAE CX8 APIC MTRR PGE CMOV PAT PSE36 MMX FXSR: the same bits in 1 and 80000001h
constexpr std::uint32_t kCommonEdx = bits(0, 2, 3, 4, 5, 6, 8, 9, 12, 13, 15, 16, 17, 23, 24);

CpuidResult vendor(std::uint32_t last, const char (&name)[13]) {
  std::uint32_t words[3];
  std::memcpy(words, name, 12);
  return {last, words[0], words[2], words[1]};  // EBX, EDX, ECX
}

/// Bits that an APIC id of this machine takes.
std::uint32_t id_bits(const Cpu& cpu) { return static_cast<std::uint32_t>(std::bit_width(cpu.options.cpus - 1)); }

CpuidResult features(const Cpu& cpu) {
  const std::uint32_t cpus = cpu.options.cpus;
  // SSE3 PCLMUL SSSE3 FMA CX16 SSE4.1 SSE4.2 MOVBE POPCNT AES XSAVE AVX F16C RDRAND
  std::uint32_t ecx = host().leaf1_ecx & bits(0, 1, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30);
  ecx |= bits(17, 21, 24, 31);  // PCID, x2APIC, TSC deadline, hypervisor
  if ((cpu.cr4 & cr4::kOsxsave) != 0) ecx |= bit(27);
  const std::uint32_t edx = kCommonEdx | bits(11, 19, 25, 26) | (cpus > 1 ? bit(28) : 0);  // SEP CLFSH SSE SSE2 HTT
  const std::uint32_t logical = std::uint32_t{1} << id_bits(cpu);
  return {kSignature, cpu.index << 24 | (logical & 0xff) << 16 | 8 << 8, ecx, edx};
}

CpuidResult extended_features(std::uint32_t subleaf) {
  if (subleaf != 0) return {};
  // BMI1 AVX2 BMI2 ERMS INVPCID RDSEED ADX CLFLUSHOPT SHA
  std::uint32_t ebx = host().leaf7_ebx & bits(3, 5, 8, 9, 10, 18, 19, 23, 29);
  ebx |= bits(0, 1, 7, 20);                         // FSGSBASE, TSC_ADJUST, SMEP, SMAP
  const std::uint32_t ecx = bits(2, 22);            // UMIP, RDPID
  return {0, ebx, ecx, host().leaf7_edx & bit(4)};  // FSRM
}

/// Cache levels; AMD's leaf 8000001Dh has the same format as leaf 4.
CpuidResult caches(const Cpu& cpu, std::uint32_t subleaf) {
  struct Cache {
    std::uint32_t type, level, ways, sets;
    bool shared;
  };
  constexpr Cache kCaches[] = {
      {1, 1, 8, 64, false}, {2, 1, 8, 64, false}, {3, 2, 8, 1024, false}, {3, 3, 16, 32768, true}};
  if (subleaf >= std::size(kCaches)) return {};
  const Cache& cache = kCaches[subleaf];
  const std::uint32_t sharing = cache.shared ? (std::uint32_t{1} << id_bits(cpu)) - 1 : 0;
  return {cache.type | cache.level << 5 | bit(8) | (sharing & 0xfff) << 14, 63 | (cache.ways - 1) << 22, cache.sets - 1,
          0};
}

CpuidResult topology(const Cpu& cpu, std::uint32_t subleaf) {
  switch (subleaf) {
    case 0: return {0, 1, 0x100, cpu.index};                                     // one thread a core
    case 1: return {id_bits(cpu), cpu.options.cpus & 0xffff, 0x201, cpu.index};  // the cores of one package
    default: return {0, 0, subleaf & 0xff, cpu.index};
  }
}

CpuidResult save_areas(const Cpu& cpu, std::uint32_t subleaf) {
  if (!offers_xsave(cpu)) return {};
  const bool avx = (offered_xcr0() & 4) != 0;
  switch (subleaf) {
    case 0:
      return {static_cast<std::uint32_t>(offered_xcr0()), (cpu.xcr0 & 4) != 0 ? 832U : 576U, avx ? 832U : 576U, 0};
    case 2: return avx ? CpuidResult{256, 576, 0, 0} : CpuidResult{};
    default: return {};
  }
}

CpuidResult brand(std::uint32_t leaf) {
  static const char kName[49] = "vm-platform virtual CPU (software engine)       ";
  std::uint32_t words[4];
  std::memcpy(words, kName + 16 * (leaf - 0x80000002), 16);
  return {words[0], words[1], words[2], words[3]};
}

CpuidResult hypervisor_leaf(const Cpu& cpu, std::uint32_t leaf) {
  switch (leaf) {
    case 0x40000000: {
      const CpuidResult name = vendor(kLastHypervisor, "KVMKVMKVM\0\0\0");
      return {name.eax, name.ebx, name.edx, name.ecx};  // in the order EBX, ECX, EDX here
    }
    case 0x40000001: return {bits(1, 3, 24), 0, 0, 0};  // no I/O delay, kvmclock at 4B564D00h, stable on all CPUs
    case 0x40000010:                                    // kHz of the TSC and of the APIC timer's bus
      return {static_cast<std::uint32_t>(cpu.environment.tsc.frequency_hz / 1000), 1'000'000, 0, 0};
    default: return {};
  }
}

CpuidResult extended_leaf(const Cpu& cpu, std::uint32_t leaf, std::uint32_t subleaf) {
  switch (leaf) {
    case 0x80000000: return vendor(kLastExtended, "AuthenticAMD");
    case 0x80000001: {
      // LAHF, LZCNT and PREFETCHW of the host; topology extensions
      std::uint32_t ecx = (host().extended_ecx & bits(0, 5, 8)) | bit(22);
      if (cpu.options.cpus > 1) ecx |= bit(1);
      // SYSCALL NX MMXEXT 1G-pages RDTSCP LM
      return {kSignature, 0, ecx, kCommonEdx | bits(11, 20, 22, 26, 27, 29)};
    }
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: return brand(leaf);
    case 0x80000005: return {0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140};
    case 0x80000006: return {0x5c002200, 0x6c004200, 0x02006140, 0x01009140};
    case 0x80000007: return {0, 0, 0, bit(8)};  // invariant TSC
    case 0x80000008:
      // XSAVE saves error pointers always; BTC_NO, SSB_NO
      return {48 << 8 | kPhysicalAddressBits, bits(2, 26, 29), (cpu.options.cpus - 1) | id_bits(cpu) << 12, 0};
    case 0x8000001d: return caches(cpu, subleaf);
    case 0x8000001e: return {cpu.index, cpu.index & 0xff, 0, 0};
    case 0x80000021:
      // LFENCE serializes, null selectors clear the base, automatic IBRS, SRSO_NO; TSA_SQ_NO, TSA_L1_NO
      return {bits(0, 2, 6, 8, 29), 0, bits(1, 2), 0};
    default: return {};
  }
}

void cpuid_instruction(Cpu& cpu, const Instruction&) {
  const CpuidResult result =
      cpuid(cpu, static_cast<std::uint32_t>(cpu.gpr[kRax]), static_cast<std::uint32_t>(cpu.gpr[kRcx]));
  cpu.gpr[kRax] = result.eax;
  cpu.gpr[kRbx] = result.ebx;
  cpu.gpr[kRcx] = result.ecx;
  cpu.gpr[kRdx] = result.edx;
}

constexpr Row kRows[] = {{ZYDIS_MNEMONIC_CPUID, cpuid_instruction}};

}  // namespace

bool offers_xsave(const Cpu&) { return host().xsave; }
std::uint64_t offered_xcr0() { return host().avx ? 7 : 3; }
bool offers_invpcid() { return (host().leaf7_ebx & bit(10)) != 0; }
bool offers_rdrand() { return (host().leaf1_ecx & bit(30)) != 0; }
bool offers_rdseed() { return (host().leaf7_ebx & bit(18)) != 0; }

CpuidResult cpuid(const Cpu& cpu, std::uint32_t leaf, std::uint32_t subleaf) {
  if (leaf >= kFirstExtended) return extended_leaf(cpu, leaf, subleaf);
  if (leaf >= kHypervisor) return hypervisor_leaf(cpu, leaf);
  switch (leaf) {
    case 0: return vendor(kLastBasic, "AuthenticAMD");
    case 1: return features(cpu);
    case 4: return caches(cpu, subleaf);
    case 6: return {bit(2), 0, 0, 0};  // the APIC timer never stops
    case 7: return extended_features(subleaf);
    case 0xb: return topology(cpu, subleaf);
    case 0xd: return save_areas(cpu, subleaf);
    case 0x16: {
      const auto mhz = static_cast<std::uint32_t>(cpu.environment.tsc.frequency_hz / 1'000'000);
      return {mhz & 0xffff, mhz & 0xffff, 100, 0};
    }
    default: return {};
  }
}

const Group kCpuidGroup{"CPUID", "Cpuid", kRows};

}  // namespace vm_platform::soft
