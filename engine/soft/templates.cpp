// The instructions that the translator writes itself: control flow, the stack, and a few with hidden operands.
#include "engine/soft/translator.hpp"

namespace vm_platform::soft {
namespace {

bool is_memory(const ZydisDecodedOperand& operand) { return operand.type == ZYDIS_OPERAND_TYPE_MEMORY; }

}  // namespace

Translator::Flow Translator::emit_template(const Instruction& instruction) {
  switch (instruction.info.mnemonic) {
    case ZYDIS_MNEMONIC_LEA: emit_lea(instruction); return Flow::Continue;
    case ZYDIS_MNEMONIC_PUSH: emit_push(instruction); return Flow::Continue;
    case ZYDIS_MNEMONIC_POP: emit_pop(instruction); return Flow::Continue;
    case ZYDIS_MNEMONIC_LEAVE: emit_leave(instruction); return Flow::Continue;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC: emit_bit_test(instruction); return Flow::Continue;
    case ZYDIS_MNEMONIC_MOV: emit_moffs(instruction); return Flow::Continue;
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
      if (!bits64() || !mode_.rdtsc) {
        emit_execute(instruction);
        return Flow::End;
      }
      emit_rdtsc(instruction);
      return Flow::Continue;
    case ZYDIS_MNEMONIC_RET: emit_return(instruction); return Flow::End;
    case ZYDIS_MNEMONIC_JMP:
    case ZYDIS_MNEMONIC_CALL: emit_jump_or_call(instruction); return Flow::End;
    case ZYDIS_MNEMONIC_LOOP:
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
    case ZYDIS_MNEMONIC_JCXZ:
    case ZYDIS_MNEMONIC_JECXZ:
    case ZYDIS_MNEMONIC_JRCXZ: return emit_loop(instruction);
    default: return emit_jcc(instruction);
  }
}

void Translator::emit_lea(const Instruction& instruction) {
  const auto to = *gpr_operand(instruction.operands[0]);
  if (to.bytes >= 4 && !in_memory(to.number) && instruction.info.address_width >= 32) {
    emit_effective_address(static_cast<Host>(kHostOf[to.number]), instruction, instruction.operands[1],
                           to.bytes == 8 && instruction.info.address_width == 64);
    return;
  }
  emit_effective_address(hR10, instruction, instruction.operands[1], instruction.info.address_width == 64);
  if (to.bytes == 4) out_->mov32(hR10, hR10);
  write_gpr(to.number, hR10, to.bytes == 2 ? 2 : 8);
}

void Translator::emit_push(const Instruction& instruction) {
  const ZydisDecodedOperand& operand = instruction.operands[0];
  const unsigned bytes = instruction.info.operand_width / 8;
  if (is_memory(operand)) {
    emit_address(instruction, operand);
    emit_access(bytes, true, false, segment_of(operand.mem.segment));
    out_->load_guest(hR10, bytes);
    out_->store(offset_of_scratch(11), hR10);
  }
  const std::int32_t place = emit_stack_operand(-static_cast<std::int32_t>(bytes), bytes, true);
  if (is_memory(operand)) {
    out_->load(hRcx, offset_of_scratch(11));
    out_->store_guest(hRcx, bytes, place);
  } else if (const auto gpr = gpr_operand(operand)) {
    out_->store_guest(read_gpr(gpr->number, hRcx), bytes, place);
  } else {
    out_->mov(hRcx, operand.imm.is_signed ? static_cast<std::uint64_t>(operand.imm.value.s) : operand.imm.value.u);
    out_->store_guest(hRcx, bytes, place);
  }
  emit_adjust_stack(-static_cast<std::int32_t>(bytes));
}

void Translator::emit_pop(const Instruction& instruction) {
  const ZydisDecodedOperand& operand = instruction.operands[0];
  const unsigned bytes = instruction.info.operand_width / 8;
  const std::int32_t place = emit_stack_operand(0, bytes, false);
  if (const auto to = gpr_operand(operand); to && bytes >= 4) {
    const Host host = in_memory(to->number) ? hRcx : static_cast<Host>(kHostOf[to->number]);
    out_->load_guest(host, bytes, place);
    if (host == hRcx) write_gpr(to->number, hRcx, 8);
    if (to->number != kRsp) emit_adjust_stack(static_cast<std::int32_t>(bytes));
    return;
  }
  out_->load_guest(hR10, bytes);
  if (!is_memory(operand)) {
    const auto gpr = *gpr_operand(operand);
    if (gpr.number != kRsp)
      emit_adjust_stack(static_cast<std::int32_t>(bytes));
    else if (bytes == 2)
      emit_adjust_stack(2);  // the upper part moves on, then SP is replaced
    write_gpr(gpr.number, hR10, bytes);
    return;
  }
  // The address is computed with RSP already incremented (SDM, POP); on a fault RSP must be as before, so it is
  // incremented for the computation only.
  out_->store(offset_of_scratch(11), hR10);
  emit_adjust_stack(static_cast<std::int32_t>(bytes));
  emit_address(instruction, operand);
  emit_adjust_stack(-static_cast<std::int32_t>(bytes));
  emit_access(bytes, false, true, segment_of(operand.mem.segment));
  out_->load(hRcx, offset_of_scratch(11));
  out_->store_guest(hRcx, bytes);
  emit_adjust_stack(static_cast<std::int32_t>(bytes));
}

void Translator::emit_leave(const Instruction& instruction) {
  const unsigned bytes = instruction.info.operand_width / 8;
  out_->lea(hR10, hRbp, 0, mode_.stack_bytes == 8);
  if (mode_.stack_bytes == 2) out_->movzx16(hR10, hR10);
  emit_access(bytes, true, false, kSs);
  out_->load_guest(hR10, bytes);
  write_gpr(kRsp, hRbp, mode_.stack_bytes);
  emit_adjust_stack(static_cast<std::int32_t>(bytes));
  write_gpr(kRbp, hR10, bytes);
}

void Translator::emit_bit_test(const Instruction& instruction) {
  const ZydisDecodedOperand& memory = instruction.operands[0];
  const auto bit = *gpr_operand(instruction.operands[1]);
  const unsigned bytes = bit.bytes, shift = bytes == 8 ? 6 : bytes == 4 ? 5 : 4;
  emit_effective_address(hR10, instruction, memory, instruction.info.address_width == 64);
  // The unit the bit is in: address + (signed bit number / bits in a unit) * bytes in a unit.
  const Host source = read_gpr(bit.number, hR11);
  if (bytes == 8) {
    if (source != hR11) out_->mov(hR11, source);
  } else if (bytes == 4) {
    out_->movsxd(hR11, source);
  } else {
    out_->movsx16(hR11, source);
  }
  emit_bit_unit(shift);
  out_->lea(hR10, hR10, hR11, bytes, 0, instruction.info.address_width == 64);
  if (instruction.info.address_width == 16) out_->movzx16(hR10, hR10);
  emit_segment_base(memory);
  const bool writes = instruction.info.mnemonic != ZYDIS_MNEMONIC_BT;
  emit_access(bytes, true, writes, segment_of(memory.mem.segment));
  emit_bit_number(bit.number, shift);
  Recoding recoding;
  recoding.memory = Recoding::Memory::R10R11;
  recoding.reg = hRcx;
  if (!recode(*out_, instruction, recoding)) out_->u8(0x0f), out_->u8(0x0b);
}

void Translator::emit_moffs(const Instruction& instruction) {
  const bool store = is_memory(instruction.operands[0]);
  const ZydisDecodedOperand& memory = instruction.operands[store ? 0 : 1];
  const unsigned bytes = memory.size / 8u;
  std::uint64_t address = static_cast<std::uint64_t>(memory.mem.disp.value);
  if (instruction.info.address_width < 64) address &= (1ULL << instruction.info.address_width) - 1;
  out_->mov(hR10, address);
  emit_segment_base(memory);
  emit_access(bytes, !store, store, segment_of(memory.mem.segment));
  if (store) {
    out_->store_guest(hRax, bytes);
  } else {
    out_->load_guest(hRax, bytes);
  }
}

void Translator::emit_exchange_rax_r8(unsigned bytes) {
  // F3 REX.B 90: the REX prefix makes an XCHG of what would be PAUSE, whatever the decoder says.
  read_gpr(kR8, hRcx);
  out_->mov(hR10, hRax);
  if (bytes == 2) {
    out_->mov16(hRax, hRcx);
  } else if (bytes == 4) {
    out_->mov32(hR10, hRax);
    out_->mov32(hRax, hRcx);
  } else {
    out_->mov(hRax, hRcx);
  }
  write_gpr(kR8, hR10, bytes == 2 ? 2 : 8);
}

void Translator::emit_clear_vectors(bool whole) {
  // Only the eight registers there are outside of 64-bit mode. The short forms with VEX clear the upper half.
  for (unsigned i = 0; i < 8; ++i) {
    out_->u8(0xc5);
    out_->u8(whole ? 0x80u | (~i & 15) << 3 : 0xf8u);
    out_->u8(whole ? 0x57u : 0x28u);  // vxorps xmm, xmm, xmm; vmovaps xmm, xmm
    out_->modrm(3, i, i);
  }
}

void Translator::emit_jump_to(std::uint64_t target) {
  if (mode_.checked) {
    out_->mov(hRcx, new_exit(Exit::Kind::Checked, target));
    out_->jump_context(offset_of_thunk(kThunkLink));
    return;
  }
  if (same_page(target) && !crosses_) {
    const std::uint32_t number = new_exit(Exit::Kind::SamePage, target) - first_exit_;
    out_->align_for_patching(1);
    stubs_.push_back({Stub::Kind::Link, out_->jump(), number});
    return;
  }
  const std::uint32_t number = new_exit(Exit::Kind::OtherPage, target);
  out_->mov(hRcx, number);
  out_->jump_context(kSlotsOffset + 8 * number);
}

void Translator::emit_indirect(std::int32_t stack_adjustment) {
  const std::uint32_t info = (static_cast<std::uint32_t>(stack_adjustment) & 0x3ffff) | at_ << kJumpInfoRipShift;
  if (!mode_.checked) {
    const auto cache = kJumpCacheOffset + static_cast<std::uint32_t>(mode_.tlb) * kJumpCacheBytes;
    out_->movzx16(hR11, hR10);
    out_->lea(hR11, hR11, hR11, 1, 0);
    out_->load_indexed(hRcx, hR11, cache);
    out_->lea(hRcx, hRcx, hR10, 1, 0);
    out_->skip_if_rcx_zero(5 + 8);
    out_->mov(hRcx, info);
    out_->call_context(offset_of_thunk(kThunkIndirect));
    if (stack_adjustment != 0) emit_adjust_stack(stack_adjustment);
    out_->jump_indexed(hR11, cache + 8);
  } else {
    out_->mov(hRcx, info);
    out_->call_context(offset_of_thunk(kThunkIndirect));
  }
}

Translator::Flow Translator::emit_jcc(const Instruction& instruction) {
  const unsigned condition = instruction.info.opcode & 15;
  const std::uint64_t target =
      mask_rip(instruction.next_rip() + static_cast<std::uint64_t>(instruction.operands[0].imm.value.s),
               instruction.info.operand_width);
  ++branches_;
  if (mode_.checked) {
    const std::uint32_t number = new_exit(Exit::Kind::Checked, target) - first_exit_;
    stubs_.push_back({Stub::Kind::Link, out_->jump_if(condition), number});
    return Flow::Continue;
  }
  if (target <= instruction.rip) emit_poll();
  if (same_page(target) && !crosses_) {
    const std::uint32_t number = new_exit(Exit::Kind::SamePage, target) - first_exit_;
    out_->align_for_patching(2);
    stubs_.push_back({Stub::Kind::Link, out_->jump_if(condition), number});
  } else {
    const std::uint32_t number = new_exit(Exit::Kind::OtherPage, target) - first_exit_;
    stubs_.push_back({Stub::Kind::Slot, out_->jump_if(condition), number});
  }
  return Flow::Continue;
}

Translator::Flow Translator::emit_loop(const Instruction& instruction) {
  const ZydisMnemonic mnemonic = instruction.info.mnemonic;
  const bool counts =
      mnemonic == ZYDIS_MNEMONIC_LOOP || mnemonic == ZYDIS_MNEMONIC_LOOPE || mnemonic == ZYDIS_MNEMONIC_LOOPNE;
  const std::uint64_t target =
      mask_rip(instruction.next_rip() + static_cast<std::uint64_t>(instruction.operands[0].imm.value.s),
               instruction.info.operand_width);
  const unsigned width = instruction.info.address_width;
  if (target <= instruction.rip) emit_poll();
  out_->lea(hRcx, hR9, counts ? -1 : 0, width == 64);
  if (counts && width == 16) {
    out_->mov16(hR9, hRcx);
  } else if (counts) {
    out_->mov(hR9, hRcx);
  }
  if (width == 16) out_->movzx16(hRcx, hRcx);
  // LOOP leaves when the count is zero (or ZF is not as wanted); JRCXZ jumps when it is.
  const std::uint32_t zero = out_->short_jump_if_rcx_zero();
  if (counts) {
    std::optional<std::uint32_t> other;
    if (mnemonic == ZYDIS_MNEMONIC_LOOPE) other = out_->jump_if(5);
    if (mnemonic == ZYDIS_MNEMONIC_LOOPNE) other = out_->jump_if(4);
    emit_jump_to(target);
    if (other) out_->bind(*other);
    out_->bind_short(zero);
    emit_jump_to(mask_rip(instruction.next_rip(), 64));
  } else {
    emit_jump_to(mask_rip(instruction.next_rip(), 64));
    out_->bind_short(zero);
    emit_jump_to(target);
  }
  return Flow::End;
}

void Translator::emit_jump_or_call(const Instruction& instruction) {
  const ZydisDecodedOperand& operand = instruction.operands[0];
  const bool call = instruction.info.mnemonic == ZYDIS_MNEMONIC_CALL;
  const unsigned width = instruction.info.operand_width, bytes = width / 8;
  const bool direct = operand.type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
  const std::uint64_t target =
      direct ? mask_rip(instruction.next_rip() + static_cast<std::uint64_t>(operand.imm.value.s), width) : 0;
  // Every cycle of code has a jump backwards, a call, a return, or an indirect jump in it.
  if (call || !direct || target <= instruction.rip) emit_poll();
  if (!direct) {
    if (is_memory(operand)) {
      emit_address(instruction, operand);
      emit_access(bytes, true, false, segment_of(operand.mem.segment));
      out_->load_guest(hR10, bytes);
      if (bytes == 2) out_->movzx16(hR10, hR10);
    } else {
      const Host source = read_gpr(gpr_operand(operand)->number, hR10);
      if (bytes == 8) {
        if (source != hR10) out_->mov(hR10, source);
      } else if (bytes == 4) {
        out_->mov32(hR10, source);
      } else {
        out_->movzx16(hR10, source);
      }
    }
    if (call) out_->store(offset_of_scratch(11), hR10);
  }
  if (call) {
    const std::int32_t place = emit_stack_operand(-static_cast<std::int32_t>(bytes), bytes, true);
    out_->mov(hRcx, mask_rip(instruction.next_rip(), width));
    out_->store_guest(hRcx, bytes, place);
  }
  if (direct) {
    if (call) emit_adjust_stack(-static_cast<std::int32_t>(bytes));
    emit_jump_to(target);
    return;
  }
  if (call) out_->load(hR10, offset_of_scratch(11));
  emit_indirect(call ? -static_cast<std::int32_t>(bytes) : 0);
}

void Translator::emit_return(const Instruction& instruction) {
  const unsigned bytes = instruction.info.operand_width / 8;
  std::uint32_t extra = 0;
  if (instruction.operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
    extra = static_cast<std::uint32_t>(instruction.operands[0].imm.value.u);
  emit_poll();
  out_->load_guest(hR10, bytes, emit_stack_operand(0, bytes, false));
  if (bytes == 2) out_->movzx16(hR10, hR10);
  emit_indirect(static_cast<std::int32_t>(bytes + extra));
}

}  // namespace vm_platform::soft
