// Delivery of exceptions and interrupts (Intel SDM vol. 3, chapter 6).
#include "engine/soft/semantics/delivery.hpp"

#include "engine/soft/semantics/operands.hpp"
#include "engine/soft/semantics/task.hpp"

namespace vm_platform::soft {

void PendingStack::push(std::uint64_t value, std::size_t size) {
  const std::uint64_t next = low_bits(pointer_ - size, bits_);
  const std::uint64_t linear =
      linear_in_segment(cpu_, segment_, next, size, bits_ == 64, Vector::StackFault, fault_code_);
  check_write(cpu_, linear, size, rights_);
  words_[count_++] = {linear, value, size};
  pointer_ = next;
}

void PendingStack::write() {
  for (std::size_t i = 0; i < count_; ++i) {
    write_linear(cpu_, words_[i].linear, &words_[i].value, words_[i].size, rights_);
  }
}

InnerStack read_inner_stack(Cpu& cpu, unsigned cpl, std::uint32_t ext) {
  const bool wide = (cpu.tr.type() & 8) != 0;
  const std::uint64_t offset = wide ? 4 + 8 * cpl : 2 + 4 * cpl;
  if (offset + (wide ? 5 : 3) > cpu.tr.limit) raise(Vector::InvalidTss, selector_error(cpu.tr.selector, ext));
  const std::uint64_t address = cpu.tr.base + offset;
  if (wide) {
    return {read_linear<std::uint16_t>(cpu, address + 4, Rights::Supervisor),
            read_linear<std::uint32_t>(cpu, address, Rights::Supervisor)};
  }
  return {read_linear<std::uint16_t>(cpu, address + 2, Rights::Supervisor),
          read_linear<std::uint16_t>(cpu, address, Rights::Supervisor)};
}

std::uint64_t read_long_stack(Cpu& cpu, unsigned slot, std::uint32_t ext) {
  const std::uint64_t offset = 4 + 8 * slot;
  if (offset + 7 > cpu.tr.limit) raise(Vector::InvalidTss, selector_error(cpu.tr.selector, ext));
  const auto pointer = read_linear<std::uint64_t>(cpu, cpu.tr.base + offset, Rights::Supervisor);
  if (!is_canonical(cpu, pointer)) raise(Vector::StackFault, ext);
  return pointer;
}

namespace {

/// What every handler starts without; interrupt gates clear IF too.
void enter_handler_flags(Cpu& cpu, bool interrupt_gate) {
  cpu.system_flags &= ~(rflags::kTrap | rflags::kNestedTask | rflags::kResume | rflags::kVirtual8086 |
                        (interrupt_gate ? rflags::kInterrupt : 0));
}

std::uint64_t pushed_flags(const Cpu& cpu, const Event& event) {
  return cpu.flags() | (event.set_resume_flag ? rflags::kResume : 0);
}

/// Long mode's frame. Pushes go from the highest word downward, and so does the address a fault reports.
void write_frame(Cpu& cpu, std::uint64_t rsp, const std::uint64_t* frame, std::size_t count, Rights rights) {
  const std::uint64_t top = rsp + (count - 1) * 8;
  check_write(cpu, top, 8, rights);
  const std::uint64_t boundary = top & ~(kPageSize - 1);
  if (rsp < boundary) check_write(cpu, boundary - 8, 8, rights);
  write_linear(cpu, rsp, frame, count * 8, rights);
}

void deliver_long(Cpu& cpu, const Event& event) {
  const std::uint32_t ext = event.software ? 0 : 1;
  const std::uint32_t idt_error = event.vector * 8U + 2 + ext;
  const std::uint64_t gate_offset = std::uint64_t{event.vector} * 16;
  if (gate_offset + 15 > cpu.idtr.limit) raise(Vector::GeneralProtection, idt_error);
  const auto gate = read_linear<Descriptor>(cpu, cpu.idtr.base + gate_offset, Rights::Supervisor);
  if (!gate.is_system() || (gate.type() != system_type::kInterruptGate && gate.type() != system_type::kTrapGate)) {
    raise(Vector::GeneralProtection, idt_error);
  }
  if (event.software && gate.dpl() < cpu.cpl) raise(Vector::GeneralProtection, idt_error);
  if (!gate.present()) raise(Vector::SegmentNotPresent, idt_error);

  const std::uint16_t selector = gate.gate_selector();
  if (is_null(selector)) raise(Vector::GeneralProtection, ext);
  Descriptor code = fetch_descriptor(cpu, selector, Vector::GeneralProtection, ext);
  if (!code.is_code() || code.dpl() > cpu.cpl || !code.is_long() || code.is_big()) {
    raise(Vector::GeneralProtection, selector_error(selector, ext));
  }
  if (!code.present()) raise(Vector::SegmentNotPresent, selector_error(selector, ext));
  const std::uint64_t target = gate.gate_offset();
  const unsigned new_cpl = code.is_conforming() ? cpu.cpl : code.dpl();
  const unsigned ist = static_cast<unsigned>(gate.raw >> 32) & 7;

  std::uint64_t rsp = cpu.gpr[kRsp];
  if (ist != 0) {
    rsp = read_long_stack(cpu, ist + 3, ext);
  } else if (new_cpl < cpu.cpl) {
    rsp = read_long_stack(cpu, new_cpl, ext);
  }
  rsp &= ~std::uint64_t{15};
  std::uint64_t frame[6];
  std::size_t count = 0;
  if (event.error_code) frame[count++] = *event.error_code;
  frame[count++] = event.return_rip;
  frame[count++] = cpu.segments[kCs].selector;
  frame[count++] = pushed_flags(cpu, event);
  frame[count++] = cpu.gpr[kRsp];
  frame[count++] = cpu.segments[kSs].selector;
  rsp -= count * 8;
  if (!is_canonical(cpu, rsp) || !is_canonical(cpu, rsp + count * 8 - 1)) raise(Vector::StackFault, ext);
  if (!is_canonical(cpu, target)) raise(Vector::GeneralProtection, ext);
  mark_accessed(cpu, selector, code);
  write_frame(cpu, rsp, frame, count, new_cpl == 3 ? Rights::User : Rights::Supervisor);

  if (new_cpl != cpu.cpl) {
    cpu.segments[kSs] = null_segment(static_cast<std::uint16_t>(new_cpl));
    cpu.cpl = static_cast<std::uint8_t>(new_cpl);
  }
  cpu.segments[kCs] = make_segment(static_cast<std::uint16_t>((selector & 0xfffc) | new_cpl), code);
  cpu.gpr[kRsp] = rsp;
  cpu.rip = target;
  enter_handler_flags(cpu, gate.type() == system_type::kInterruptGate);
}

void deliver_protected(Cpu& cpu, const Event& event) {
  const std::uint32_t ext = event.software ? 0 : 1;
  const std::uint32_t idt_error = event.vector * 8U + 2 + ext;
  if (event.vector * 8U + 7 > cpu.idtr.limit) raise(Vector::GeneralProtection, idt_error);
  const Descriptor gate{read_linear<std::uint64_t>(cpu, low_bits(cpu.idtr.base + std::uint64_t{event.vector} * 8, 32),
                                                   Rights::Supervisor),
                        0};
  const unsigned type = gate.is_system() ? gate.type() : 0;
  const bool is_task = type == system_type::kTaskGate;
  const bool is_interrupt = (type & 7) == system_type::kInterruptGate16;
  const bool is_trap = (type & 7) == system_type::kTrapGate16;
  if (!is_task && !is_interrupt && !is_trap) raise(Vector::GeneralProtection, idt_error);
  if (event.software && gate.dpl() < cpu.cpl) raise(Vector::GeneralProtection, idt_error);
  if (!gate.present()) raise(Vector::SegmentNotPresent, idt_error);
  if (is_task) {
    switch_task(cpu, gate.gate_selector(), TaskSwitch::Interrupt, event.return_rip, ext, event.error_code);
    return;
  }

  const std::uint16_t selector = gate.gate_selector();
  if (is_null(selector)) raise(Vector::GeneralProtection, ext);
  Descriptor code = fetch_descriptor(cpu, selector, Vector::GeneralProtection, ext);
  if (!code.is_code() || code.dpl() > cpu.cpl) raise(Vector::GeneralProtection, selector_error(selector, ext));
  if (!code.present()) raise(Vector::SegmentNotPresent, selector_error(selector, ext));
  const bool inner = !code.is_conforming() && code.dpl() < cpu.cpl;
  const bool from_v86 = cpu.virtual_8086();
  if (from_v86 && (!inner || code.dpl() != 0)) raise(Vector::GeneralProtection, selector_error(selector, ext));

  const bool wide = (type & 8) != 0;
  const std::size_t size = wide ? 4 : 2;
  const std::uint64_t target = low_bits(gate.gate_offset(), wide ? 32 : 16);
  const unsigned new_cpl = inner ? code.dpl() : cpu.cpl;
  Segment stack_segment = cpu.segments[kSs];
  std::uint64_t pointer = cpu.gpr[kRsp];
  if (inner) {
    const InnerStack stack = read_inner_stack(cpu, new_cpl, ext);
    stack_segment = checked_stack_segment(cpu, stack.selector, new_cpl, Vector::InvalidTss, ext);
    pointer = stack.pointer;
  }
  PendingStack stack(cpu, stack_segment, pointer, (stack_segment.attributes & Segment::kBig) != 0 ? 32 : 16,
                     new_cpl == 3 ? Rights::User : Rights::Supervisor,
                     inner ? selector_error(stack_segment.selector, ext) : ext);
  if (from_v86) {
    for (const SegmentRegister which : {kGs, kFs, kDs, kEs}) stack.push(cpu.segments[which].selector, size);
  }
  if (inner) {
    stack.push(cpu.segments[kSs].selector, size);
    stack.push(cpu.gpr[kRsp], size);
  }
  stack.push(pushed_flags(cpu, event), size);
  stack.push(cpu.segments[kCs].selector, size);
  stack.push(event.return_rip, size);
  if (event.error_code) stack.push(*event.error_code, size);
  mark_accessed(cpu, selector, code);
  const Segment code_segment = make_segment(static_cast<std::uint16_t>((selector & 0xfffc) | new_cpl), code);
  if (target > code_segment.limit) raise(Vector::GeneralProtection, ext);
  stack.write();

  if (from_v86) {
    for (const SegmentRegister which : {kGs, kFs, kDs, kEs}) cpu.segments[which] = null_segment(0);
  }
  if (inner) {
    cpu.segments[kSs] = stack_segment;
    cpu.cpl = static_cast<std::uint8_t>(new_cpl);
  }
  write_gpr(cpu, kRsp, stack.bits(), stack.pointer());
  cpu.segments[kCs] = code_segment;
  cpu.rip = target;
  enter_handler_flags(cpu, is_interrupt);
}

/// The vector table of real mode; also how a real-mode fault arrives, without error code.
void deliver_real(Cpu& cpu, const Event& event) {
  if (event.vector * 4U + 3 > cpu.idtr.limit) raise(Vector::GeneralProtection, event.vector * 8U + 2);
  const auto entry = read_linear<std::uint32_t>(cpu, low_bits(cpu.idtr.base + std::uint64_t{event.vector} * 4, 32),
                                                Rights::Supervisor);
  PendingStack stack(cpu, cpu.segments[kSs], cpu.gpr[kRsp], stack_bits(cpu), Rights::Current, 0);
  stack.push(cpu.flags(), 2);
  stack.push(cpu.segments[kCs].selector, 2);
  stack.push(event.return_rip, 2);
  const std::uint64_t target = entry & 0xffff;
  if (target > cpu.segments[kCs].limit) raise(Vector::GeneralProtection, 0);
  stack.write();
  write_gpr(cpu, kRsp, stack.bits(), stack.pointer());
  cpu.segments[kCs].selector = static_cast<std::uint16_t>(entry >> 16);
  cpu.segments[kCs].base = std::uint64_t{entry >> 16} << 4;
  cpu.rip = target;
  cpu.system_flags &= ~(rflags::kInterrupt | rflags::kTrap | rflags::kAlignmentCheck | rflags::kResume);
}

bool is_contributory(Vector vector) {
  return vector == Vector::DivideError || (vector >= Vector::InvalidTss && vector <= Vector::GeneralProtection);
}

/// What a fault during the delivery of another becomes (Intel SDM vol. 3, table 6-5).
GuestFault escalate(const GuestFault& first, const GuestFault& second) {
  const bool severe = is_contributory(second.vector) || second.vector == Vector::PageFault;
  if (first.vector == Vector::DoubleFault && severe) throw TripleFault{};
  const bool doubled =
      is_contributory(first.vector) ? is_contributory(second.vector) : first.vector == Vector::PageFault && severe;
  return doubled ? GuestFault{Vector::DoubleFault, 0} : second;
}

/// Faults restart their instruction; the others are traps or aborts.
bool is_fault(Vector vector) {
  switch (vector) {
    case Vector::Debug:
    case Vector::Nmi:
    case Vector::Breakpoint:
    case Vector::Overflow:
    case Vector::DoubleFault:
    case Vector::MachineCheck: return false;
    default: return true;
  }
}

}  // namespace

void deliver_event(Cpu& cpu, const Event& event) {
  if (cpu.long_mode()) {
    deliver_long(cpu, event);
  } else if (cpu.real_mode()) {
    deliver_real(cpu, event);
  } else {
    deliver_protected(cpu, event);
  }
  cpu.interrupt_shadow = false;
  cpu.halted = false;
}

void deliver_exception(Cpu& cpu, GuestFault fault) {
  // A guest can make the delivery of one benign exception raise the next for ever, by task gates for one. A CPU hangs
  // then, and can be reset; what is given up here is far beyond any chain that ends.
  constexpr unsigned kRounds = 32;
  for (unsigned round = 0;; ++round) {
    if (round == kRounds) throw TripleFault{};
    if (fault.vector == Vector::PageFault) cpu.cr2 = fault.address;
    try {
      Event event{static_cast<std::uint8_t>(fault.vector), false, fault.error_code, cpu.rip, is_fault(fault.vector)};
      deliver_event(cpu, event);
    } catch (const GuestFault& second) {
      if (second.vector == Vector::PageFault) cpu.cr2 = second.address;
      fault = escalate(fault, second);
      continue;
    }
    if (fault.vector == Vector::Debug) {
      cpu.dr6 = (cpu.dr6 & ~std::uint64_t{15}) | fault.dr6_bits;
      cpu.dr7 &= ~(std::uint64_t{1} << 13);  // GD
    }
    return;
  }
}

void deliver_interrupt(Cpu& cpu, std::uint8_t vector, bool nmi) {
  try {
    deliver_event(cpu, {vector, false, {}, cpu.rip});
    if (nmi) cpu.nmi_masked = true;
  } catch (const GuestFault& fault) {
    if (nmi) cpu.nmi_masked = true;
    deliver_exception(cpu, fault);
  }
}

}  // namespace vm_platform::soft
