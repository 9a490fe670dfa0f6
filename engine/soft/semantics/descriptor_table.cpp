// GDT, IDT, LDT and TSS registers, and the instructions that look at descriptors.
#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/descriptors.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

void check_umip(const Cpu& cpu) {
  if ((cpu.cr4 & cr4::kUmip) != 0 && cpu.cpl != 0) raise(Vector::GeneralProtection, 0);
}
/// LLDT, LTR, LAR … exist in protected mode only.
void require_protected(const Cpu& cpu) {
  if (cpu.real_mode() || cpu.virtual_8086()) raise(Vector::InvalidOpcode);
}

void store_table(Cpu& cpu, const Instruction& instruction) {
  check_umip(cpu);
  const DescriptorTable& table = instruction.info.mnemonic == ZYDIS_MNEMONIC_SGDT ? cpu.gdtr : cpu.idtr;
  const std::size_t base_size = cpu.in_64bit() ? 8 : 4;
  std::uint8_t bytes[10];
  bytes[0] = static_cast<std::uint8_t>(table.limit);
  bytes[1] = static_cast<std::uint8_t>(table.limit >> 8);
  for (std::size_t i = 0; i < base_size; ++i) bytes[2 + i] = static_cast<std::uint8_t>(table.base >> (8 * i));
  write_linear(cpu, operand_address(cpu, instruction, instruction.operands[0], base_size + 2, true), bytes,
               base_size + 2);
}

void load_table(Cpu& cpu, const Instruction& instruction) {
  require_cpl0(cpu);
  const std::size_t base_size = cpu.in_64bit() ? 8 : 4;
  std::uint8_t bytes[10];
  read_linear(cpu, operand_address(cpu, instruction, instruction.operands[0], base_size + 2, false), bytes,
              base_size + 2);
  DescriptorTable table;
  table.limit = static_cast<std::uint16_t>(bytes[0] | bytes[1] << 8);
  for (std::size_t i = 0; i < base_size; ++i) table.base |= std::uint64_t{bytes[2 + i]} << (8 * i);
  if (cpu.in_64bit()) {
    if (!is_canonical(cpu, table.base)) raise(Vector::GeneralProtection, 0);
  } else if (instruction.info.operand_width == 16) {
    table.base &= 0xffffff;
  }
  (instruction.info.mnemonic == ZYDIS_MNEMONIC_LGDT ? cpu.gdtr : cpu.idtr) = table;
}

void store_selector(Cpu& cpu, const Instruction& instruction) {
  require_protected(cpu);
  check_umip(cpu);
  const Segment& segment = instruction.info.mnemonic == ZYDIS_MNEMONIC_SLDT ? cpu.ldtr : cpu.tr;
  write_operand(cpu, instruction, 0, segment.selector);
}

void lldt(Cpu& cpu, const Instruction& instruction) {
  require_protected(cpu);
  require_cpl0(cpu);
  const auto selector = static_cast<std::uint16_t>(read_operand(cpu, instruction, 0, 2));
  if (is_null(selector)) {
    cpu.ldtr = null_segment(selector);
    return;
  }
  if ((selector & 4) != 0) raise(Vector::GeneralProtection, selector_error(selector));
  const Descriptor descriptor = fetch_system_descriptor(cpu, selector, Vector::GeneralProtection);
  if (!descriptor.is_system() || descriptor.type() != system_type::kLdt) {
    raise(Vector::GeneralProtection, selector_error(selector));
  }
  if (!descriptor.present()) raise(Vector::SegmentNotPresent, selector_error(selector));
  if (cpu.long_mode() && !is_canonical(cpu, descriptor.long_base()))
    raise(Vector::GeneralProtection, selector_error(selector));
  cpu.ldtr = make_segment(selector, descriptor);
  cpu.ldtr.base = descriptor.long_base();
}

void ltr(Cpu& cpu, const Instruction& instruction) {
  require_protected(cpu);
  require_cpl0(cpu);
  const auto selector = static_cast<std::uint16_t>(read_operand(cpu, instruction, 0, 2));
  if (is_null(selector)) raise(Vector::GeneralProtection, 0);
  if ((selector & 4) != 0) raise(Vector::GeneralProtection, selector_error(selector));
  Descriptor descriptor = fetch_system_descriptor(cpu, selector, Vector::GeneralProtection);
  const unsigned type = descriptor.type();
  const bool available = type == system_type::kTss || (type == system_type::kTss16 && !cpu.long_mode());
  if (!descriptor.is_system() || !available) raise(Vector::GeneralProtection, selector_error(selector));
  if (!descriptor.present()) raise(Vector::SegmentNotPresent, selector_error(selector));
  if (cpu.long_mode() && !is_canonical(cpu, descriptor.long_base()))
    raise(Vector::GeneralProtection, selector_error(selector));
  descriptor.raw |= std::uint64_t{2} << 40;  // busy
  if (const auto address = descriptor_address(cpu, selector))
    write_linear<std::uint8_t>(cpu, *address + 5, static_cast<std::uint8_t>(descriptor.raw >> 40), Rights::Supervisor);
  cpu.tr = make_segment(selector, descriptor);
  cpu.tr.base = descriptor.long_base();
}

void set_zero_flag(Cpu& cpu, bool value) {
  cpu.arithmetic_flags = (cpu.arithmetic_flags & ~rflags::kZero) | (value ? rflags::kZero : 0);
}

/// The descriptor LAR, LSL, VERR and VERW look at, or nothing where they must not.
std::optional<Descriptor> visible_descriptor(Cpu& cpu, std::uint16_t selector) {
  if (is_null(selector)) return std::nullopt;
  const auto address = descriptor_address(cpu, selector);
  if (!address) return std::nullopt;
  const Descriptor descriptor{read_linear<std::uint64_t>(cpu, *address, Rights::Supervisor), 0};
  if (!descriptor.is_conforming() && (descriptor.dpl() < cpu.cpl || descriptor.dpl() < rpl_of(selector))) {
    return std::nullopt;
  }
  return descriptor;
}

bool type_is_valid(const Cpu& cpu, const Descriptor& descriptor, bool with_limit) {
  if (!descriptor.is_system()) return true;
  std::uint32_t types = 1 << system_type::kLdt | 1 << system_type::kTss | 1 << system_type::kTssBusy;
  if (!with_limit) types |= 1 << system_type::kCallGate;
  if (!cpu.long_mode()) {
    types |= 1 << system_type::kTss16 | 1 << system_type::kTss16Busy;
    if (!with_limit) types |= 1 << system_type::kCallGate16 | 1 << system_type::kTaskGate;
  }
  return (types >> descriptor.type() & 1) != 0;
}

void lar_lsl(Cpu& cpu, const Instruction& instruction) {
  require_protected(cpu);
  const bool limit = instruction.info.mnemonic == ZYDIS_MNEMONIC_LSL;
  const auto selector = static_cast<std::uint16_t>(read_operand(cpu, instruction, 1, 2));
  const auto descriptor = visible_descriptor(cpu, selector);
  const bool good = descriptor && type_is_valid(cpu, *descriptor, limit);
  if (good) write_operand(cpu, instruction, 0, limit ? descriptor->limit() : (descriptor->raw >> 32) & 0x00ffff00);
  set_zero_flag(cpu, good);
}

void verify(Cpu& cpu, const Instruction& instruction) {
  require_protected(cpu);
  const auto selector = static_cast<std::uint16_t>(read_operand(cpu, instruction, 0, 2));
  const auto descriptor = visible_descriptor(cpu, selector);
  const bool write = instruction.info.mnemonic == ZYDIS_MNEMONIC_VERW;
  set_zero_flag(cpu, descriptor && (write ? descriptor->is_writable_data() : descriptor->is_readable()));
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_SGDT, store_table},    {ZYDIS_MNEMONIC_SIDT, store_table},
    {ZYDIS_MNEMONIC_LGDT, load_table},     {ZYDIS_MNEMONIC_LIDT, load_table},
    {ZYDIS_MNEMONIC_SLDT, store_selector}, {ZYDIS_MNEMONIC_STR, store_selector},
    {ZYDIS_MNEMONIC_LLDT, lldt},           {ZYDIS_MNEMONIC_LTR, ltr},
    {ZYDIS_MNEMONIC_LAR, lar_lsl},         {ZYDIS_MNEMONIC_LSL, lar_lsl},
    {ZYDIS_MNEMONIC_VERR, verify},         {ZYDIS_MNEMONIC_VERW, verify},
};

}  // namespace

const Group kDescriptorTableGroup{"descriptor tables", "DescriptorTables", kRows};

}  // namespace vm_platform::soft
