// Instructions that move whole x87, SSE and AVX state, on the guest's image in CpuContext::xsave. The last instruction
// and data pointers read as zero: native execution leaves the host's there, which are no business of the guest.
#include <cstring>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/control.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/operands.hpp"
#include "engine/soft/semantics/xsave_image.hpp"

namespace vm_platform::soft {
namespace {

using namespace xsave;

[[noreturn]] void general_protection() { raise(Vector::GeneralProtection, 0); }

void check_x87(const Cpu& cpu) {
  if ((cpu.cr0 & (cr0::kEmulation | cr0::kTaskSwitched)) != 0) raise(Vector::DeviceNotAvailable);
}
/// Waiting instructions report a pending exception first.
void check_pending(const Cpu& cpu) {
  if (has_pending_x87_error(cpu)) raise(Vector::X87Error);
}

/// Memory of the instruction, checked to be accessible as a whole before any of it is used.
class Area {
 public:
  Area(Cpu& cpu, const Instruction& instruction, std::size_t size, std::size_t alignment, Access access)
      : cpu_(cpu), linear_(operand_address(cpu, instruction, instruction.operands[0], size, access == Access::Write)) {
    if (alignment > 1 && (linear_ & (alignment - 1)) != 0) general_protection();
    if ((linear_ & (kPageSize - 1)) + size <= kPageSize) host_ = host_pointer(cpu, linear_, size, access);
    if (host_ == nullptr && access == Access::Write) check_write(cpu, linear_, size);
  }
  void put(std::size_t offset, const void* from, std::size_t size) {
    if (host_ != nullptr) {
      std::memcpy(host_ + offset, from, size);
    } else {
      write_linear(cpu_, linear_ + offset, from, size);
    }
  }
  void get(std::size_t offset, void* to, std::size_t size) {
    if (host_ != nullptr) {
      std::memcpy(to, host_ + offset, size);
    } else {
      read_linear(cpu_, linear_ + offset, to, size);
    }
  }

 private:
  Cpu& cpu_;
  std::uint64_t linear_;
  std::byte* host_ = nullptr;
};

/// XMM and YMM registers that the mode has.
std::size_t vector_bytes(const Cpu& cpu) { return cpu.in_64bit() ? 256 : 128; }

/// FCW, FSW, tags and registers, with the pointers and the opcode zero.
void put_x87(Cpu& cpu, Area& area) {
  std::uint8_t head[24] = {};
  std::memcpy(head, cpu.xsave, 5);
  area.put(0, head, sizeof head);
  area.put(kSt, cpu.xsave + kSt, 128);
}

/// The summary bits follow the flags and masks (Intel SDM vol. 1, 8.1.3.3).
std::uint16_t with_summary(std::uint16_t status, std::uint16_t control) {
  const bool pending = (status & ~control & 0x3f) != 0;
  return static_cast<std::uint16_t>((status & 0x7f7f) | (pending ? 0x8080 : 0));
}

void set_x87(Cpu& cpu, const std::uint8_t* legacy) {
  cpu.components_changed(kX87);
  std::memcpy(cpu.xsave, legacy, 5);
  cpu.xsave[5] = 0;
  std::memset(cpu.xsave + 6, 0, 18);
  std::memcpy(cpu.xsave + kSt, legacy + kSt, 128);
  for (std::size_t i = 0; i < 8; ++i) std::memset(cpu.xsave + kSt + 16 * i + 10, 0, 6);
  set_image(cpu, kControl, static_cast<std::uint16_t>((image<std::uint16_t>(cpu, kControl) & 0x1f7f) | 0x40));
  set_image(cpu, kStatus, with_summary(image<std::uint16_t>(cpu, kStatus), image<std::uint16_t>(cpu, kControl)));
}

void initialize_x87(Cpu& cpu) {
  cpu.components_changed(kX87);
  std::memset(cpu.xsave, 0, kMxcsr);
  std::memset(cpu.xsave + kSt, 0, 128);
  set_image<std::uint16_t>(cpu, kControl, 0x37f);
}

void fxsave(Cpu& cpu, const Instruction& instruction) {
  check_x87(cpu);
  Area area(cpu, instruction, 512, 16, Access::Write);
  put_x87(cpu, area);
  const std::uint32_t mxcsr[2] = {image<std::uint32_t>(cpu, kMxcsr), kMxcsrBits};
  area.put(kMxcsr, mxcsr, sizeof mxcsr);
  area.put(kXmm, cpu.xsave + kXmm, vector_bytes(cpu));
}

void fxrstor(Cpu& cpu, const Instruction& instruction) {
  check_x87(cpu);
  std::uint8_t legacy[512];
  Area(cpu, instruction, sizeof legacy, 16, Access::Read).get(0, legacy, sizeof legacy);
  std::uint32_t mxcsr;
  std::memcpy(&mxcsr, legacy + kMxcsr, sizeof mxcsr);
  if ((mxcsr & ~kMxcsrBits) != 0) general_protection();
  set_x87(cpu, legacy);
  set_image(cpu, kMxcsr, mxcsr);  // loaded by the host whatever XSTATE_BV says
  cpu.components_changed(kSse);
  std::memcpy(cpu.xsave + kXmm, legacy + kXmm, vector_bytes(cpu));
}

/// The checks XSAVE and XRSTOR share; the components asked for.
std::uint64_t requested_components(const Cpu& cpu) {
  if ((cpu.cr4 & cr4::kOsxsave) == 0) raise(Vector::InvalidOpcode);
  if ((cpu.cr0 & cr0::kTaskSwitched) != 0) raise(Vector::DeviceNotAvailable);
  return ((cpu.gpr[kRdx] << 32) | (cpu.gpr[kRax] & 0xffffffff)) & cpu.xcr0;
}
std::size_t area_size(std::uint64_t components) { return (components & kAvx) != 0 ? kYmm + 256 : kYmm; }

void xsave(Cpu& cpu, const Instruction& instruction) {
  const std::uint64_t components = requested_components(cpu);
  Area area(cpu, instruction, area_size(components), 64, Access::Write);
  if ((components & kX87) != 0) put_x87(cpu, area);
  if ((components & (kSse | kAvx)) != 0) {
    const std::uint32_t mxcsr[2] = {image<std::uint32_t>(cpu, kMxcsr), kMxcsrBits};
    area.put(kMxcsr, mxcsr, sizeof mxcsr);
  }
  if ((components & kSse) != 0) area.put(kXmm, cpu.xsave + kXmm, vector_bytes(cpu));
  if ((components & kAvx) != 0) area.put(kYmm, cpu.xsave + kYmm, vector_bytes(cpu));
  std::uint64_t present = 0;
  area.get(kHeader, &present, sizeof present);
  present |= components;  // everything counts as in use
  area.put(kHeader, &present, sizeof present);
}

void xrstor(Cpu& cpu, const Instruction& instruction) {
  const std::uint64_t components = requested_components(cpu);
  std::uint8_t memory[kYmm + 256];
  const std::size_t size = area_size(components);
  Area(cpu, instruction, size, 64, Access::Read).get(0, memory, size);
  std::uint64_t header[3];  // XSTATE_BV, XCOMP_BV, reserved
  std::memcpy(header, memory + kHeader, sizeof header);
  if ((header[0] & ~cpu.xcr0) != 0 || header[1] != 0 || header[2] != 0) general_protection();
  std::uint32_t mxcsr;
  std::memcpy(&mxcsr, memory + kMxcsr, sizeof mxcsr);
  if ((components & (kSse | kAvx)) != 0) {
    if ((mxcsr & ~kMxcsrBits) != 0) general_protection();
    set_image(cpu, kMxcsr, mxcsr);
  }
  const std::uint64_t present = header[0];
  if ((components & kX87) != 0) {
    if ((present & kX87) != 0) {
      set_x87(cpu, memory);
    } else {
      initialize_x87(cpu);
    }
  }
  const auto load_vectors = [&](std::uint8_t component, std::size_t offset) {
    if ((components & component) == 0) return;
    cpu.components_changed(component);
    if ((present & component) != 0) {
      std::memcpy(cpu.xsave + offset, memory + offset, vector_bytes(cpu));
    } else {
      std::memset(cpu.xsave + offset, 0, vector_bytes(cpu));
    }
  };
  load_vectors(kSse, kXmm);
  load_vectors(kAvx, kYmm);
}

void check_mxcsr_access(const Cpu& cpu, const Instruction& instruction) {
  if (instruction.info.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
    if ((cpu.cr4 & cr4::kOsxsave) == 0 || (cpu.xcr0 & 6) != 6 || cpu.real_mode() || cpu.virtual_8086()) {
      raise(Vector::InvalidOpcode);
    }
  } else if ((cpu.cr0 & cr0::kEmulation) != 0 || (cpu.cr4 & cr4::kOsfxsr) == 0) {
    raise(Vector::InvalidOpcode);
  }
  if ((cpu.cr0 & cr0::kTaskSwitched) != 0) raise(Vector::DeviceNotAvailable);
}

void ldmxcsr(Cpu& cpu, const Instruction& instruction) {
  check_mxcsr_access(cpu, instruction);
  const auto value = static_cast<std::uint32_t>(read_operand(cpu, instruction, 0, 4));
  if ((value & ~kMxcsrBits) != 0) general_protection();
  set_image(cpu, kMxcsr, value);
}

void stmxcsr(Cpu& cpu, const Instruction& instruction) {
  check_mxcsr_access(cpu, instruction);
  write_operand(cpu, instruction, 0, image<std::uint32_t>(cpu, kMxcsr));
}

/// The two-bit tags of FSTENV from the one-bit tags and the contents (Intel SDM vol. 1, 8.1.7).
std::uint16_t full_tags(const Cpu& cpu) {
  const unsigned top = (image<std::uint16_t>(cpu, kStatus) >> 11) & 7;
  unsigned tags = 0;
  for (unsigned reg = 0; reg < 8; ++reg) {
    unsigned tag = 3;
    if ((cpu.xsave[kTags] >> reg & 1) != 0) {
      const std::size_t place = kSt + 16 * ((reg - top) & 7);
      const auto mantissa = image<std::uint64_t>(cpu, place);
      const unsigned exponent = image<std::uint16_t>(cpu, place + 8) & 0x7fffU;
      if (exponent == 0 && mantissa == 0) {
        tag = 1;
      } else if (exponent == 0 || exponent == 0x7fff || (mantissa >> 63) == 0) {
        tag = 2;
      } else {
        tag = 0;
      }
    }
    tags |= tag << (2 * reg);
  }
  return static_cast<std::uint16_t>(tags);
}

std::size_t environment_size(const Instruction& instruction) { return instruction.info.operand_width == 16 ? 14 : 28; }

/// FCW, FSW, FTW, and pointers that read as zero.
void make_environment(const Cpu& cpu, std::uint8_t* out, std::size_t size) {
  const std::uint16_t words[3] = {image<std::uint16_t>(cpu, kControl), image<std::uint16_t>(cpu, kStatus),
                                  full_tags(cpu)};
  std::memset(out, 0, size);
  const std::size_t stride = size == 14 ? 2 : 4;
  for (std::size_t i = 0; i < 3; ++i) {
    if (stride == 4) std::memset(out + 4 * i + 2, 0xff, 2);
    std::memcpy(out + stride * i, &words[i], 2);
  }
  if (stride == 4) std::memset(out + 26, 0xff, 2);
}

void load_environment(Cpu& cpu, const std::uint8_t* in, std::size_t size) {
  const std::size_t stride = size == 14 ? 2 : 4;
  std::uint16_t words[3];
  for (std::size_t i = 0; i < 3; ++i) std::memcpy(&words[i], in + stride * i, 2);
  unsigned abridged = 0;
  for (unsigned reg = 0; reg < 8; ++reg) abridged |= (words[2] >> (2 * reg) & 3) != 3 ? 1U << reg : 0;
  const auto control = static_cast<std::uint16_t>((words[0] & 0x1f7f) | 0x40);
  cpu.components_changed(kX87);
  std::memset(cpu.xsave, 0, kMxcsr);
  set_image(cpu, kControl, control);
  set_image(cpu, kStatus, with_summary(words[1], control));
  cpu.xsave[kTags] = static_cast<std::uint8_t>(abridged);
}

void fnstenv(Cpu& cpu, const Instruction& instruction) {
  check_x87(cpu);
  const std::size_t size = environment_size(instruction);
  std::uint8_t bytes[28];
  make_environment(cpu, bytes, size);
  Area(cpu, instruction, size, 1, Access::Write).put(0, bytes, size);
  const auto control = static_cast<std::uint16_t>(image<std::uint16_t>(cpu, kControl) | 0x3f);
  cpu.components_changed(kX87);
  set_image(cpu, kControl, control);
  set_image(cpu, kStatus, with_summary(image<std::uint16_t>(cpu, kStatus), control));
}

void fldenv(Cpu& cpu, const Instruction& instruction) {
  check_x87(cpu);
  check_pending(cpu);
  const std::size_t size = environment_size(instruction);
  std::uint8_t bytes[28];
  Area(cpu, instruction, size, 1, Access::Read).get(0, bytes, size);
  load_environment(cpu, bytes, size);
}

void fnsave(Cpu& cpu, const Instruction& instruction) {
  check_x87(cpu);
  const std::size_t size = environment_size(instruction);
  std::uint8_t bytes[28 + 80];
  make_environment(cpu, bytes, size);
  for (std::size_t i = 0; i < 8; ++i) std::memcpy(bytes + size + 10 * i, cpu.xsave + kSt + 16 * i, 10);
  Area(cpu, instruction, size + 80, 1, Access::Write).put(0, bytes, size + 80);
  initialize_x87(cpu);
}

void frstor(Cpu& cpu, const Instruction& instruction) {
  check_x87(cpu);
  check_pending(cpu);
  const std::size_t size = environment_size(instruction);
  std::uint8_t bytes[28 + 80];
  Area(cpu, instruction, size + 80, 1, Access::Read).get(0, bytes, size + 80);
  load_environment(cpu, bytes, size);
  std::memset(cpu.xsave + kSt, 0, 128);
  for (std::size_t i = 0; i < 8; ++i) std::memcpy(cpu.xsave + kSt + 16 * i, bytes + size + 10 * i, 10);
}

constexpr Row kRows[] = {
    {ZYDIS_MNEMONIC_FXSAVE, fxsave},     {ZYDIS_MNEMONIC_FXSAVE64, fxsave},  {ZYDIS_MNEMONIC_FXRSTOR, fxrstor},
    {ZYDIS_MNEMONIC_FXRSTOR64, fxrstor}, {ZYDIS_MNEMONIC_XSAVE, xsave},      {ZYDIS_MNEMONIC_XSAVE64, xsave},
    {ZYDIS_MNEMONIC_XRSTOR, xrstor},     {ZYDIS_MNEMONIC_XRSTOR64, xrstor},  {ZYDIS_MNEMONIC_LDMXCSR, ldmxcsr},
    {ZYDIS_MNEMONIC_STMXCSR, stmxcsr},   {ZYDIS_MNEMONIC_VLDMXCSR, ldmxcsr}, {ZYDIS_MNEMONIC_VSTMXCSR, stmxcsr},
    {ZYDIS_MNEMONIC_FNSTENV, fnstenv},   {ZYDIS_MNEMONIC_FLDENV, fldenv},    {ZYDIS_MNEMONIC_FNSAVE, fnsave},
    {ZYDIS_MNEMONIC_FRSTOR, frstor},
};

}  // namespace

const Group kFpuStateGroup{"x87, SSE and AVX state", "FpuState", kRows};

}  // namespace vm_platform::soft
