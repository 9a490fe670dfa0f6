// Operands of a decoded instruction as C++ reads and writes them, and the stack.
#pragma once

#include <cstdint>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics.hpp"

namespace vm_platform::soft {

/// The low `bits` of a value; 64 keeps it whole.
constexpr std::uint64_t low_bits(std::uint64_t value, unsigned bits) {
  return bits >= 64 ? value : value & ((std::uint64_t{1} << bits) - 1);
}
constexpr std::uint64_t sign_extend(std::uint64_t value, unsigned bits) {
  if (bits >= 64) return value;
  const std::uint64_t sign = std::uint64_t{1} << (bits - 1);
  return (low_bits(value, bits) ^ sign) - sign;
}
/// Whether an address is canonical: 48 bits of it count, 57 with 5-level paging.
inline bool is_canonical(const Cpu& cpu, std::uint64_t address) {
  return sign_extend(address, (cpu.cr4 & cr4::kLa57) != 0 ? 57 : 48) == address;
}

/// A general register by its name, zero-extended.
std::uint64_t read_register(const Cpu& cpu, ZydisRegister name);
/// As instructions write it: 32-bit writes clear the upper half, narrower ones keep the rest.
void write_register(Cpu& cpu, ZydisRegister name, std::uint64_t value);

/// A general register by number and width in bits; 8-bit numbers mean the low byte.
inline std::uint64_t read_gpr(const Cpu& cpu, unsigned number, unsigned bits) {
  return low_bits(cpu.gpr[number], bits);
}
inline void write_gpr(Cpu& cpu, unsigned number, unsigned bits, std::uint64_t value) {
  if (bits >= 64) {
    cpu.gpr[number] = value;
  } else if (bits == 32) {
    cpu.gpr[number] = value & 0xffffffff;
  } else {
    const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
    cpu.gpr[number] = (cpu.gpr[number] & ~mask) | (value & mask);
  }
}

struct MemoryOperand {
  SegmentRegister segment;
  std::uint64_t offset;  ///< As wide as the address size.
};

/// The address of a memory operand. A VSIB index counts as zero.
MemoryOperand effective_address(const Cpu& cpu, const Instruction& instruction, const ZydisDecodedOperand& operand);
/// The same as a checked linear address.
std::uint64_t operand_address(Cpu& cpu, const Instruction& instruction, const ZydisDecodedOperand& operand,
                              std::size_t size, bool write);

/// #AC(0) where alignment is checked (CPL 3, CR0.AM, EFLAGS.AC) and an operand of 2, 4 or 8 bytes is not aligned. Other
/// sizes are structures, which the instructions check themselves if at all.
inline void check_alignment(const Cpu& cpu, std::uint64_t linear, std::size_t size) {
  if ((linear & (size - 1)) == 0 || size > 8 || (size & (size - 1)) != 0) return;
  if (cpu.cpl == 3 && (cpu.cr0 & cr0::kAlignmentMask) != 0 && (cpu.system_flags & rflags::kAlignmentCheck) != 0) {
    raise(Vector::AlignmentCheck, 0);
  }
}
/// linear_address for an access to the current stack, with that check.
inline std::uint64_t stack_address(Cpu& cpu, std::uint64_t offset, std::size_t size, bool write) {
  const std::uint64_t linear = linear_address(cpu, kSs, offset, size, write);
  check_alignment(cpu, linear, size);
  return linear;
}

/// A register, memory (of `size` bytes) or immediate operand, zero-extended; at most 8 bytes.
std::uint64_t read_operand(Cpu& cpu, const Instruction& instruction, unsigned index);
std::uint64_t read_operand(Cpu& cpu, const Instruction& instruction, unsigned index, std::size_t size);
void write_operand(Cpu& cpu, const Instruction& instruction, unsigned index, std::uint64_t value);
inline bool is_register(const Instruction& instruction, unsigned index) {
  return instruction.operands[index].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

/// The width of the stack pointer in bits: by the mode and SS.B.
inline unsigned stack_bits(const Cpu& cpu) {
  if (cpu.in_64bit()) return 64;
  return (cpu.segments[kSs].attributes & Segment::kBig) != 0 ? 32 : 16;
}

/// A cursor on the current stack; the stack pointer changes when `commit` is called.
class Stack {
 public:
  explicit Stack(Cpu& cpu) : cpu_(cpu), bits_(stack_bits(cpu)), pointer_(cpu.gpr[kRsp]) {}
  void push(std::uint64_t value, std::size_t size);
  std::uint64_t pop(std::size_t size);
  /// Skips bytes without reading them.
  void skip(std::uint64_t bytes) { pointer_ += bytes; }
  void commit() { write_gpr(cpu_, kRsp, bits_, pointer_); }

 private:
  Cpu& cpu_;
  unsigned bits_;
  std::uint64_t pointer_;
};

/// #GP(0) unless CPL is 0.
inline void require_cpl0(const Cpu& cpu) {
  if (cpu.cpl != 0) raise(Vector::GeneralProtection, 0);
}

}  // namespace vm_platform::soft
