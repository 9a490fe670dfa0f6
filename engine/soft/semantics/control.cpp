// Control and debug registers, and the TLB instructions.
#include "engine/soft/semantics/control.hpp"

#include <algorithm>
#include <iterator>
#include <span>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/descriptors.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {

namespace {

constexpr std::uint64_t kCr0Known = cr0::kProtection | cr0::kMonitorCoprocessor | cr0::kEmulation | cr0::kTaskSwitched |
                                    cr0::kExtensionType | cr0::kNumericError | cr0::kWriteProtect |
                                    cr0::kAlignmentMask | cr0::kNotWriteThrough | cr0::kCacheDisable | cr0::kPaging;
/// What CPUID offers; LA57 by choice. No VME, PVI, PKE: nobody is told of them.
constexpr std::uint64_t kCr4Known = cr4::kTsd | cr4::kDe | cr4::kPse | cr4::kPae | cr4::kMce | cr4::kPge | cr4::kPce |
                                    cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kUmip | cr4::kFsgsbase | cr4::kPcide |
                                    cr4::kOsxsave | cr4::kSmep | cr4::kSmap;
constexpr std::uint64_t kAddressReserved = ~((std::uint64_t{1} << kPhysicalAddressBits) - 1);
constexpr std::uint64_t kCr3NoFlush = std::uint64_t{1} << 63;

[[noreturn]] void general_protection() { raise(Vector::GeneralProtection, 0); }

void write_cr0(Cpu& cpu, std::uint64_t value) {
  if ((value >> 32) != 0) general_protection();
  if ((value & cr0::kPaging) != 0 && (value & cr0::kProtection) == 0) general_protection();
  if ((value & cr0::kNotWriteThrough) != 0 && (value & cr0::kCacheDisable) == 0) general_protection();
  value = (value & kCr0Known) | cr0::kExtensionType;
  const std::uint64_t changed = value ^ cpu.cr0;
  if ((changed & cr0::kPaging) != 0) {
    if ((value & cr0::kPaging) != 0) {
      if ((cpu.efer & efer::kLongModeEnable) != 0) {
        // Long mode is not entered from a 64-bit code segment, without PAE, or with a 16-bit TSS.
        if ((cpu.cr4 & cr4::kPae) == 0 || (cpu.segments[kCs].attributes & Segment::kLong) != 0 ||
            (cpu.tr.type() & 8) == 0) {
          general_protection();
        }
      } else {
        load_pdptes(cpu, value, cpu.cr3, cpu.cr4);
      }
    } else if (cpu.in_64bit() || (cpu.cr4 & cr4::kPcide) != 0) {
      general_protection();
    }
  }
  cpu.cr0 = value;
  if ((changed & cr0::kPaging) != 0) {
    const bool active = (value & cr0::kPaging) != 0 && (cpu.efer & efer::kLongModeEnable) != 0;
    cpu.efer = active ? cpu.efer | efer::kLongModeActive : cpu.efer & ~efer::kLongModeActive;
  }
  if ((changed & cr0::kProtection) != 0 && (value & cr0::kProtection) == 0) cpu.cpl = 0;
  if ((changed & (cr0::kPaging | cr0::kWriteProtect | cr0::kProtection)) != 0) flush_tlb(cpu);
}

void write_cr3(Cpu& cpu, std::uint64_t value) {
  bool keep = false;
  if ((cpu.cr4 & cr4::kPcide) != 0) {
    keep = (value & kCr3NoFlush) != 0;
    value &= ~kCr3NoFlush;
  }
  if (cpu.long_mode()) {
    if ((value & kAddressReserved) != 0) general_protection();
  } else {
    value &= 0xffffffff;
    load_pdptes(cpu, cpu.cr0, value, cpu.cr4);
  }
  cpu.cr3 = value;
  address_space_changed(cpu, keep);
}

void write_cr4(Cpu& cpu, std::uint64_t value) {
  if ((value & ~offered_cr4(cpu)) != 0) general_protection();
  const std::uint64_t changed = value ^ cpu.cr4;
  if (cpu.long_mode() && ((value & cr4::kPae) == 0 || (changed & cr4::kLa57) != 0)) general_protection();
  if ((changed & value & cr4::kPcide) != 0 && (!cpu.long_mode() || (cpu.cr3 & 0xfff) != 0)) general_protection();
  if ((changed & (cr4::kPae | cr4::kPse | cr4::kPge)) != 0) load_pdptes(cpu, cpu.cr0, cpu.cr3, value);
  cpu.cr4 = value;
  if ((changed & (cr4::kPae | cr4::kPse | cr4::kPge | cr4::kPcide | cr4::kSmep | cr4::kSmap)) != 0) flush_tlb(cpu);
}

std::uint64_t read_control(Cpu& cpu, unsigned number) {
  switch (number) {
    case 0: return cpu.cr0;
    case 2: return cpu.cr2;
    case 3: return cpu.cr3;
    case 4: return cpu.cr4;
    case 8: return cpu.controller.task_priority();
    default: raise(Vector::InvalidOpcode);
  }
}

void write_control(Cpu& cpu, unsigned number, std::uint64_t value) {
  switch (number) {
    case 0: write_cr0(cpu, value); break;
    case 2: cpu.cr2 = value; break;
    case 3: write_cr3(cpu, value); break;
    case 4: write_cr4(cpu, value); break;
    case 8:
      if ((value & ~std::uint64_t{15}) != 0) general_protection();
      cpu.controller.set_task_priority(static_cast<std::uint8_t>(value));
      break;
    default: raise(Vector::InvalidOpcode);
  }
}

/// DR4 and DR5 are other names of DR6 and DR7 unless CR4.DE is set.
unsigned debug_register(const Cpu& cpu, unsigned number) {
  if (number == 4 || number == 5) {
    if ((cpu.cr4 & cr4::kDe) != 0) raise(Vector::InvalidOpcode);
    number += 2;
  }
  if (number > 7) raise(Vector::InvalidOpcode);
  return number;
}

void check_debug_access(const Cpu& cpu) {
  require_cpl0(cpu);
  if ((cpu.dr7 >> 13 & 1) != 0) throw GuestFault{Vector::Debug, {}, 0, std::uint64_t{1} << 13};  // GD: BD
}

std::uint64_t read_debug(const Cpu& cpu, unsigned number) {
  if (number == 6) return cpu.dr6;
  if (number == 7) return cpu.dr7;
  return cpu.debug_address[number];
}

void write_debug(Cpu& cpu, unsigned number, std::uint64_t value) {
  if (number >= 6) {
    if (cpu.in_64bit() && (value >> 32) != 0) general_protection();
    if (number == 6) {
      cpu.dr6 = (value & 0xe00f) | 0xffff0ff0;
    } else {
      cpu.dr7 = (value & 0xffff2bff) | 0x400;
    }
    return;
  }
  cpu.debug_address[number] = value;
}

void clts(Cpu& cpu, const Instruction&) {
  require_cpl0(cpu);
  cpu.cr0 &= ~cr0::kTaskSwitched;
}

void smsw(Cpu& cpu, const Instruction& instruction) {
  if ((cpu.cr4 & cr4::kUmip) != 0 && cpu.cpl != 0) general_protection();
  write_operand(cpu, instruction, 0, cpu.cr0);
}

void lmsw(Cpu& cpu, const Instruction& instruction) {
  require_cpl0(cpu);
  const std::uint64_t value = read_operand(cpu, instruction, 0, 2);
  // PE can be set but not cleared (Intel SDM vol. 2, LMSW)
  write_cr0(cpu, (cpu.cr0 & ~std::uint64_t{0xe}) | (value & 0xf));
}

void invlpg(Cpu& cpu, const Instruction& instruction) {
  require_cpl0(cpu);
  const MemoryOperand memory = effective_address(cpu, instruction, instruction.operands[0]);
  std::uint64_t linear = memory.offset;
  if (!cpu.in_64bit() || memory.segment >= kFs) linear += cpu.segments[memory.segment].base;
  if (!cpu.in_64bit()) linear = low_bits(linear, 32);
  if (is_canonical(cpu, linear)) flush_tlb_page(cpu, linear);
}

void invpcid(Cpu& cpu, const Instruction& instruction) {
  if (cpu.real_mode()) raise(Vector::InvalidOpcode);
  require_cpl0(cpu);
  const std::uint64_t type = read_operand(cpu, instruction, 0);
  std::uint64_t descriptor[2];
  read_linear(cpu, operand_address(cpu, instruction, instruction.operands[1], 16, false), descriptor, 16);
  if (type > 3 || (descriptor[0] >> 12) != 0) general_protection();
  const auto pcid = static_cast<std::uint16_t>(descriptor[0]);
  if (type <= 1 && pcid != 0 && (cpu.cr4 & cr4::kPcide) == 0) general_protection();
  switch (type) {
    case 0:
      if (!is_canonical(cpu, descriptor[1])) general_protection();
      flush_tlb_pcid_page(cpu, pcid, descriptor[1]);
      break;
    case 1: flush_tlb_pcid(cpu, pcid); break;
    case 2: flush_tlb(cpu); break;
    default: flush_tlb_all_but_global(cpu); break;
  }
}

/// Caches are the host's business.
void cache_control(Cpu& cpu, const Instruction&) { require_cpl0(cpu); }

/// The line's address must be readable; there is nothing else to do.
void cache_line(Cpu& cpu, const Instruction& instruction) {
  check_read(cpu, operand_address(cpu, instruction, instruction.operands[0], 1, false), 1);
}

void xgetbv(Cpu& cpu, const Instruction&) {
  if ((cpu.cr4 & cr4::kOsxsave) == 0) raise(Vector::InvalidOpcode);
  if ((cpu.gpr[kRcx] & 0xffffffff) != 0) general_protection();
  cpu.gpr[kRax] = cpu.xcr0 & 0xffffffff;
  cpu.gpr[kRdx] = cpu.xcr0 >> 32;
}

void xsetbv(Cpu& cpu, const Instruction&) {
  if ((cpu.cr4 & cr4::kOsxsave) == 0) raise(Vector::InvalidOpcode);
  require_cpl0(cpu);
  if ((cpu.gpr[kRcx] & 0xffffffff) != 0) general_protection();
  const std::uint64_t value = (cpu.gpr[kRdx] << 32) | (cpu.gpr[kRax] & 0xffffffff);
  if (!is_possible_xcr0(cpu, value)) general_protection();
  cpu.xcr0 = value;
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_CLTS, clts},          {ZYDIS_MNEMONIC_SMSW, smsw},          {ZYDIS_MNEMONIC_LMSW, lmsw},
    {ZYDIS_MNEMONIC_INVLPG, invlpg},      {ZYDIS_MNEMONIC_INVPCID, invpcid},    {ZYDIS_MNEMONIC_WBINVD, cache_control},
    {ZYDIS_MNEMONIC_INVD, cache_control}, {ZYDIS_MNEMONIC_CLFLUSH, cache_line}, {ZYDIS_MNEMONIC_CLFLUSHOPT, cache_line},
    {ZYDIS_MNEMONIC_XGETBV, xgetbv},      {ZYDIS_MNEMONIC_XSETBV, xsetbv},
};

}  // namespace

bool is_possible_xcr0(const Cpu& cpu, std::uint64_t value) {
  return (value & 1) != 0 && (value & ~offered_xcr0(cpu)) == 0 && (value & 6) != 4;
}

std::uint64_t offered_cr4(const Cpu& cpu) {
  return (offers_xsave(cpu) ? kCr4Known : kCr4Known & ~cr4::kOsxsave) |
         (cpu.options.five_level_paging ? cr4::kLa57 : 0);
}

void load_pdptes(Cpu& cpu, std::uint64_t new_cr0, std::uint64_t new_cr3, std::uint64_t new_cr4) {
  if ((new_cr0 & cr0::kPaging) == 0 || (new_cr4 & cr4::kPae) == 0 || (cpu.efer & efer::kLongModeEnable) != 0) return;
  std::uint64_t entries[4] = {};  // absent where there is no RAM
  (void)cpu.environment.memory->read(Gpa(new_cr3 & 0xffffffe0), std::as_writable_bytes(std::span(entries)));
  for (const std::uint64_t entry : entries) {
    if ((entry & 1) != 0 && (entry & (kAddressReserved | 0x1e6)) != 0) general_protection();
  }
  std::copy(std::begin(entries), std::end(entries), cpu.pdpte);
}

void move_control_or_debug(Cpu& cpu, const Instruction& instruction) {
  const bool to = ZydisRegisterGetClass(instruction.operands[0].reg.value) != ZYDIS_REGCLASS_CONTROL &&
                  ZydisRegisterGetClass(instruction.operands[0].reg.value) != ZYDIS_REGCLASS_DEBUG;
  const ZydisRegister special = instruction.operands[to ? 1 : 0].reg.value;
  const ZydisRegister general = instruction.operands[to ? 0 : 1].reg.value;
  const bool wide = cpu.in_64bit();
  const auto source = [&] { return low_bits(read_register(cpu, general), wide ? 64 : 32); };
  const auto number = static_cast<std::uint8_t>(ZydisRegisterGetId(special));
  if (ZydisRegisterGetClass(special) == ZYDIS_REGCLASS_CONTROL) {
    require_cpl0(cpu);
    if (to) {
      write_register(cpu, general, read_control(cpu, number));
    } else {
      write_control(cpu, number, source());
    }
    return;
  }
  const unsigned which = debug_register(cpu, number);
  check_debug_access(cpu);
  if (to) {
    write_register(cpu, general, read_debug(cpu, which));
  } else {
    write_debug(cpu, which, source());
  }
}

const Group kControlGroup{"control and debug registers", "Control", kRows};

}  // namespace vm_platform::soft
