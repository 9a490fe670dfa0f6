#include "engine/soft/semantics/port.hpp"

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/breakpoints.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"

namespace vm_platform::soft {

void check_port(Cpu& cpu, std::uint16_t port, unsigned size) {
  if (has_breakpoints(cpu)) cpu.debug_hits |= port_breakpoints(cpu, port, size);
  if (cpu.real_mode() || (!cpu.virtual_8086() && cpu.cpl <= cpu.iopl())) return;
  const auto refuse = [] { raise(Vector::GeneralProtection, 0); };
  if ((cpu.tr.type() & 8) == 0 || cpu.tr.limit < 103) refuse();
  const auto map = read_linear<std::uint16_t>(cpu, cpu.tr.base + 102, Rights::Supervisor);
  const std::uint64_t offset = map + port / 8U;
  if (offset + 1 > cpu.tr.limit) refuse();  // two bytes are read always
  const auto bits = read_linear<std::uint16_t>(cpu, cpu.tr.base + offset, Rights::Supervisor);
  if ((bits >> (port & 7) & ((1U << size) - 1)) != 0) refuse();
}

namespace {

std::uint16_t port_of(Cpu& cpu, const Instruction& instruction, unsigned operand) {
  if (is_register(instruction, operand)) return static_cast<std::uint16_t>(cpu.gpr[kRdx]);
  return static_cast<std::uint8_t>(instruction.operands[operand].imm.value.u);
}

void in(Cpu& cpu, const Instruction& instruction) {
  const unsigned size = instruction.operands[0].size / 8U;
  const std::uint16_t port = port_of(cpu, instruction, 1);
  check_port(cpu, port, size);
  ++cpu.counters.port_accesses;
  write_gpr(cpu, kRax, size * 8, cpu.environment.ports->read(port, size));
}

void out(Cpu& cpu, const Instruction& instruction) {
  const unsigned size = instruction.operands[1].size / 8U;
  const std::uint16_t port = port_of(cpu, instruction, 0);
  check_port(cpu, port, size);
  ++cpu.counters.port_accesses;
  cpu.environment.ports->write(port, size, static_cast<std::uint32_t>(read_gpr(cpu, kRax, size * 8)));
}

constexpr Row kRows[] = {{ZYDIS_MNEMONIC_IN, in}, {ZYDIS_MNEMONIC_OUT, out}};

}  // namespace

const Group kPortGroup{"I/O ports", "Ports", kRows};

}  // namespace vm_platform::soft
