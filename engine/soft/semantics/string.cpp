// String instructions, with and without repeat prefixes: a page at a time where both sides are plain RAM, element by
// element where they are not. Registers move after each chunk, so that a fault leaves them at the element that faulted.
#include <algorithm>
#include <cstring>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/breakpoints.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"
#include "engine/soft/semantics/port.hpp"

namespace vm_platform::soft {
namespace {

/// Bytes one call may move, so that interrupts are taken in between.
constexpr std::uint64_t kBudget = 64 * 1024;

/// Single steps are one element each, and breakpoints trap after the element that hit them; so is what runs in the
/// shadow of an STI that an interrupt waited for.
bool is_asked_to_stop(const Cpu& cpu) {
  return (cpu.system_flags & rflags::kTrap) != 0 || has_breakpoints(cpu) ||
         (cpu.interrupt_waiting != 0 && (cpu.system_flags & rflags::kInterrupt) != 0);
}

enum class Repeat : std::uint8_t { None, Rep, WhileNotEqual };

/// One execution: which registers move, how far, and by what.
struct Run {
  Cpu& cpu;
  std::uint64_t next_rip;  ///< Kept here: a store may end the life of the instruction's translation.
  unsigned size;           ///< Of an element, in bytes.
  unsigned address_bits;
  Repeat repeat;
  bool backward;
  SegmentRegister source = kDs;
  std::uint64_t budget;

  Run(Cpu& c, const Instruction& i, unsigned element)
      : cpu(c),
        next_rip(following_rip(c, i)),
        size(element),
        address_bits(i.info.address_width),
        repeat((i.info.attributes & ZYDIS_ATTRIB_HAS_REPNE) != 0                           ? Repeat::WhileNotEqual
               : (i.info.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE)) != 0 ? Repeat::Rep
                                                                                           : Repeat::None),
        backward((c.system_flags & rflags::kDirection) != 0),
        budget(is_asked_to_stop(c) ? element : kBudget) {
    for (unsigned n = 0; n < i.info.operand_count; ++n) {
      const ZydisDecodedOperand& operand = i.operands[n];
      if (operand.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
      if (operand.mem.base == ZYDIS_REGISTER_RSI || operand.mem.base == ZYDIS_REGISTER_ESI ||
          operand.mem.base == ZYDIS_REGISTER_SI) {
        source = segment_of(operand.mem.segment);
      }
    }
  }

  [[nodiscard]] std::uint64_t remaining() const {
    return repeat == Repeat::None ? 1 : read_gpr(cpu, kRcx, address_bits);
  }
  [[nodiscard]] std::uint64_t offset(Gpr which) const { return read_gpr(cpu, which, address_bits); }
  void move(Gpr which, std::uint64_t elements) {
    const std::uint64_t bytes = elements * size;
    write_gpr(cpu, which, address_bits, cpu.gpr[which] + (backward ? ~bytes + 1 : bytes));
  }
  void count(std::uint64_t elements) {
    if (repeat != Repeat::None) write_gpr(cpu, kRcx, address_bits, cpu.gpr[kRcx] - elements);
    budget -= std::min(budget, elements * size);
  }
  std::uint64_t element_address(SegmentRegister segment, Gpr which, bool write) {
    const std::uint64_t linear = linear_address(cpu, segment, offset(which), size, write);
    check_alignment(cpu, linear, size);
    return linear;
  }

  /// Elements from `which` on that lie in one page, do not wrap the register, and are within the budget.
  [[nodiscard]] std::uint64_t elements_in_page(SegmentRegister segment, Gpr which) const {
    const std::uint64_t start = offset(which);
    const bool based = !cpu.in_64bit() || segment >= kFs;
    const std::uint64_t in_page = ((based ? cpu.segments[segment].base : 0) + start) & (kPageSize - 1);
    std::uint64_t room = 0;
    if (backward) {
      if (in_page + size > kPageSize) return 0;
      room = std::min(in_page, start) / size + 1;
    } else {
      room = (kPageSize - in_page) / size;
      if (address_bits < 64) room = std::min(room, ((std::uint64_t{1} << address_bits) - start) / size);
    }
    return std::min(room, budget / size);
  }
  /// The lowest address of `elements` elements at `which`, in plain RAM, or null. A fault is that of the first element.
  std::byte* chunk(SegmentRegister segment, Gpr which, std::uint64_t elements, Access access) {
    std::byte* first = host_pointer(cpu, element_address(segment, which, access == Access::Write), size, access);
    return first == nullptr || !backward ? first : first - (elements - 1) * size;
  }

  /// Whether what is stored to is RAM, even if it holds translated code and so cannot be written directly.
  bool is_ram(std::uint64_t elements) { return chunk(kEs, kRdi, elements, Access::Read) != nullptr; }
  /// Writes a chunk to RAM that must be watched for code. False where it is not RAM, or where the two overlap so that
  /// what is stored first is read later.
  bool store_chunk(std::uint64_t elements, const std::byte* from) {
    const std::uint64_t bytes = elements * size;
    const std::byte* to = chunk(kEs, kRdi, elements, Access::Read);
    if (to == nullptr || (to < from + bytes && from < to + bytes)) return false;
    const std::uint64_t first = backward ? offset(kRdi) + size - bytes : offset(kRdi);
    write_linear(cpu, linear_address(cpu, kEs, first, bytes, true), from, bytes);
    return true;
  }

  /// After a repeat: on to the next instruction, or again.
  void finish(bool done) {
    if (done) cpu.rip = next_rip;
  }
};

/// The limit of a segment may cut a chunk that its first elements are still within; these go one at a time.
bool fits(const Run& run, SegmentRegister segment, Gpr which, std::uint64_t elements) {
  if (run.cpu.in_64bit()) return true;
  const Segment& hidden = run.cpu.segments[segment];
  const bool expands_down = (hidden.attributes & 0x1c) == 0x14;
  const std::uint64_t start = run.offset(which);
  const std::uint64_t last = run.backward ? start + run.size - 1 : start + elements * run.size - 1;
  return !expands_down && last <= hidden.limit;
}

void copy_elements(std::byte* to, const std::byte* from, std::uint64_t bytes, unsigned size, bool backward) {
  const bool propagates = backward ? to < from && from < to + bytes : from < to && to < from + bytes;
  if (!propagates) {
    std::memmove(to, from, bytes);
    return;
  }
  for (std::uint64_t i = 0; i < bytes; i += size) {
    const std::uint64_t at = backward ? bytes - size - i : i;
    std::uint64_t element = 0;
    std::memcpy(&element, from + at, size);
    std::memcpy(to + at, &element, size);
  }
}

void movs(Cpu& cpu, const Instruction& instruction, unsigned size) {
  Run run(cpu, instruction, size);
  while (const std::uint64_t left = run.remaining()) {
    if (run.budget < size) return run.finish(false);
    std::uint64_t elements = std::min({left, run.elements_in_page(run.source, kRsi), run.elements_in_page(kEs, kRdi)});
    std::byte* from = nullptr;
    std::byte* to = nullptr;
    if (elements > 1 && fits(run, run.source, kRsi, elements) && fits(run, kEs, kRdi, elements)) {
      from = run.chunk(run.source, kRsi, elements, Access::Read);
      if (from != nullptr) to = run.chunk(kEs, kRdi, elements, Access::Write);
    }
    if (to != nullptr) {
      copy_elements(to, from, elements * size, size, run.backward);
    } else if (from != nullptr && run.store_chunk(elements, from)) {
    } else {
      elements = 1;
      std::uint64_t value = 0;
      read_linear(cpu, run.element_address(run.source, kRsi, false), &value, size);
      write_linear(cpu, run.element_address(kEs, kRdi, true), &value, size);
    }
    run.move(kRsi, elements);
    run.move(kRdi, elements);
    run.count(elements);
    if (run.repeat == Repeat::None) break;
  }
  run.finish(true);
}

void fill_elements(std::byte* to, std::uint64_t value, std::uint64_t bytes, unsigned size) {
  if (size == 1 || value == 0) {
    std::memset(to, static_cast<int>(value & 0xff), bytes);
    return;
  }
  for (std::uint64_t i = 0; i < bytes; i += size) std::memcpy(to + i, &value, size);
}

void stos(Cpu& cpu, const Instruction& instruction, unsigned size) {
  Run run(cpu, instruction, size);
  const std::uint64_t value = read_gpr(cpu, kRax, size * 8);
  while (const std::uint64_t left = run.remaining()) {
    if (run.budget < size) return run.finish(false);
    std::uint64_t elements = std::min(left, run.elements_in_page(kEs, kRdi));
    std::byte* to = nullptr;
    if (elements > 1 && fits(run, kEs, kRdi, elements)) to = run.chunk(kEs, kRdi, elements, Access::Write);
    if (to != nullptr) {
      fill_elements(to, value, elements * size, size);
    } else if (elements > 1 && fits(run, kEs, kRdi, elements) && run.is_ram(elements)) {
      std::byte page[kPageSize];
      fill_elements(page, value, elements * size, size);
      run.store_chunk(elements, page);
    } else {
      elements = 1;
      write_linear(cpu, run.element_address(kEs, kRdi, true), &value, size);
    }
    run.move(kRdi, elements);
    run.count(elements);
    if (run.repeat == Repeat::None) break;
  }
  run.finish(true);
}

void lods(Cpu& cpu, const Instruction& instruction, unsigned size) {
  Run run(cpu, instruction, size);
  while (run.remaining() != 0) {
    if (run.budget < size) return run.finish(false);
    std::uint64_t value = 0;
    read_linear(cpu, run.element_address(run.source, kRsi, false), &value, size);
    write_gpr(cpu, kRax, size * 8, value);
    run.move(kRsi, 1);
    run.count(1);
    if (run.repeat == Repeat::None) break;
  }
  run.finish(true);
}

/// The flags of a - b.
std::uint64_t compare_flags(std::uint64_t a, std::uint64_t b, unsigned size) {
  const unsigned bits = size * 8;
  const std::uint64_t difference = low_bits(a - b, bits);
  const std::uint64_t sign = std::uint64_t{1} << (bits - 1);
  std::uint64_t flags = 0;
  if (a < b) flags |= rflags::kCarry;
  if (__builtin_parity(static_cast<unsigned>(difference & 0xff)) == 0) flags |= rflags::kParity;
  if (((a ^ b ^ difference) & 0x10) != 0) flags |= rflags::kAdjust;
  if (difference == 0) flags |= rflags::kZero;
  if ((difference & sign) != 0) flags |= rflags::kSign;
  if (((a ^ b) & (a ^ difference) & sign) != 0) flags |= rflags::kOverflow;
  return flags;
}

/// Whether REPE or REPNE goes on after a comparison.
bool goes_on(const Run& run, bool equal) {
  return run.repeat == Repeat::Rep ? equal : run.repeat == Repeat::WhileNotEqual && !equal;
}

std::uint64_t load(const std::byte* chunk, const Run& run, std::uint64_t elements, std::uint64_t index) {
  const std::uint64_t at = (run.backward ? elements - 1 - index : index) * run.size;
  std::uint64_t value = 0;
  std::memcpy(&value, chunk + at, run.size);
  return value;
}

/// CMPS and SCAS: what is compared comes from `left` (or is RAX) and [ES:rDI].
void compare(Cpu& cpu, const Instruction& instruction, unsigned size, bool with_rax) {
  Run run(cpu, instruction, size);
  bool more = run.remaining() != 0;
  while (more) {
    if (run.budget < size) return run.finish(false);
    std::uint64_t elements = std::min(run.remaining(), run.elements_in_page(kEs, kRdi));
    if (!with_rax) elements = std::min(elements, run.elements_in_page(run.source, kRsi));
    const std::byte* left_chunk = nullptr;
    const std::byte* right_chunk = nullptr;
    if (elements > 1 && fits(run, kEs, kRdi, elements) && (with_rax || fits(run, run.source, kRsi, elements))) {
      if (!with_rax) left_chunk = run.chunk(run.source, kRsi, elements, Access::Read);
      if (with_rax || left_chunk != nullptr) right_chunk = run.chunk(kEs, kRdi, elements, Access::Read);
    }
    std::uint64_t left = read_gpr(cpu, kRax, size * 8), right = 0, done = 0;
    if (right_chunk != nullptr) {
      do {
        if (!with_rax) left = load(left_chunk, run, elements, done);
        right = load(right_chunk, run, elements, done);
        ++done;
      } while (done < elements && goes_on(run, left == right));
    } else {
      if (!with_rax) {
        left = 0;
        read_linear(cpu, run.element_address(run.source, kRsi, false), &left, size);
      }
      read_linear(cpu, run.element_address(kEs, kRdi, false), &right, size);
      done = 1;
    }
    if (!with_rax) run.move(kRsi, done);
    run.move(kRdi, done);
    run.count(done);
    cpu.arithmetic_flags = compare_flags(left, right, size);
    more = goes_on(run, left == right) && run.remaining() != 0;
  }
  run.finish(true);
}

void ins(Cpu& cpu, const Instruction& instruction, unsigned size) {
  Run run(cpu, instruction, size);
  const auto port = static_cast<std::uint16_t>(cpu.gpr[kRdx]);
  check_port(cpu, port, size);
  while (run.remaining() != 0) {
    if (run.budget < size) return run.finish(false);
    const std::uint64_t address = run.element_address(kEs, kRdi, true);
    check_write(cpu, address, size);  // a device must not be asked for what cannot be stored
    ++cpu.counters.port_accesses;
    const std::uint32_t value = cpu.environment.ports->read(port, size);
    write_linear(cpu, address, &value, size);
    run.move(kRdi, 1);
    run.count(1);
    if (run.repeat == Repeat::None) break;
  }
  run.finish(true);
}

void outs(Cpu& cpu, const Instruction& instruction, unsigned size) {
  Run run(cpu, instruction, size);
  const auto port = static_cast<std::uint16_t>(cpu.gpr[kRdx]);
  check_port(cpu, port, size);
  while (run.remaining() != 0) {
    if (run.budget < size) return run.finish(false);
    std::uint32_t value = 0;
    read_linear(cpu, run.element_address(run.source, kRsi, false), &value, size);
    ++cpu.counters.port_accesses;
    cpu.environment.ports->write(port, size, value);
    run.move(kRsi, 1);
    run.count(1);
    if (run.repeat == Repeat::None) break;
  }
  run.finish(true);
}

template <auto Function, unsigned Size, auto... Arguments>
void sized(Cpu& cpu, const Instruction& instruction) {
  Function(cpu, instruction, Size, Arguments...);
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_MOVSB, sized<movs, 1>, Flow::Own},
    {ZYDIS_MNEMONIC_MOVSW, sized<movs, 2>, Flow::Own},
    {ZYDIS_MNEMONIC_MOVSD, sized<movs, 4>, Flow::Own},
    {ZYDIS_MNEMONIC_MOVSQ, sized<movs, 8>, Flow::Own},
    {ZYDIS_MNEMONIC_STOSB, sized<stos, 1>, Flow::Own},
    {ZYDIS_MNEMONIC_STOSW, sized<stos, 2>, Flow::Own},
    {ZYDIS_MNEMONIC_STOSD, sized<stos, 4>, Flow::Own},
    {ZYDIS_MNEMONIC_STOSQ, sized<stos, 8>, Flow::Own},
    {ZYDIS_MNEMONIC_LODSB, sized<lods, 1>, Flow::Own},
    {ZYDIS_MNEMONIC_LODSW, sized<lods, 2>, Flow::Own},
    {ZYDIS_MNEMONIC_LODSD, sized<lods, 4>, Flow::Own},
    {ZYDIS_MNEMONIC_LODSQ, sized<lods, 8>, Flow::Own},
    {ZYDIS_MNEMONIC_CMPSB, sized<compare, 1, false>, Flow::Own},
    {ZYDIS_MNEMONIC_CMPSW, sized<compare, 2, false>, Flow::Own},
    {ZYDIS_MNEMONIC_CMPSD, sized<compare, 4, false>, Flow::Own},
    {ZYDIS_MNEMONIC_CMPSQ, sized<compare, 8, false>, Flow::Own},
    {ZYDIS_MNEMONIC_SCASB, sized<compare, 1, true>, Flow::Own},
    {ZYDIS_MNEMONIC_SCASW, sized<compare, 2, true>, Flow::Own},
    {ZYDIS_MNEMONIC_SCASD, sized<compare, 4, true>, Flow::Own},
    {ZYDIS_MNEMONIC_SCASQ, sized<compare, 8, true>, Flow::Own},
    {ZYDIS_MNEMONIC_INSB, sized<ins, 1>, Flow::Own},
    {ZYDIS_MNEMONIC_INSW, sized<ins, 2>, Flow::Own},
    {ZYDIS_MNEMONIC_INSD, sized<ins, 4>, Flow::Own},
    {ZYDIS_MNEMONIC_OUTSB, sized<outs, 1>, Flow::Own},
    {ZYDIS_MNEMONIC_OUTSW, sized<outs, 2>, Flow::Own},
    {ZYDIS_MNEMONIC_OUTSD, sized<outs, 4>, Flow::Own},
};

}  // namespace

const Group kStringGroup{"strings", "Strings", kRows};

}  // namespace vm_platform::soft
