#include "engine/soft/semantics/task.hpp"

#include <cstring>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/control.hpp"
#include "engine/soft/semantics/delivery.hpp"
#include "engine/soft/semantics/flags.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

/// 32-bit TSS (Intel SDM vol. 3, figure 7-2).
struct Tss32 {
  std::uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
  std::uint32_t gpr[8];       // EAX ECX EDX EBX ESP EBP ESI EDI
  std::uint32_t segments[6];  // ES CS SS DS FS GS
  std::uint32_t ldt;
  std::uint16_t trap, io_map;
};
static_assert(sizeof(Tss32) == 104);

/// 16-bit TSS (figure 7-10).
struct Tss16 {
  std::uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags;
  std::uint16_t gpr[8];
  std::uint16_t segments[4];
  std::uint16_t ldt;
};
static_assert(sizeof(Tss16) == 44);

constexpr std::size_t kSaved32 = offsetof(Tss32, eip), kSavedSize32 = offsetof(Tss32, ldt) - kSaved32;
constexpr std::size_t kSaved16 = offsetof(Tss16, ip), kSavedSize16 = offsetof(Tss16, ldt) - kSaved16;

bool is_wide(unsigned type) { return (type & 8) != 0; }

/// What the old task resumes with, into its TSS.
void save_task(Cpu& cpu, std::uint64_t rip, std::uint64_t flags) {
  if (is_wide(cpu.tr.type())) {
    Tss32 tss{};
    tss.eip = static_cast<std::uint32_t>(rip);
    tss.eflags = static_cast<std::uint32_t>(flags);
    for (unsigned i = 0; i < 8; ++i) tss.gpr[i] = static_cast<std::uint32_t>(cpu.gpr[i]);
    for (unsigned i = 0; i < 6; ++i) tss.segments[i] = cpu.segments[i].selector;
    write_linear(cpu, cpu.tr.base + kSaved32, &tss.eip, kSavedSize32, Rights::Supervisor);
  } else {
    Tss16 tss{};
    tss.ip = static_cast<std::uint16_t>(rip);
    tss.flags = static_cast<std::uint16_t>(flags);
    for (unsigned i = 0; i < 8; ++i) tss.gpr[i] = static_cast<std::uint16_t>(cpu.gpr[i]);
    for (unsigned i = 0; i < 4; ++i) tss.segments[i] = cpu.segments[i].selector;
    write_linear(cpu, cpu.tr.base + kSaved16, &tss.ip, kSavedSize16, Rights::Supervisor);
  }
}

Tss32 load_tss(Cpu& cpu, std::uint64_t base, bool wide) {
  Tss32 tss{};
  if (wide) {
    read_linear(cpu, base, &tss, sizeof tss, Rights::Supervisor);
    return tss;
  }
  Tss16 narrow{};
  read_linear(cpu, base, &narrow, sizeof narrow, Rights::Supervisor);
  tss.cr3 = static_cast<std::uint32_t>(cpu.cr3);
  tss.eip = narrow.ip;
  tss.eflags = narrow.flags;
  for (unsigned i = 0; i < 8; ++i) tss.gpr[i] = 0xffff0000U | narrow.gpr[i];
  for (unsigned i = 0; i < 4; ++i) tss.segments[i] = narrow.segments[i];
  tss.ldt = narrow.ldt;
  return tss;
}

/// Where the type of a task's descriptor stands. The current task's may lie beyond a GDT that was made smaller.
std::uint64_t busy_byte(Cpu& cpu, std::uint16_t selector, std::uint32_t ext) {
  const auto address = descriptor_address(cpu, selector);
  if (!address) raise(Vector::InvalidTss, selector_error(selector, ext));
  return *address + 5;
}

void set_busy(Cpu& cpu, std::uint16_t selector, bool busy) {
  const std::uint64_t address = busy_byte(cpu, selector, 0);
  const auto type = read_linear<std::uint8_t>(cpu, address, Rights::Supervisor);
  write_linear<std::uint8_t>(cpu, address, static_cast<std::uint8_t>(busy ? type | 2 : type & ~2), Rights::Supervisor);
}

/// LDT and segments of the new task. Faults belong to it already: its state is loaded. What is not loaded yet then
/// keeps what the old task had, under the new selectors, so that the fault can be delivered; the stack comes first.
void load_task_segments(Cpu& cpu, const Tss32& tss, std::uint32_t ext) {
  const auto ldt = static_cast<std::uint16_t>(tss.ldt);
  const auto selector = [&](SegmentRegister which) { return static_cast<std::uint16_t>(tss.segments[which]); };
  cpu.ldtr = null_segment(ldt);
  for (unsigned i = 0; i < 6; ++i) cpu.segments[i].selector = static_cast<std::uint16_t>(tss.segments[i]);
  const std::uint16_t cs = selector(kCs);
  cpu.cpl = static_cast<std::uint8_t>(cpu.virtual_8086() ? 3 : rpl_of(cs));
  if (!is_null(ldt)) {
    if ((ldt & 4) != 0) raise(Vector::InvalidTss, selector_error(ldt, ext));
    const Descriptor descriptor = fetch_descriptor(cpu, ldt, Vector::InvalidTss, ext);
    if (!descriptor.is_system() || descriptor.type() != system_type::kLdt || !descriptor.present()) {
      raise(Vector::InvalidTss, selector_error(ldt, ext));
    }
    cpu.ldtr = make_segment(ldt, descriptor);
  }
  if (cpu.virtual_8086()) {
    for (unsigned i = 0; i < 6; ++i) cpu.segments[i] = virtual8086_segment(static_cast<std::uint16_t>(tss.segments[i]));
    return;
  }
  cpu.segments[kSs] = checked_stack_segment(cpu, selector(kSs), cpu.cpl, Vector::InvalidTss, ext);
  for (const SegmentRegister which : {kEs, kDs, kFs, kGs}) {
    const std::uint16_t value = selector(which);
    cpu.segments[which] = null_segment(value);
    if (is_null(value)) continue;
    Descriptor data = fetch_descriptor(cpu, value, Vector::InvalidTss, ext);
    if (!data.is_readable() || (!data.is_conforming() && (rpl_of(value) > data.dpl() || cpu.cpl > data.dpl()))) {
      raise(Vector::InvalidTss, selector_error(value, ext));
    }
    if (!data.present()) raise(Vector::SegmentNotPresent, selector_error(value, ext));
    mark_accessed(cpu, value, data);
    cpu.segments[which] = make_segment(value, data);
  }
  if (is_null(cs)) raise(Vector::InvalidTss, ext);
  Descriptor code = fetch_descriptor(cpu, cs, Vector::InvalidTss, ext);
  if (!code.is_code() || (code.is_conforming() ? code.dpl() > cpu.cpl : code.dpl() != cpu.cpl)) {
    raise(Vector::InvalidTss, selector_error(cs, ext));
  }
  if (!code.present()) raise(Vector::SegmentNotPresent, selector_error(cs, ext));
  mark_accessed(cpu, cs, code);
  cpu.segments[kCs] = make_segment(cs, code);
  if (cpu.rip > cpu.segments[kCs].limit) raise(Vector::GeneralProtection, ext);
}

}  // namespace

void switch_task(Cpu& cpu, std::uint16_t selector, TaskSwitch reason, std::uint64_t return_rip, std::uint32_t ext,
                 std::optional<std::uint32_t> error_code) {
  const Vector bad = reason == TaskSwitch::Return ? Vector::InvalidTss : Vector::GeneralProtection;
  if (is_null(selector) || (selector & 4) != 0) raise(bad, selector_error(selector, ext));
  const Descriptor descriptor = fetch_descriptor(cpu, selector, bad, ext);
  const unsigned type = descriptor.type();
  const unsigned expected = reason == TaskSwitch::Return ? system_type::kTssBusy : system_type::kTss;
  if (!descriptor.is_system() || (type | 8) != expected) raise(bad, selector_error(selector, ext));
  if (!descriptor.present()) raise(Vector::SegmentNotPresent, selector_error(selector, ext));
  const bool wide = is_wide(type);
  if (descriptor.limit() < (wide ? 0x67U : 0x2bU)) raise(Vector::InvalidTss, selector_error(selector, ext));

  // Everything that can fault in the old task comes first.
  const Tss32 tss = load_tss(cpu, descriptor.base(), wide);
  const bool nests = reason == TaskSwitch::Call || reason == TaskSwitch::Interrupt;
  const bool was_wide = is_wide(cpu.tr.type());
  check_write(cpu, cpu.tr.base + (was_wide ? kSaved32 : kSaved16), was_wide ? kSavedSize32 : kSavedSize16,
              Rights::Supervisor);
  if (nests) check_write(cpu, descriptor.base(), 2, Rights::Supervisor);
  if (!nests) check_write(cpu, busy_byte(cpu, cpu.tr.selector, ext), 1, Rights::Supervisor);
  if (reason != TaskSwitch::Return) check_write(cpu, busy_byte(cpu, selector, ext), 1, Rights::Supervisor);
  const std::uint64_t old_flags = reason == TaskSwitch::Return ? cpu.flags() & ~rflags::kNestedTask : cpu.flags();
  save_task(cpu, return_rip, old_flags);
  if (!nests) set_busy(cpu, cpu.tr.selector, false);
  if (nests) write_linear<std::uint16_t>(cpu, descriptor.base(), cpu.tr.selector, Rights::Supervisor);
  if (reason != TaskSwitch::Return) set_busy(cpu, selector, true);

  cpu.tr = make_segment(selector, descriptor);
  cpu.tr.attributes |= 2;
  cpu.cr0 |= cr0::kTaskSwitched;
  if (wide && (cpu.cr0 & cr0::kPaging) != 0) {
    load_pdptes(cpu, cpu.cr0, tss.cr3, cpu.cr4);
    cpu.cr3 = tss.cr3;
    address_space_changed(cpu, false);
  }
  cpu.rip = tss.eip;
  load_flags(cpu, tss.eflags | (nests ? rflags::kNestedTask : 0), 4, kLoadableFlags32);
  for (unsigned i = 0; i < 8; ++i) cpu.gpr[i] = tss.gpr[i];
  cpu.dr7 &= ~std::uint64_t{0x155};  // local breakpoints end with their task
  load_task_segments(cpu, tss, ext);
  if (error_code) {
    Stack stack(cpu);
    stack.push(*error_code, wide ? 4 : 2);
    stack.commit();
  }
  if (wide && (tss.trap & 1) != 0) throw GuestFault{Vector::Debug, {}, 0, std::uint64_t{1} << 15};  // BT
}

}  // namespace vm_platform::soft
