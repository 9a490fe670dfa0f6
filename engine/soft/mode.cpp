#include "engine/soft/mode.hpp"

namespace vm_platform::soft {
namespace {

bool is_flat(const Segment& segment) {
  // Expand-down segments are never flat: their valid offsets lie above the limit.
  const bool data_expand_down = (segment.attributes & 0x0c) == 0x04;
  return segment.base == 0 && segment.limit == 0xffffffff && (segment.attributes & Segment::kUnusable) == 0 &&
         !data_expand_down;
}

/// Data may be read and written, code may be read, as a flat user land has it.
bool is_flat_data(const Segment& segment) { return is_flat(segment) && (segment.attributes & 0x0a) == 0x02; }

}  // namespace

Mode current_mode(const Cpu& cpu) {
  Mode mode;
  const Segment& cs = cpu.segments[kCs];
  if (cpu.in_64bit()) {
    mode.code = CodeSize::Bits64;
    mode.stack_bytes = 8;
    mode.flat = true;
  } else {
    mode.code = (cs.attributes & Segment::kBig) != 0 ? CodeSize::Bits32 : CodeSize::Bits16;
    mode.stack_bytes = (cpu.segments[kSs].attributes & Segment::kBig) != 0 ? 4 : 2;
    mode.flat = mode.code == CodeSize::Bits32 && mode.stack_bytes == 4 && !cpu.real_mode() && !cpu.virtual_8086() &&
                is_flat(cs) && is_flat_data(cpu.segments[kSs]) && is_flat_data(cpu.segments[kDs]) &&
                is_flat_data(cpu.segments[kEs]);
  }
  const bool alignment_checks =
      cpu.cpl == 3 && (cpu.cr0 & cr0::kAlignmentMask) != 0 && (cpu.system_flags & rflags::kAlignmentCheck) != 0;
  mode.checked = !mode.flat || (cpu.system_flags & rflags::kTrap) != 0 || (cpu.dr7 & 0xff) != 0 || alignment_checks;
  if (cpu.cpl == 3) {
    mode.tlb = TlbIndex::User;
  } else if ((cpu.cr4 & cr4::kSmap) != 0 && (cpu.system_flags & rflags::kAlignmentCheck) == 0) {
    mode.tlb = TlbIndex::Supervisor;
  } else {
    mode.tlb = TlbIndex::SupervisorOpen;
  }
  mode.x87 = (cpu.cr0 & (cr0::kEmulation | cr0::kTaskSwitched)) == 0;
  mode.sse = mode.x87 && (cpu.cr4 & cr4::kOsfxsr) != 0;
  mode.vex = !cpu.real_mode() && !cpu.virtual_8086();
  mode.avx = mode.vex && (cpu.cr0 & cr0::kTaskSwitched) == 0 && (cpu.cr4 & cr4::kOsxsave) != 0 && (cpu.xcr0 & 6) == 6;
  mode.kernel = cpu.cpl == 0;
  mode.rdtsc = cpu.cpl == 0 || (cpu.cr4 & cr4::kTsd) == 0;
  return mode;
}

}  // namespace vm_platform::soft
