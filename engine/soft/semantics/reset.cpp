// Power-on and INIT state (Intel SDM vol. 3, table 9-1).
#include <algorithm>
#include <cstring>

#include "engine/soft/cpu.hpp"
#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/control.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint32_t kSignatureInRdx = 0x00a10f11;  // CPUID leaf 1 EAX

}  // namespace

void Cpu::init_reset() {
  std::fill(std::begin(gpr), std::end(gpr), 0);
  gpr[kRdx] = kSignatureInRdx;
  rip = 0xfff0;
  set_flags(rflags::kFixed);
  const Segment data{0, 0xffff, 0, Segment::kPresent | Segment::kCodeOrData | 3};
  std::fill(std::begin(segments), std::end(segments), data);
  segments[kCs] = {0xffff0000, 0xffff, 0xf000, Segment::kPresent | Segment::kCodeOrData | 0xb};
  ldtr = {0, 0xffff, 0, Segment::kPresent | 2};
  tr = {0, 0xffff, 0, Segment::kPresent | 11};
  gdtr = idtr = {0, 0xffff};
  cr0 = (cr0 & (cr0::kNotWriteThrough | cr0::kCacheDisable)) | cr0::kExtensionType;
  cr2 = cr3 = cr4 = efer = 0;
  std::fill(std::begin(debug_address), std::end(debug_address), 0);
  dr6 = 0xffff0ff0;
  dr7 = 0x400;
  cpl = 0;
  interrupt_shadow = nmi_masked = halted = false;
  flush_tlb(*this);
}

void Cpu::reset() {
  cr0 = cr0::kNotWriteThrough | cr0::kCacheDisable;
  star = lstar = cstar = sfmask = kernel_gs_base = 0;
  sysenter_cs = sysenter_esp = sysenter_eip = 0;
  pat = 0x0007040600070406;
  tsc_aux = tsc_adjust = 0;
  misc_enable = 1;
  mtrr_default = 0xc06;
  std::fill(std::begin(mtrr_variable), std::end(mtrr_variable), 0);
  std::fill(std::begin(mtrr_fixed), std::end(mtrr_fixed), 0x0606060606060606);
  hardware_configuration = 1 << 24;
  debug_control = kvm_system_time = kvm_wall_clock = 0;
  std::fill(std::begin(amd_configuration), std::end(amd_configuration), 0);
  amd_configuration[7] = 2;  // DE_CFG: LFENCE serializes
  xcr0 = 1;
  tsc_offset = environment.tsc.offset;
  std::memset(xsave, 0, sizeof xsave);
  const std::uint16_t control = 0x40;  // power-on; FNINIT makes it 037Fh
  const std::uint32_t mxcsr = 0x1f80, mxcsr_mask = 0xffff;
  std::memcpy(xsave, &control, sizeof control);
  xsave[4] = 0xff;  // tags: valid, in the abridged form
  std::memcpy(xsave + 24, &mxcsr, sizeof mxcsr);
  std::memcpy(xsave + 28, &mxcsr_mask, sizeof mxcsr_mask);
  xsave[512] = all_components();
  init_reset();
}

}  // namespace vm_platform::soft
