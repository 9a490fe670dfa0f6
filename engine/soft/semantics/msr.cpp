#include "engine/soft/semantics/msr.hpp"

#include <algorithm>
#include <array>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/control.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/kvm_clock.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

enum : std::uint32_t {
  kTsc = 0x10,
  kPlatformId = 0x17,
  kApicBase = 0x1b,
  kTscAdjust = 0x3b,
  kPatchLevel = 0x8b,
  kMtrrCapabilities = 0xfe,
  kSysenterCs = 0x174,
  kSysenterEsp = 0x175,
  kSysenterEip = 0x176,
  kMcgCapabilities = 0x179,
  kMcgStatus = 0x17a,
  kMiscEnable = 0x1a0,
  kDebugControl = 0x1d9,
  kMtrrFirstVariable = 0x200,
  kMtrrLastVariable = 0x20f,
  kPat = 0x277,
  kMtrrDefault = 0x2ff,
  kTscDeadline = 0x6e0,
  kX2apicFirst = 0x800,
  kX2apicLast = 0x8ff,
  kKvmWallClock = 0x4b564d00,
  kKvmSystemTime = 0x4b564d01,
  kEfer = 0xc0000080,
  kStar = 0xc0000081,
  kLstar = 0xc0000082,
  kCstar = 0xc0000083,
  kSfmask = 0xc0000084,
  kFsBase = 0xc0000100,
  kGsBase = 0xc0000101,
  kKernelGsBase = 0xc0000102,
  kTscAux = 0xc0000103,
  kHardwareConfiguration = 0xc0010015,
};

/// In the order of CpuContext::mtrr_fixed.
constexpr std::uint32_t kMtrrFixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
/// AMD's that a kernel reads or changes without expecting a fault, in the order of CpuContext::amd_configuration:
/// SYSCFG, NB_CFG, INT_PENDING, LS_CFG, DC_CFG, TW_CFG, FP_CFG, DE_CFG, BU_CFG2, BP_CFG. Storage.
constexpr std::uint32_t kAmdConfiguration[] = {0xc0010010, 0xc001001f, 0xc0010055, 0xc0011020, 0xc0011022,
                                               0xc0011023, 0xc0011028, 0xc0011029, 0xc001102a, 0xc001102e};
static_assert(sizeof(CpuContext::amd_configuration) == std::size(kAmdConfiguration) * 8);
static_assert(sizeof(CpuContext::mtrr_fixed) == std::size(kMtrrFixed) * 8);

[[noreturn]] void general_protection() { raise(Vector::GeneralProtection, 0); }

template <std::size_t N>
std::uint64_t* find(const std::uint32_t (&indices)[N], std::uint64_t* values, std::uint32_t index) {
  for (std::size_t i = 0; i < N; ++i) {
    if (indices[i] == index) return &values[i];
  }
  return nullptr;
}

/// Registers that are nothing but storage, or null.
std::uint64_t* storage(Cpu& cpu, std::uint32_t index) {
  if (index >= kMtrrFirstVariable && index <= kMtrrLastVariable) return &cpu.mtrr_variable[index - kMtrrFirstVariable];
  if (std::uint64_t* value = find(kMtrrFixed, cpu.mtrr_fixed, index)) return value;
  if (std::uint64_t* value = find(kAmdConfiguration, cpu.amd_configuration, index)) return value;
  switch (index) {
    case kSysenterCs: return &cpu.sysenter_cs;
    case kMiscEnable: return &cpu.misc_enable;
    case kDebugControl: return &cpu.debug_control;
    case kMtrrDefault: return &cpu.mtrr_default;
    case kStar: return &cpu.star;
    case kHardwareConfiguration: return &cpu.hardware_configuration;
    default: return nullptr;
  }
}

/// Registers that hold linear addresses, or null.
std::uint64_t* address_storage(Cpu& cpu, std::uint32_t index) {
  switch (index) {
    case kSysenterEsp: return &cpu.sysenter_esp;
    case kSysenterEip: return &cpu.sysenter_eip;
    case kLstar: return &cpu.lstar;
    case kCstar: return &cpu.cstar;
    case kFsBase: return &cpu.segments[kFs].base;
    case kGsBase: return &cpu.segments[kGs].base;
    case kKernelGsBase: return &cpu.kernel_gs_base;
    default: return nullptr;
  }
}

bool is_controllers(std::uint32_t index) {
  return (index >= kX2apicFirst && index <= kX2apicLast) || index == kTscDeadline || index == kApicBase;
}

void write_efer(Cpu& cpu, std::uint64_t value) {
  constexpr std::uint64_t kKnown =
      efer::kSyscall | efer::kLongModeEnable | efer::kLongModeActive | efer::kNoExecute | efer::kAutoIbrs;
  if ((value & ~kKnown) != 0) general_protection();
  const std::uint64_t changed = value ^ cpu.efer;
  if ((changed & efer::kLongModeEnable) != 0 && (cpu.cr0 & cr0::kPaging) != 0) general_protection();
  cpu.efer = (value & ~efer::kLongModeActive) | (cpu.efer & efer::kLongModeActive);
  if ((changed & efer::kNoExecute) != 0) flush_tlb(cpu);
}

void check_pat(std::uint64_t value) {
  for (unsigned i = 0; i < 8; ++i) {
    const std::uint64_t type = value >> (8 * i) & 0xff;
    if (type > 7 || type == 2 || type == 3) general_protection();
  }
}

/// UC, WC, WT, WP, WB (Intel SDM vol. 3, table 11-8).
bool is_mtrr_type(std::uint64_t type) { return type < 7 && type != 2 && type != 3; }

/// Reserved types and bits of the memory type range registers (Intel SDM vol. 3, 11.11.2); others pass.
void check_mtrr(const Cpu& cpu, std::uint32_t index, std::uint64_t value) {
  constexpr std::uint64_t kBeyondMemory = ~((std::uint64_t{1} << kPhysicalAddressBits) - 1);
  if (index == kMtrrDefault) {
    if ((value & ~std::uint64_t{0xcff}) != 0 || !is_mtrr_type(value & 0xff)) general_protection();
  } else if (index >= kMtrrFirstVariable && index <= kMtrrLastVariable) {
    const bool is_base = (index & 1) == 0;
    if ((value & (kBeyondMemory | (is_base ? 0xf00 : 0x7ff))) != 0) general_protection();
    if (is_base && !is_mtrr_type(value & 0xff)) general_protection();
  } else if (std::ranges::find(kMtrrFixed, index) != std::end(kMtrrFixed)) {
    // AMD's SYSCFG.MtrrFixDramModEn uncovers two more bits of each type (APM vol. 2, 7.9.1).
    const std::uint64_t routing = (cpu.amd_configuration[0] >> 19 & 1) != 0 ? 0x18 : 0;
    for (unsigned i = 0; i < 8; ++i) {
      if (!is_mtrr_type(value >> (8 * i) & 0xff & ~routing)) general_protection();
    }
  }
}

/// The deadline is compared with the machine's clock, from which this CPU's counter may differ.
std::uint64_t shift_deadline(std::uint64_t value, std::uint64_t by) { return value == 0 ? 0 : value + by; }

void shift_tsc(Cpu& cpu, std::uint64_t by) {
  cpu.tsc_offset += by;
  cpu.tsc_adjust += by;
  update_kvm_clock(cpu);
}

void rdmsr(Cpu& cpu, const Instruction&) {
  require_cpl0(cpu);
  const std::uint64_t value = read_msr(cpu, static_cast<std::uint32_t>(cpu.gpr[kRcx]));
  cpu.gpr[kRax] = value & 0xffffffff;
  cpu.gpr[kRdx] = value >> 32;
}

void wrmsr(Cpu& cpu, const Instruction&) {
  require_cpl0(cpu);
  write_msr(cpu, static_cast<std::uint32_t>(cpu.gpr[kRcx]), (cpu.gpr[kRdx] << 32) | (cpu.gpr[kRax] & 0xffffffff));
}

constexpr Row kRows[] = {{ZYDIS_MNEMONIC_RDMSR, rdmsr}, {ZYDIS_MNEMONIC_WRMSR, wrmsr}};

}  // namespace

std::uint64_t read_msr(Cpu& cpu, std::uint32_t index) {
  if (is_controllers(index)) {
    std::uint64_t value = 0;
    if (cpu.controller.read_msr(index, value) != CpuInterruptController::MsrAccess::Done) general_protection();
    return index == kTscDeadline ? shift_deadline(value, cpu.tsc_adjust) : value;
  }
  if (const std::uint64_t* value = storage(cpu, index)) return *value;
  if (const std::uint64_t* value = address_storage(cpu, index)) return *value;
  switch (index) {
    case kTsc: return guest_tsc(cpu);
    case kTscAdjust: return cpu.tsc_adjust;
    case kTscAux: return cpu.tsc_aux;
    case kEfer: return cpu.efer;
    case kSfmask: return cpu.sfmask;
    case kPat: return cpu.pat;
    case kMtrrCapabilities: return 0x508;  // 8 variable ranges, fixed ranges, write combining
    case kPatchLevel: return 0x01000065;
    case kKvmWallClock: return cpu.kvm_wall_clock;
    case kKvmSystemTime: return cpu.kvm_system_time;
    case kPlatformId:
    case kMcgCapabilities:
    case kMcgStatus: return 0;
    default: general_protection();
  }
}

void write_msr(Cpu& cpu, std::uint32_t index, std::uint64_t value) {
  if (is_controllers(index)) {
    if (index == kTscDeadline) value = shift_deadline(value, -cpu.tsc_adjust);
    if (cpu.controller.write_msr(index, value) != CpuInterruptController::MsrAccess::Done) general_protection();
    return;
  }
  if (std::uint64_t* place = address_storage(cpu, index)) {
    if (!is_canonical(cpu, value)) general_protection();
    *place = value;
    return;
  }
  if (std::uint64_t* place = storage(cpu, index)) {
    check_mtrr(cpu, index, value);
    *place = value;
    return;
  }
  switch (index) {
    case kTsc: shift_tsc(cpu, value - guest_tsc(cpu)); break;
    case kTscAdjust: shift_tsc(cpu, value - cpu.tsc_adjust); break;
    case kTscAux: cpu.tsc_aux = value & 0xffffffff; break;
    case kEfer: write_efer(cpu, value); break;
    case kSfmask: cpu.sfmask = value & 0xffffffff; break;
    case kPat:
      check_pat(value);
      cpu.pat = value;
      break;
    case kKvmWallClock: write_kvm_wall_clock(cpu, value); break;
    case kKvmSystemTime: write_kvm_system_time(cpu, value); break;
    case kPatchLevel:
    case kMcgStatus: break;
    default: general_protection();
  }
}

std::span<const std::uint32_t> state_msrs() {
  static const auto list = [] {
    std::array<std::uint32_t, 18 + 16 + std::size(kMtrrFixed) + std::size(kAmdConfiguration)> all{};
    std::size_t count = 0;
    for (const std::uint32_t index :
         {kTsc, kTscAdjust, kTscAux, kApicBase, kSysenterCs, kSysenterEsp, kSysenterEip, kMiscEnable, kDebugControl,
          kPat, kMtrrDefault, kStar, kLstar, kCstar, kSfmask, kKernelGsBase, kHardwareConfiguration, kKvmSystemTime}) {
      all[count++] = index;
    }
    for (std::uint32_t i = kMtrrFirstVariable; i <= kMtrrLastVariable; ++i) all[count++] = i;
    for (const std::uint32_t index : kMtrrFixed) all[count++] = index;
    for (const std::uint32_t index : kAmdConfiguration) all[count++] = index;
    return all;
  }();
  return list;
}

const Group kMsrGroup{"model-specific registers", "Msr", kRows};

}  // namespace vm_platform::soft
