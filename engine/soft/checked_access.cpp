// Accesses of the checked path: all checks, the operand in the bounce buffer, and what was written there back into the
// guest's memory when the instruction has ended.
#include <cstring>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/operands.hpp"
#include "engine/soft/soft_cpu.hpp"
#include "engine/soft/translator.hpp"

namespace vm_platform::soft {

void SoftCpu::commit_writes() {
  const unsigned count = pending_count;
  pending_count = 0;
  for (unsigned i = 0; i < count; ++i) {
    const PendingWrite& write = pending_writes[i];
    write_linear(*this, write.linear, write.data, write.size);
  }
}

std::byte* vmp_soft_checked_access(CpuContext* context, std::uint64_t offset, std::uint32_t info) noexcept {
  SoftCpu& cpu = *static_cast<SoftCpu*>(context);
  const unsigned size = info & 0x7f, number = (info >> kInfoIndexShift) & 3;
  const auto segment = static_cast<SegmentRegister>((info >> kInfoSegmentShift) & 7);
  const bool write = (info & kInfoWrite) != 0;
  std::uint64_t linear = 0;
  try {
    linear = linear_address(cpu, segment, offset, size, write);
    const unsigned alignment = size == 10 ? 8 : size;  // SDM vol. 3, table 6-7
    const bool aligned = size > 10 || (linear & (alignment - 1)) == 0;
    if (!aligned && cpu.cpl == 3 && (cpu.cr0 & cr0::kAlignmentMask) != 0 &&
        (cpu.system_flags & rflags::kAlignmentCheck) != 0)
      raise(Vector::AlignmentCheck, 0);
    std::uint8_t* slot = cpu.bounce[number] + (linear & 63);
    if (write) check_write(cpu, linear, size);
    if ((info & kInfoRead) != 0) read_linear(cpu, linear, slot, size);
    if (write) cpu.pending_writes[cpu.pending_count++] = {linear, size, slot};
    return reinterpret_cast<std::byte*>(slot);
  } catch (const GuestFault& fault) {
    if (size >= 16 && ((fault.vector == Vector::PageFault ? linear : offset) & 15) != 0) {
      // Let the host CPU say whether it wants the operand aligned: run it on the bounce buffer, at the same alignment.
      cpu.deferred_fault = std::make_unique<DeferredFault>();
      cpu.deferred_fault->fault = fault;
      std::memcpy(cpu.deferred_fault->gpr, cpu.gpr, sizeof cpu.gpr);
      cpu.deferred_fault->arithmetic_flags = cpu.arithmetic_flags;
      std::memcpy(cpu.deferred_fault->xsave, cpu.xsave, sizeof cpu.xsave);
      return reinterpret_cast<std::byte*>(cpu.bounce[number] + ((linear != 0 ? linear : offset) & 63));
    }
    cpu.pending_fault = fault;
    return nullptr;
  }
}

}  // namespace vm_platform::soft
