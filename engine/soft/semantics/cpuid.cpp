// CPUID: an AMD-like CPU (family 19h), because kernels leave page-table isolation off on those. Its bits say that it
// needs no return thunks (SRSO_NO, BTC_NO, TSA_*_NO) and has automatic IBRS, so that Linux chooses neither these nor
// retpolines, which would defeat return and branch prediction in translated code. Features that the host must have to
// be given are given where it has them.
#include <bit>
#include <cstring>

#include "engine/soft/semantics/control.hpp"
#include "engine/soft/semantics/cpuid.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint32_t bit(unsigned number) { return std::uint32_t{1} << number; }

/// Whether the host's CPU has what this bit of the same leaf says.
bool has(const HostCpu& host, const CpuidFeature& feature) {
  const std::uint32_t word = feature.leaf == 1                              ? host.leaf1_ecx
                             : feature.leaf != 7                            ? host.extended_ecx
                             : feature.where == CpuidFeature::Register::Ebx ? host.leaf7_ebx
                                                                            : host.leaf7_edx;
  return (word & bit(feature.number)) != 0;
}

constexpr std::uint32_t kSignature = 0x00a10f11;  // family 19h, model 11h, stepping 1
constexpr std::uint32_t kFirstExtended = 0x80000000, kLastExtended = 0x80000021, kLastBasic = 0x16;
constexpr std::uint32_t kHypervisor = 0x40000000, kLastHypervisor = 0x40000010;
using enum CpuidFeature::Register;
using enum CpuidFeature::Given;
constexpr CpuidFeature kFeatures[] = {
    {0x1, Ecx, 0, HostHas, "SSE3"},
    {0x1, Ecx, 1, HostHas, "PCLMULQDQ"},
    {0x1, Ecx, 9, HostHas, "SSSE3"},
    {0x1, Ecx, 12, HostHasYmm, "FMA"},
    {0x1, Ecx, 13, HostHas, "CMPXCHG16B"},
    {0x1, Ecx, 17, Always, "PCID"},
    {0x1, Ecx, 19, HostHas, "SSE4.1"},
    {0x1, Ecx, 20, HostHas, "SSE4.2"},
    {0x1, Ecx, 21, Always, "x2APIC"},
    {0x1, Ecx, 22, HostHas, "MOVBE"},
    {0x1, Ecx, 23, HostHas, "POPCNT"},
    {0x1, Ecx, 24, Always, "TSC deadline"},
    {0x1, Ecx, 25, HostHas, "AES"},
    {0x1, Ecx, 26, HostHas, "XSAVE"},
    {0x1, Ecx, 27, Osxsave, "OSXSAVE"},
    {0x1, Ecx, 28, HostHasYmm, "AVX"},
    {0x1, Ecx, 29, HostHasYmm, "F16C"},
    {0x1, Ecx, 30, HostHas, "RDRAND"},
    {0x1, Ecx, 31, Always, "hypervisor present"},
    {0x1, Edx, 0, Always, "FPU"},
    {0x1, Edx, 2, Always, "DE"},
    {0x1, Edx, 3, Always, "PSE"},
    {0x1, Edx, 4, Always, "TSC"},
    {0x1, Edx, 5, Always, "MSR"},
    {0x1, Edx, 6, Always, "PAE"},
    {0x1, Edx, 8, Always, "CMPXCHG8B"},
    {0x1, Edx, 9, Always, "APIC"},
    {0x1, Edx, 11, Always, "SYSENTER"},
    {0x1, Edx, 12, Always, "MTRR"},
    {0x1, Edx, 13, Always, "PGE"},
    {0x1, Edx, 15, Always, "CMOV"},
    {0x1, Edx, 16, Always, "PAT"},
    {0x1, Edx, 17, Always, "PSE-36"},
    {0x1, Edx, 19, Always, "CLFLUSH"},
    {0x1, Edx, 23, Always, "MMX"},
    {0x1, Edx, 24, Always, "FXSR"},
    {0x1, Edx, 25, Always, "SSE"},
    {0x1, Edx, 26, Always, "SSE2"},
    {0x1, Edx, 28, Several, "HTT"},
    {0x7, Ebx, 0, Always, "FSGSBASE"},
    {0x7, Ebx, 1, Always, "TSC_ADJUST"},
    {0x7, Ebx, 3, HostHasYmm, "BMI1"},
    {0x7, Ebx, 5, HostHasYmm, "AVX2"},
    {0x7, Ebx, 7, Always, "SMEP"},
    {0x7, Ebx, 8, HostHasYmm, "BMI2"},
    {0x7, Ebx, 9, HostHas, "ERMS"},
    {0x7, Ebx, 10, Always, "INVPCID"},
    {0x7, Ebx, 18, HostHas, "RDSEED"},
    {0x7, Ebx, 19, HostHas, "ADX"},
    {0x7, Ebx, 20, Always, "SMAP"},
    {0x7, Ebx, 23, HostHas, "CLFLUSHOPT"},
    {0x7, Ebx, 29, HostHas, "SHA"},
    {0x7, Ecx, 2, Always, "UMIP"},
    {0x7, Ecx, 16, FiveLevels, "LA57"},
    {0x7, Ecx, 22, Always, "RDPID"},
    {0x7, Edx, 4, HostHas, "FSRM"},
    {0x80000001, Ecx, 0, HostHas, "LAHF in 64-bit mode"},
    {0x80000001, Ecx, 1, Several, "CmpLegacy"},
    {0x80000001, Ecx, 5, HostHas, "LZCNT"},
    {0x80000001, Ecx, 8, HostHas, "PREFETCHW"},
    {0x80000001, Ecx, 22, Always, "topology extensions"},
    {0x80000001, Edx, 0, Always, "FPU"},
    {0x80000001, Edx, 2, Always, "DE"},
    {0x80000001, Edx, 3, Always, "PSE"},
    {0x80000001, Edx, 4, Always, "TSC"},
    {0x80000001, Edx, 5, Always, "MSR"},
    {0x80000001, Edx, 6, Always, "PAE"},
    {0x80000001, Edx, 8, Always, "CMPXCHG8B"},
    {0x80000001, Edx, 9, Always, "APIC"},
    {0x80000001, Edx, 11, Always, "SYSCALL"},
    {0x80000001, Edx, 12, Always, "MTRR"},
    {0x80000001, Edx, 13, Always, "PGE"},
    {0x80000001, Edx, 15, Always, "CMOV"},
    {0x80000001, Edx, 16, Always, "PAT"},
    {0x80000001, Edx, 17, Always, "PSE-36"},
    {0x80000001, Edx, 20, Always, "NX"},
    {0x80000001, Edx, 22, Always, "MMXEXT"},
    {0x80000001, Edx, 23, Always, "MMX"},
    {0x80000001, Edx, 24, Always, "FXSR"},
    {0x80000001, Edx, 26, Always, "1 GiB pages"},
    {0x80000001, Edx, 27, Always, "RDTSCP"},
    {0x80000001, Edx, 29, Always, "long mode"},
    {0x80000007, Edx, 8, Always, "invariant TSC"},
    {0x80000008, Ebx, 2, Always, "error pointers always saved"},
    {0x80000008, Ebx, 26, Always, "SSB_NO"},
    {0x80000008, Ebx, 29, Always, "BTC_NO"},
    {0x80000021, Eax, 0, Always, "NoNestedDataBp"},
    {0x80000021, Eax, 2, Always, "LFENCE serializes"},
    {0x80000021, Eax, 6, Always, "null selector clears base"},
    {0x80000021, Eax, 8, Always, "automatic IBRS"},
    {0x80000021, Eax, 29, Always, "SRSO_NO"},
    {0x80000021, Ecx, 1, Always, "TSA_SQ_NO"},
    {0x80000021, Ecx, 2, Always, "TSA_L1_NO"},
    {0x40000001, Eax, 1, Always, "no I/O delay"},
    {0x40000001, Eax, 3, Always, "kvmclock"},
    {0x40000001, Eax, 24, Always, "kvmclock stable"},
    {0x6, Eax, 2, Always, "APIC timer never stops"},
};

bool is_given(const Cpu& cpu, const CpuidFeature& feature) {
  switch (feature.given) {
    case Always: return true;
    case HostHas: return has(cpu.host, feature);
    case HostHasYmm: return cpu.host.avx && has(cpu.host, feature);
    case Several: return cpu.options.cpus > 1;
    case Osxsave: return (cpu.cr4 & cr4::kOsxsave) != 0;
    case FiveLevels: return cpu.options.five_level_paging;
  }
  return false;
}

/// A leaf as far as it is made of feature bits.
CpuidResult feature_bits(const Cpu& cpu, std::uint32_t leaf) {
  CpuidResult result{};
  for (const CpuidFeature& feature : kFeatures) {
    if (feature.leaf != leaf || !is_given(cpu, feature)) continue;
    std::uint32_t* const registers[] = {&result.eax, &result.ebx, &result.ecx, &result.edx};
    *registers[static_cast<unsigned>(feature.where)] |= bit(feature.number);
  }
  return result;
}

CpuidResult vendor(std::uint32_t last, const char (&name)[13]) {
  std::uint32_t words[3];
  std::memcpy(words, name, 12);
  return {last, words[0], words[2], words[1]};  // EBX, EDX, ECX
}

/// Bits that an APIC id of this machine takes.
std::uint32_t id_bits(const Cpu& cpu) { return static_cast<std::uint32_t>(std::bit_width(cpu.options.cpus - 1)); }

CpuidResult features(const Cpu& cpu) {
  const std::uint32_t logical = std::uint32_t{1} << id_bits(cpu);
  CpuidResult result = feature_bits(cpu, 1);
  result.eax = kSignature;
  result.ebx = cpu.index << 24 | (logical & 0xff) << 16 | 8 << 8;
  return result;
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
  const bool avx = (offered_xcr0(cpu) & 4) != 0;
  switch (subleaf) {
    case 0:
      return {static_cast<std::uint32_t>(offered_xcr0(cpu)), (cpu.xcr0 & 4) != 0 ? 832U : 576U, avx ? 832U : 576U, 0};
    case 2: return avx ? CpuidResult{256, 576, 0, 0} : CpuidResult{};
    default: return {};
  }
}

CpuidResult brand(std::uint32_t leaf) {
  static const char kName[49] = "vm-platform virtual CPU (software engine)       ";
  std::uint32_t words[4];
  std::memcpy(words, kName + std::size_t{16} * (leaf - 0x80000002), 16);
  return {words[0], words[1], words[2], words[3]};
}

CpuidResult hypervisor_leaf(const Cpu& cpu, std::uint32_t leaf) {
  switch (leaf) {
    case 0x40000000: {
      const CpuidResult name = vendor(kLastHypervisor, "KVMKVMKVM\0\0\0");
      return {name.eax, name.ebx, name.edx, name.ecx};  // in the order EBX, ECX, EDX here
    }
    case 0x40000001: return feature_bits(cpu, leaf);  // kvmclock at 4B564D00h
    case 0x40000010:                                  // kHz of the TSC and of the APIC timer's bus
      return {static_cast<std::uint32_t>(cpu.environment.tsc.frequency_hz / 1000), 1'000'000, 0, 0};
    default: return {};
  }
}

CpuidResult extended_leaf(const Cpu& cpu, std::uint32_t leaf, std::uint32_t subleaf) {
  switch (leaf) {
    case 0x80000000: return vendor(kLastExtended, "AuthenticAMD");
    case 0x80000001: {
      CpuidResult result = feature_bits(cpu, leaf);
      result.eax = kSignature;
      return result;
    }
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: return brand(leaf);
    case 0x80000005: return {0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140};
    case 0x80000006: return {0x5c002200, 0x6c004200, 0x02006140, 0x01009140};
    case 0x80000007:
    case 0x80000021: return feature_bits(cpu, leaf);
    case 0x80000008: {
      CpuidResult result = feature_bits(cpu, leaf);
      result.eax = (cpu.options.five_level_paging ? 57U : 48U) << 8 | kPhysicalAddressBits;
      result.ecx = (cpu.options.cpus - 1) | id_bits(cpu) << 12;
      return result;
    }
    case 0x8000001d: return caches(cpu, subleaf);
    case 0x8000001e: return {cpu.index, cpu.index & 0xff, 0, 0};
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

std::span<const CpuidFeature> cpuid_features() { return kFeatures; }

bool offers_xsave(const Cpu& cpu) { return cpu.host.xsave; }
std::uint64_t offered_xcr0(const Cpu& cpu) { return cpu.host.xsave ? cpu.host.components() : 1; }
bool offers_rdrand(const Cpu& cpu) { return (cpu.host.leaf1_ecx & bit(30)) != 0; }
bool offers_rdseed(const Cpu& cpu) { return (cpu.host.leaf7_ebx & bit(18)) != 0; }

CpuidResult cpuid(const Cpu& cpu, std::uint32_t leaf, std::uint32_t subleaf) {
  if (leaf >= kFirstExtended) return extended_leaf(cpu, leaf, subleaf);
  if (leaf >= kHypervisor) return hypervisor_leaf(cpu, leaf);
  switch (leaf) {
    case 0: return vendor(kLastBasic, "AuthenticAMD");
    case 1: return features(cpu);
    case 4: return caches(cpu, subleaf);
    case 6: return feature_bits(cpu, leaf);
    case 7: return subleaf == 0 ? feature_bits(cpu, leaf) : CpuidResult{};
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
