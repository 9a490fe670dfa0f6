#include "engine/soft/semantics/descriptors.hpp"

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {
namespace {

bool within_limit(const Segment& segment, std::uint64_t offset, std::size_t size) {
  if (size == 0) return true;
  const std::uint64_t last = offset + size - 1;
  const bool expands_down =
      (segment.attributes & (Segment::kCodeOrData | 0xc)) == (Segment::kCodeOrData | 0x4);  // data, type bit 2
  if (!expands_down) return last <= segment.limit && last >= offset;
  const std::uint64_t top = (segment.attributes & Segment::kBig) != 0 ? 0xffffffff : 0xffff;
  return offset > segment.limit && last <= top && last >= offset;
}

}  // namespace

std::optional<std::uint64_t> descriptor_address(const Cpu& cpu, std::uint16_t selector, std::size_t size) {
  const bool local = (selector & 4) != 0;
  if (local && (cpu.ldtr.attributes & Segment::kUnusable) != 0) return std::nullopt;
  const std::uint64_t base = local ? cpu.ldtr.base : cpu.gdtr.base;
  const std::uint64_t limit = local ? cpu.ldtr.limit : cpu.gdtr.limit;
  const std::uint64_t offset = selector & 0xfff8U;
  if (offset + size - 1 > limit) return std::nullopt;
  return cpu.long_mode() ? base + offset : low_bits(base + offset, 32);
}

Descriptor fetch_descriptor(Cpu& cpu, std::uint16_t selector, Vector vector, std::uint32_t ext) {
  const auto address = descriptor_address(cpu, selector);
  if (!address) raise(vector, selector_error(selector, ext));
  return {read_linear<std::uint64_t>(cpu, *address, Rights::Supervisor), 0};
}

Descriptor fetch_system_descriptor(Cpu& cpu, std::uint16_t selector, Vector vector, std::uint32_t ext) {
  Descriptor descriptor = fetch_descriptor(cpu, selector, vector, ext);
  if (cpu.long_mode() && descriptor.is_system()) {
    const auto address = descriptor_address(cpu, selector, 16);
    if (!address) raise(vector, selector_error(selector, ext));
    descriptor.upper = read_linear<std::uint64_t>(cpu, *address + 8, Rights::Supervisor);
    if ((descriptor.upper >> 40 & 0x1f) != 0) raise(vector, selector_error(selector, ext));
    descriptor.upper &= 0xffffffff;
  }
  return descriptor;
}

void mark_accessed(Cpu& cpu, std::uint16_t selector, Descriptor& descriptor) {
  if (descriptor.accessed()) return;
  descriptor.raw |= std::uint64_t{1} << 40;
  const auto address = descriptor_address(cpu, selector);
  if (!address) return;  // it was read from there
  write_linear<std::uint8_t>(cpu, *address + 5, static_cast<std::uint8_t>(descriptor.raw >> 40), Rights::Supervisor);
}

Segment make_segment(std::uint16_t selector, const Descriptor& descriptor) {
  return {descriptor.base(), descriptor.limit(), selector, descriptor.attributes()};
}

Segment null_segment(std::uint16_t selector) {
  // A null SS is that of CPL 0 to 2, and the DPL of SS is where a saved state keeps the CPL.
  return {0, 0, selector, static_cast<std::uint16_t>(Segment::kUnusable | rpl_of(selector) << 5)};
}

Segment virtual8086_segment(std::uint16_t selector) {
  return {std::uint64_t{selector} << 4, 0xffff, selector,
          Segment::kPresent | Segment::kDplMask | Segment::kCodeOrData | 3};
}

Segment checked_stack_segment(Cpu& cpu, std::uint16_t selector, unsigned cpl, Vector bad, std::uint32_t ext) {
  if (is_null(selector)) raise(bad, ext);
  if (rpl_of(selector) != cpl) raise(bad, selector_error(selector, ext));
  Descriptor descriptor = fetch_descriptor(cpu, selector, bad, ext);
  if (!descriptor.is_writable_data() || descriptor.dpl() != cpl) raise(bad, selector_error(selector, ext));
  if (!descriptor.present()) raise(Vector::StackFault, selector_error(selector, ext));
  mark_accessed(cpu, selector, descriptor);
  return make_segment(selector, descriptor);
}

void load_segment(Cpu& cpu, SegmentRegister which, std::uint16_t selector) {
  if (cpu.virtual_8086()) {
    cpu.segments[which] = virtual8086_segment(selector);
    return;
  }
  if (cpu.real_mode()) {  // the limit and the attributes stay what they were ("unreal" mode)
    cpu.segments[which].selector = selector;
    cpu.segments[which].base = std::uint64_t{selector} << 4;
    cpu.segments[which].attributes &= static_cast<std::uint16_t>(~Segment::kUnusable);
    return;
  }
  if (which == kSs) {
    if (is_null(selector)) {
      if (!cpu.in_64bit() || cpu.cpl == 3 || rpl_of(selector) != cpu.cpl) raise(Vector::GeneralProtection, 0);
      cpu.segments[kSs] = null_segment(selector);
      return;
    }
    cpu.segments[kSs] = checked_stack_segment(cpu, selector, cpu.cpl, Vector::GeneralProtection, 0);
    return;
  }
  if (is_null(selector)) {
    cpu.segments[which] = null_segment(selector);
    return;
  }
  Descriptor descriptor = fetch_descriptor(cpu, selector, Vector::GeneralProtection);
  if (!descriptor.is_readable()) raise(Vector::GeneralProtection, selector_error(selector));
  if (!descriptor.is_conforming() && (rpl_of(selector) > descriptor.dpl() || cpu.cpl > descriptor.dpl())) {
    raise(Vector::GeneralProtection, selector_error(selector));
  }
  if (!descriptor.present()) raise(Vector::SegmentNotPresent, selector_error(selector));
  mark_accessed(cpu, selector, descriptor);
  cpu.segments[which] = make_segment(selector, descriptor);
}

void drop_inaccessible_segments(Cpu& cpu, unsigned new_cpl) {
  for (const SegmentRegister which : {kEs, kDs, kFs, kGs}) {
    const Segment& segment = cpu.segments[which];
    if ((segment.attributes & Segment::kUnusable) != 0) continue;
    const bool conforming = (segment.attributes & (Segment::kCodeOrData | 0xc)) == (Segment::kCodeOrData | 0xc);
    if (!conforming && segment.dpl() < new_cpl) cpu.segments[which] = null_segment(0);
  }
}

void check_code_offset(const Cpu& cpu, const Segment& code, std::uint64_t offset, std::uint32_t ext) {
  const bool is_64bit = cpu.long_mode() && (code.attributes & Segment::kLong) != 0;
  if (is_64bit ? !is_canonical(cpu, offset) : offset > code.limit) raise(Vector::GeneralProtection, ext);
}

std::uint64_t linear_in_segment(const Cpu& cpu, const Segment& segment, std::uint64_t offset, std::size_t size,
                                bool is_64bit, Vector vector, std::uint32_t code) {
  if (is_64bit) {
    if (!is_canonical(cpu, offset) || !is_canonical(cpu, offset + size - 1)) raise(vector, code);
    return offset;
  }
  if (!within_limit(segment, offset, size)) raise(vector, code);
  return low_bits(segment.base + offset, 32);
}

std::uint64_t linear_address(Cpu& cpu, SegmentRegister segment, std::uint64_t offset, std::size_t size, bool write) {
  const Segment& hidden = cpu.segments[segment];
  const Vector vector = segment == kSs ? Vector::StackFault : Vector::GeneralProtection;
  if (cpu.in_64bit()) {
    const std::uint64_t linear = segment >= kFs ? hidden.base + offset : offset;
    if (!is_canonical(cpu, linear) || !is_canonical(cpu, linear + size - (size != 0))) raise(vector, 0);
    return linear;
  }
  if (!cpu.real_mode() && !cpu.virtual_8086()) {
    if ((hidden.attributes & Segment::kUnusable) != 0) raise(vector, 0);
    const bool code = (hidden.attributes & 8) != 0;
    const bool bit1 = (hidden.attributes & 2) != 0;  // writable data, readable code
    if (write ? code || !bit1 : code && !bit1) raise(vector, 0);
  }
  return linear_in_segment(cpu, hidden, offset, size, false, vector, 0);
}

}  // namespace vm_platform::soft
