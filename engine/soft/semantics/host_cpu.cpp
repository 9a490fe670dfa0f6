#include "engine/soft/semantics/host_cpu.hpp"

#include <cpuid.h>

#include <array>

namespace vm_platform::soft {
namespace {

constexpr std::uint32_t bit(unsigned number) { return std::uint32_t{1} << number; }
constexpr std::uint32_t kBmi2 = bit(8), kXsave = bit(26), kOsxsave = bit(27), kAvx = bit(28);

}  // namespace

HostCpu::HostCpu(HostCpuUse use) {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) leaf1_ecx = ecx;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) leaf7_ebx = ebx, leaf7_edx = edx;
  if (__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0) extended_ecx = ecx;
  if (use == HostCpuUse::Baseline) leaf1_ecx &= ~(kXsave | kOsxsave);
  if (use != HostCpuUse::All) leaf7_ebx &= ~kBmi2;
  if ((leaf1_ecx & kOsxsave) == 0) leaf1_ecx &= ~kXsave;
  xsave = (leaf1_ecx & kXsave) != 0;
  if (xsave) {
    std::uint32_t low = 0, high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    avx = (low & 6) == 6 && (leaf1_ecx & kAvx) != 0;
  }
  bmi2 = (leaf7_ebx & kBmi2) != 0;
  lahf = (extended_ecx & bit(0)) != 0;
}

const HostCpu& HostCpu::as_used(HostCpuUse use) {
  static const std::array kHosts = {HostCpu(HostCpuUse::All), HostCpu(HostCpuUse::NoBmi2),
                                    HostCpu(HostCpuUse::Baseline)};
  return kHosts[static_cast<std::size_t>(use)];
}

}  // namespace vm_platform::soft
