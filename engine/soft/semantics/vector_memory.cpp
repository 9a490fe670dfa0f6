// Masked and gathering memory operations of AVX, AVX2, SSE2 and MMX. Elements that the mask leaves out are not touched
// and cannot fault.
#include <algorithm>
#include <cstring>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"
#include "engine/soft/semantics/xsave_image.hpp"

namespace vm_platform::soft {
namespace {

using namespace xsave;

void check_avx(const Cpu& cpu) {
  if ((cpu.cr4 & cr4::kOsxsave) == 0 || (cpu.xcr0 & 6) != 6 || cpu.real_mode() || cpu.virtual_8086()) {
    raise(Vector::InvalidOpcode);
  }
  if ((cpu.cr0 & cr0::kTaskSwitched) != 0) raise(Vector::DeviceNotAvailable);
}
void check_sse(const Cpu& cpu) {
  if ((cpu.cr0 & cr0::kEmulation) != 0 || (cpu.cr4 & cr4::kOsfxsr) == 0) raise(Vector::InvalidOpcode);
  if ((cpu.cr0 & cr0::kTaskSwitched) != 0) raise(Vector::DeviceNotAvailable);
}
void check_mmx(const Cpu& cpu) {
  if ((cpu.cr0 & cr0::kEmulation) != 0) raise(Vector::InvalidOpcode);
  if ((cpu.cr0 & cr0::kTaskSwitched) != 0) raise(Vector::DeviceNotAvailable);
  if ((image<std::uint16_t>(cpu, kStatus) & 0x80) != 0) raise(Vector::X87Error);
}

/// A vector register's 32 bytes, in the two places the XSAVE area has for them.
struct VectorValue {
  std::uint8_t bytes[32];

  [[nodiscard]] std::uint64_t element(std::size_t index, std::size_t size) const {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes + index * size, size);
    return value;
  }
  void set_element(std::size_t index, std::size_t size, std::uint64_t value) {
    std::memcpy(bytes + index * size, &value, size);
  }
  /// The highest bit of an element, which is what masks are made of.
  [[nodiscard]] bool mask(std::size_t index, std::size_t size) const { return bytes[(index + 1) * size - 1] >> 7 != 0; }
};

struct VectorRegister {
  unsigned number;
  std::size_t size;  ///< 16 or 32 bytes.
};

VectorRegister vector_register(const ZydisDecodedOperand& operand) {
  const ZydisRegister name = operand.reg.value;
  const bool wide = name >= ZYDIS_REGISTER_YMM0;
  return {static_cast<unsigned>(name) - static_cast<unsigned>(wide ? ZYDIS_REGISTER_YMM0 : ZYDIS_REGISTER_XMM0),
          wide ? 32U : 16U};
}
VectorValue read_vector(const Cpu& cpu, unsigned number) {
  VectorValue value;
  std::memcpy(value.bytes, cpu.xsave + kXmm + 16 * number, 16);
  std::memcpy(value.bytes + 16, cpu.xsave + kYmm + 16 * number, 16);
  return value;
}
void write_vector(Cpu& cpu, unsigned number, const VectorValue& value) {
  cpu.components_changed(kSse | kAvx);
  std::memcpy(cpu.xsave + kXmm + 16 * number, value.bytes, 16);
  std::memcpy(cpu.xsave + kYmm + 16 * number, value.bytes + 16, 16);
}

/// Where the elements are. Kept apart from the instruction, whose translation a store may end the life of.
struct ElementBase {
  MemoryOperand memory;
  unsigned address_bits;

  std::uint64_t address(Cpu& cpu, std::uint64_t displacement, std::size_t size, bool write) const {
    return linear_address(cpu, memory.segment, low_bits(memory.offset + displacement, address_bits), size, write);
  }
};

/// VMASKMOVPS/PD, VPMASKMOVD/Q: (register, mask, memory) loads, (memory, mask, register) stores.
template <std::size_t Size>
void masked_move(Cpu& cpu, const Instruction& instruction) {
  check_avx(cpu);
  const bool store = instruction.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY;
  const VectorRegister data = vector_register(instruction.operands[store ? 2 : 0]);
  const VectorValue mask = read_vector(cpu, vector_register(instruction.operands[1]).number);
  const ElementBase base{effective_address(cpu, instruction, instruction.operands[store ? 0 : 2]),
                         instruction.info.address_width};
  const std::size_t count = data.size / Size;
  if (store) {
    const VectorValue value = read_vector(cpu, data.number);
    for (const bool checking : {true, false}) {
      for (std::size_t i = 0; i < count; ++i) {
        if (!mask.mask(i, Size)) continue;
        const std::uint64_t address = base.address(cpu, i * Size, Size, true);
        if (checking) {
          check_write(cpu, address, Size);
        } else {
          write_linear(cpu, address, value.bytes + i * Size, Size);
        }
      }
    }
    return;
  }
  VectorValue value{};
  for (std::size_t i = 0; i < count; ++i) {
    if (!mask.mask(i, Size)) continue;
    read_linear(cpu, base.address(cpu, i * Size, Size, false), value.bytes + i * Size, Size);
  }
  write_vector(cpu, data.number, value);
}

/// MASKMOVDQU, MASKMOVQ: bytes of the first operand go to [rDI] where the second has their top bit set.
void store_bytes(Cpu& cpu, const Instruction& instruction, const std::uint8_t* data, const std::uint8_t* mask,
                 std::size_t count) {
  SegmentRegister segment = kDs;
  for (unsigned i = 0; i < instruction.info.operand_count; ++i) {
    if (instruction.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
      segment = segment_of(instruction.operands[i].mem.segment);
    }
  }
  const ElementBase base{{segment, read_gpr(cpu, kRdi, instruction.info.address_width)},
                         instruction.info.address_width};
  for (const bool checking : {true, false}) {
    for (std::size_t i = 0; i < count; ++i) {
      if (mask[i] >> 7 == 0) continue;
      const std::uint64_t address = base.address(cpu, i, 1, true);
      if (checking) {
        check_write(cpu, address, 1);
      } else {
        write_linear(cpu, address, data + i, 1);
      }
    }
  }
}

/// The visible register operands; the memory operand is implied.
unsigned register_number(const Instruction& instruction, unsigned which, ZydisRegister first) {
  unsigned seen = 0;
  for (unsigned i = 0; i < instruction.info.operand_count; ++i) {
    if (!is_register(instruction, i) || instruction.operands[i].visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT) {
      continue;
    }
    if (seen++ == which) {
      return static_cast<unsigned>(instruction.operands[i].reg.value) - static_cast<unsigned>(first);
    }
  }
  raise(Vector::InvalidOpcode);
}

void maskmovdqu(Cpu& cpu, const Instruction& instruction) {
  if (instruction.info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
    check_avx(cpu);
  } else {
    check_sse(cpu);
  }
  const VectorValue data = read_vector(cpu, register_number(instruction, 0, ZYDIS_REGISTER_XMM0));
  const VectorValue mask = read_vector(cpu, register_number(instruction, 1, ZYDIS_REGISTER_XMM0));
  store_bytes(cpu, instruction, data.bytes, mask.bytes, 16);
}

/// An MMX instruction: the stack top becomes 0 and all tags valid (Intel SDM vol. 1, 9.5.1). MM0 to MM7 are the
/// registers behind the stack, so what ST(i) names moves when the top does.
void enter_mmx(Cpu& cpu) {
  const auto status = image<std::uint16_t>(cpu, kStatus);
  const unsigned top = (status >> 11) & 7;
  std::uint8_t registers[8][16];
  for (unsigned i = 0; i < 8; ++i) std::memcpy(registers[(i + top) & 7], cpu.xsave + kSt + 16 * i, 16);
  cpu.components_changed(kX87);
  std::memcpy(cpu.xsave + kSt, registers, sizeof registers);
  set_image(cpu, kStatus, static_cast<std::uint16_t>(status & ~0x3800));
  cpu.xsave[kTags] = 0xff;
}

void maskmovq(Cpu& cpu, const Instruction& instruction) {
  check_mmx(cpu);
  const auto status = image<std::uint16_t>(cpu, kStatus);
  const unsigned top = (status >> 11) & 7;
  const auto mm = [&](unsigned which) {
    const unsigned number = register_number(instruction, which, ZYDIS_REGISTER_MM0);
    return cpu.xsave + kSt + 16 * ((number - top) & 7);
  };
  store_bytes(cpu, instruction, mm(0), mm(1), 8);
  enter_mmx(cpu);
}

/// VGATHER*, VPGATHER*: each element that was loaded loses its mask, so that a fault in the middle restarts there. The
/// masks of those not reached stay as they were, not only their top bits.
template <std::size_t Size, std::size_t IndexSize>
void gather(Cpu& cpu, const Instruction& instruction) {
  if (instruction.info.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX) raise(Vector::InvalidOpcode);
  check_avx(cpu);
  const ZydisDecodedOperand& operand = instruction.operands[1];
  const VectorRegister destination = vector_register(instruction.operands[0]);
  const VectorRegister mask_register = vector_register(instruction.operands[2]);
  ZydisDecodedOperand index_operand{};
  index_operand.reg.value = operand.mem.index;
  const VectorRegister index_register = vector_register(index_operand);
  if (destination.number == mask_register.number || destination.number == index_register.number ||
      mask_register.number == index_register.number) {
    raise(Vector::InvalidOpcode);
  }
  const ElementBase base{effective_address(cpu, instruction, operand), instruction.info.address_width};
  const VectorValue indices = read_vector(cpu, index_register.number);
  VectorValue value = read_vector(cpu, destination.number);
  VectorValue mask = read_vector(cpu, mask_register.number);
  const std::size_t count = std::min(destination.size / Size, index_register.size / IndexSize);
  for (std::size_t i = 0; i < count; ++i) {
    if (!mask.mask(i, Size)) {
      mask.set_element(i, Size, 0);
      continue;
    }
    const std::uint64_t index = sign_extend(indices.element(i, IndexSize), IndexSize * 8);
    try {
      read_linear(cpu, base.address(cpu, index * operand.mem.scale, Size, false), value.bytes + i * Size, Size);
    } catch (const GuestFault&) {
      write_vector(cpu, destination.number, value);
      write_vector(cpu, mask_register.number, mask);
      throw;
    }
    mask.set_element(i, Size, 0);
  }
  std::memset(value.bytes + count * Size, 0, sizeof value.bytes - count * Size);
  write_vector(cpu, destination.number, value);
  write_vector(cpu, mask_register.number, VectorValue{});
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_VMASKMOVPS, masked_move<4>}, {ZYDIS_MNEMONIC_VMASKMOVPD, masked_move<8>},
    {ZYDIS_MNEMONIC_VPMASKMOVD, masked_move<4>}, {ZYDIS_MNEMONIC_VPMASKMOVQ, masked_move<8>},
    {ZYDIS_MNEMONIC_MASKMOVDQU, maskmovdqu},     {ZYDIS_MNEMONIC_VMASKMOVDQU, maskmovdqu},
    {ZYDIS_MNEMONIC_MASKMOVQ, maskmovq},         {ZYDIS_MNEMONIC_VGATHERDPS, gather<4, 4>},
    {ZYDIS_MNEMONIC_VGATHERQPS, gather<4, 8>},   {ZYDIS_MNEMONIC_VGATHERDPD, gather<8, 4>},
    {ZYDIS_MNEMONIC_VGATHERQPD, gather<8, 8>},   {ZYDIS_MNEMONIC_VPGATHERDD, gather<4, 4>},
    {ZYDIS_MNEMONIC_VPGATHERQD, gather<4, 8>},   {ZYDIS_MNEMONIC_VPGATHERDQ, gather<8, 4>},
    {ZYDIS_MNEMONIC_VPGATHERQQ, gather<8, 8>},
};

}  // namespace

const Group kVectorMemoryGroup{"masked and gathering memory operations", "VectorMemory", kRows};

}  // namespace vm_platform::soft
