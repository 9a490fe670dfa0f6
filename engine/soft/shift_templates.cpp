// What shifts a value while the guest's flags must stay as they are. BMI2 has shifts that leave them alone; where the
// host has none, other instructions that do so take their place, or the flags are put aside.
#include "engine/soft/translator.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint32_t kSystemFlags = offsetof(CpuContext, system_flags);
constexpr unsigned kInterruptBit = 9;

}  // namespace

void Translator::emit_put_flags_aside() {
  static constexpr std::uint8_t kSave[] = {0x9f, 0x0f, 0x90, 0xc0};  // lahf; seto al
  out_->store(offset_of_scratch(0), hRax);
  out_->bytes(kSave, sizeof kSave);
}

void Translator::emit_bring_flags_back() {
  static constexpr std::uint8_t kRestore[] = {0x04, 0x7f, 0x9e};  // add al, 0x7f; sahf
  out_->bytes(kRestore, sizeof kRestore);
  out_->load(hRax, offset_of_scratch(0));
}

std::uint32_t Translator::emit_probe(unsigned bytes, bool write) {
  const auto set =
      static_cast<std::uint32_t>(offsetof(CpuContext, tlb) + sizeof(TlbSet) * static_cast<std::uint32_t>(mode_.tlb));
  const auto tag = static_cast<std::uint32_t>(set + (write ? offsetof(TlbSet, write_tag) : offsetof(TlbSet, read_tag)));
  const auto addend = static_cast<std::uint32_t>(set + offsetof(TlbSet, addend));
  const auto last = static_cast<std::int32_t>(bytes) - 1;
  static_assert(kTlbEntries == 256);
  if (host_.bmi2) {
    out_->shrx(hR11, hR10, hRsp);  // by 12: see entry.hpp
    out_->movzx8(hR11, hR11);
    out_->load_indexed(hRcx, hR11, tag);
    out_->lea(hRcx, hRcx, hR10, 1, last);
    out_->shrx(hRcx, hRcx, hRsp);
    out_->skip_if_rcx_zero(5);
    const std::uint32_t miss = out_->jump();
    out_->load_indexed(hR11, hR11, addend);
    return miss;
  }
  // Bits 12 to 19 of the address: to 16 to 23, and by BSWAP to 8 to 15, which is CH.
  out_->lea_no_base(hRcx, hR10, 8, 0, false);
  out_->lea(hRcx, hRcx, hRcx, 1, 0, false);
  out_->bswap_ecx();
  out_->movzx_ecx_ch();
  out_->load_indexed(hR11, hRcx, addend);
  out_->load_indexed(hRcx, hRcx, tag);
  out_->lea(hRcx, hRcx, hR10, 1, last);
  // Below 4096? Bits 16 to 63 stay where they are; of the lower ones, 12 to 15 go to 8 to 11, and the rest goes.
  out_->movzx_cx_ch();
  out_->shift_cx_by_4();
  out_->clear_cl();
  out_->skip_if_rcx_zero(5);
  return out_->jump();
}

void Translator::emit_interrupt_flag(bool set) {
  if (!host_.bmi2) {
    emit_put_flags_aside();
    out_->load(hRcx, kSystemFlags);
    out_->change_bit(hRcx, kInterruptBit, set);
    out_->store(kSystemFlags, hRcx);
    emit_bring_flags_back();
    return;
  }
  // The bit rotated to the top, shifted out, a new one in at the bottom, and back.
  out_->load(hRcx, kSystemFlags);
  out_->rorx(hRcx, hRcx, kInterruptBit + 1);
  out_->lea(hRcx, hRcx, hRcx, 1, set ? 1 : 0);
  out_->rorx(hRcx, hRcx, 64 - kInterruptBit);
  out_->store(kSystemFlags, hRcx);
}

void Translator::emit_rdtsc(const Instruction& instruction) {
  const bool with_aux = instruction.info.mnemonic == ZYDIS_MNEMONIC_RDTSCP;
  if (host_.bmi2) {
    out_->bytes(instruction.bytes, instruction.info.length);
    out_->mov(hRcx, 32);
    out_->shlx(hRdx, hRdx, hRcx);
    out_->load(hRcx, offsetof(CpuContext, tsc_offset));
    out_->lea(hRax, hRax, hRdx, 1, 0);
    out_->lea(hRax, hRax, hRcx, 1, 0);
    out_->rorx(hRdx, hRax, 32);
    out_->mov32(hRdx, hRdx);
  } else {
    static constexpr std::uint8_t kFence[] = {0x0f, 0xae, 0xe8}, kRdtsc[] = {0x0f, 0x31};
    if (with_aux) out_->bytes(kFence, sizeof kFence);  // for RDTSCP, which such a host may not have either
    out_->bytes(kRdtsc, sizeof kRdtsc);
    out_->store32(offset_of_scratch(11), hRax);
    out_->store32(offset_of_scratch(11) + 4, hRdx);
    out_->load(hRax, offset_of_scratch(11));
    out_->load(hRcx, offsetof(CpuContext, tsc_offset));
    out_->lea(hRax, hRax, hRcx, 1, 0);
    out_->store(offset_of_scratch(11), hRax);
    out_->load32(hRdx, offset_of_scratch(11) + 4);
  }
  out_->mov32(hRax, hRax);
  if (with_aux) out_->load32(hR9, offsetof(CpuContext, tsc_aux));
}

void Translator::emit_bit_unit(unsigned shift) {
  if (host_.bmi2) {
    out_->mov(hRcx, shift);
    out_->sarx(hR11, hR11, hRcx);
    return;
  }
  out_->mov(hRcx, hR11);
  emit_put_flags_aside();
  out_->sar(hR11, shift);
  out_->and32(hRcx, static_cast<std::uint8_t>((1U << shift) - 1));
  emit_bring_flags_back();
  out_->store(offset_of_scratch(11), hRcx);
}

void Translator::emit_bit_number(unsigned number, unsigned shift) {
  if (host_.bmi2) {
    const auto mask = static_cast<std::uint32_t>(offsetof(CpuContext, masks) + 8 * (shift - 4));
    out_->pext_context(hRcx, read_gpr(number, hRcx), mask);
  } else {
    out_->load(hRcx, offset_of_scratch(11));
  }
}

}  // namespace vm_platform::soft
