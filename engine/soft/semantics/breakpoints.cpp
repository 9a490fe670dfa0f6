#include "engine/soft/semantics/breakpoints.hpp"

namespace vm_platform::soft {
namespace {

enum Condition : unsigned { kExecute = 0, kWrite = 1, kPort = 2, kReadOrWrite = 3 };

/// The enabled breakpoints of which `wanted` holds for the condition and that overlap the bytes from `first` on.
template <typename Wanted>
std::uint64_t hits(const Cpu& cpu, std::uint64_t first, std::size_t size, Wanted&& wanted) {
  std::uint64_t bits = 0;
  for (unsigned i = 0; i < 4; ++i) {
    if ((cpu.dr7 >> (2 * i) & 3) == 0) continue;
    const auto settings = static_cast<unsigned>(cpu.dr7 >> (16 + 4 * i)) & 15;
    if (!wanted(settings & 3)) continue;
    constexpr std::uint64_t kLengths[] = {1, 2, 8, 4};
    const std::uint64_t length = kLengths[settings >> 2];
    const std::uint64_t start = cpu.debug_address[i] & ~(length - 1);
    // Either begins within the other; by differences, so that nothing overflows.
    if (first - start < length || start - first < size) bits |= std::uint64_t{1} << i;
  }
  return bits;
}

}  // namespace

std::uint64_t instruction_breakpoints(const Cpu& cpu, std::uint64_t linear) {
  return hits(cpu, linear, 1, [](unsigned condition) { return condition == kExecute; });
}

std::uint64_t data_breakpoints(const Cpu& cpu, std::uint64_t linear, std::size_t size, bool write) {
  return hits(cpu, linear, size,
              [&](unsigned condition) { return condition == kReadOrWrite || (write && condition == kWrite); });
}

std::uint64_t port_breakpoints(const Cpu& cpu, std::uint16_t port, unsigned size) {
  if ((cpu.cr4 & cr4::kDe) == 0) return 0;
  return hits(cpu, port, size, [](unsigned condition) { return condition == kPort; });
}

}  // namespace vm_platform::soft
