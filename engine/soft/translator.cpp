#include "engine/soft/translator.hpp"

#include <algorithm>
#include <cstring>

#include "engine/soft/classify.hpp"

namespace vm_platform::soft {
namespace {

// Longer blocks save jumps between blocks; each conditional branch in one makes the rest less likely to be run.
constexpr unsigned kMaxInstructions = 48, kMaxBranches = 2;
/// What one instruction can take at most, stubs included (measured maximum is below half of it).
constexpr std::size_t kRoomForOne = 1024;

constexpr std::uint32_t offset_of_gpr(unsigned number) {
  return static_cast<std::uint32_t>(offsetof(CpuContext, gpr) + 8 * number);
}

}  // namespace

Translator::Translator(CodeCache& cache, const HostCpu& host, const Mode& mode, std::uint64_t rip,
                       std::uint64_t cs_base, const CodeBytes& bytes)
    : cache_(cache),
      host_(host),
      mode_(mode),
      rip_(rip),
      cs_base_(cs_base),
      bytes_(bytes),
      window_(bytes.first, rip, mode.code) {}

void Translator::build(std::byte* buffer, std::size_t room, std::uint32_t first_exit) {
  out_ = &emitter_.emplace(buffer, room);
  first_exit_ = first_exit;
  Flow flow = Flow::Continue;
  const unsigned limit = mode_.checked ? 1 : kMaxInstructions;
  while (flow == Flow::Continue) {
    if ((instructions_ >= limit && interrupt_window_in_ == 0) || branches_ > kMaxBranches ||
        out_->position() + 2 * kRoomForOne > room) {
      emit_jump_to(mask_rip(rip_ + length_, 64));
      break;
    }
    const Instruction* instruction = window_.peek();
    Instruction joined;
    const std::uint8_t* code = bytes_.first.data() + length_;
    const std::size_t available = length_ < bytes_.first.size() ? bytes_.first.size() - length_ : 0;
    if (instruction == nullptr && available < 15 && goes_on(code, available, mode_.code)) {
      if (instructions_ > 0) {  // begins a block of its own
        emit_jump_to(mask_rip(rip_ + length_, 64));
        break;
      }
      if (bytes_.second.empty()) return;
      std::uint8_t both[15];
      std::memcpy(both, code, available);
      std::memcpy(both + available, bytes_.second.data(), sizeof both - available);
      if (decode(both, sizeof both, rip_, mode_.code, joined)) instruction = &joined;
      crosses_ = true;
    }
    if (interrupt_window_in_ != 0) {
      --interrupt_window_in_;
      if (interrupt_window_in_ == 0) emit_interrupt_window();
    }
    if (instruction == nullptr) {
      emit_invalid(crosses_ ? std::span<const std::uint8_t>(joined.bytes) : std::span(code, available));
      break;
    }
    if (bits64() && !mode_.checked && interrupt_window_in_ == 0 && !crosses_ && instructions_ < kMaxInstructions) {
      const AccessGroup group =
          find_access_group(window_, mode_, kMaxInstructions - instructions_, kMaxBranches + 1 - branches_);
      if (group.instructions != 0) {
        flow = emit_group(group);
        continue;
      }
    }
    begin(*instruction);
    ++instructions_;
    length_ += instruction->info.length;
    locked_ = locked_ || (instruction->info.attributes & ZYDIS_ATTRIB_HAS_LOCK) != 0 ||
              instruction->info.mnemonic == ZYDIS_MNEMONIC_XCHG;
    flow = emit(*instruction);
    window_.pop();
    if (crosses_ && flow == Flow::Continue) {
      emit_jump_to(mask_rip(rip_ + length_, 64));
      break;
    }
  }
  emit_cold_groups();
  emit_stubs();
}

void Translator::begin(const Instruction& instruction) {
  at_ = static_cast<std::uint32_t>(instruction.rip - rip_);
  accesses_ = 0;
  starts_.emplace_back(out_->position(), at_);
}

void Translator::emit_invalid(std::span<const std::uint8_t> code) {
  Instruction invalid{};
  invalid.rip = rip_ + length_;
  begin(invalid);
  ++instructions_;
  invalid.info.mnemonic = ZYDIS_MNEMONIC_INVALID;
  invalid.info.length = static_cast<std::uint8_t>(is_too_long(code.data(), code.size(), mode_.code) ? 16 : 1);
  length_ += static_cast<std::uint32_t>(std::clamp<std::size_t>(code.size(), 1, 15));
  emit_execute(invalid);
}

Block* Translator::translate() {
  const std::uint32_t first_exit = cache_.exit_count();
  build(cache_.free_code(), cache_.free_bytes(), first_exit);
  if (instructions_ == 0) return nullptr;
  auto block = std::make_unique<Block>();
  block->physical = bytes_.physical;
  if (crosses_) block->second_page = bytes_.second_page;
  block->rip = rip_;
  block->cs_base = cs_base_;
  block->mode = mode_;
  block->code = cache_.free_offset();
  block->code_size = out_->position();
  block->guest_size = static_cast<std::uint16_t>(length_);
  block->instructions = static_cast<std::uint16_t>(instructions_);
  block->locked = locked_;
  block->kept = bytes_.in_ram;
  block->first_exit = first_exit;
  block->exits = static_cast<std::uint32_t>(exits_.size());
  for (Exit& exit : exits_) {
    exit.from = block.get();
    exit.patch += block->code;
    exit.stub += block->code;
    cache_.add_exit(std::move(exit));
  }
  return cache_.add(std::move(block));
}

std::optional<std::uint32_t> Translator::locate(const Block& block, std::uint32_t host_offset) {
  std::vector<std::byte> scratch(256 * kKiB);  // as much room as the cache never has less of
  build(scratch.data(), scratch.size(), block.first_exit);
  std::optional<std::uint32_t> found;
  std::uint32_t nearest = 0;
  for (const auto& [host, guest] : starts_)
    if (host <= host_offset && host >= nearest) nearest = host, found = guest;
  return found;
}

Translator::Flow Translator::emit(const Instruction& instruction) {
  const Treatment treatment = treatment_of(instruction);
  if (treatment == Treatment::Nothing) return Flow::Continue;
  if (bits64() && mode_.kernel && !mode_.checked) {
    switch (instruction.info.mnemonic) {
      case ZYDIS_MNEMONIC_CLI: emit_interrupt_flag(false); return Flow::Continue;
      case ZYDIS_MNEMONIC_STI:
        if (!can_inline_sti(instruction)) break;
        emit_interrupt_flag(true);
        interrupt_window_in_ = 2;
        return Flow::Continue;
      case ZYDIS_MNEMONIC_SWAPGS: emit_swapgs(); return Flow::Continue;
      case ZYDIS_MNEMONIC_PUSHFQ: emit_push_flags(); return Flow::Continue;
      case ZYDIS_MNEMONIC_POPFQ: emit_pop_flags(instruction); return Flow::Continue;
      default: break;
    }
  }
  if (treatment == Treatment::Execute || !ensure_fpu(instruction)) {
    emit_execute(instruction);
    return Flow::End;
  }
  // Segments with a base or a limit outside of 64-bit mode: each access asks C++.
  if (!bits64() && !mode_.checked) {
    for (unsigned i = 0; i < instruction.info.operand_count; ++i) {
      const ZydisDecodedOperand& operand = instruction.operands[i];
      if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY &&
          (operand.mem.segment == ZYDIS_REGISTER_FS || operand.mem.segment == ZYDIS_REGISTER_GS ||
           operand.mem.segment == ZYDIS_REGISTER_CS)) {
        emit_retry();
        return Flow::End;
      }
    }
  }
  if (leaves_half(instruction)) {
    emit_retry();
    return Flow::End;
  }
  if (treatment == Treatment::Template) return emit_template(instruction);
  if (instruction.info.mnemonic == ZYDIS_MNEMONIC_PAUSE && instruction.info.raw.rex.B != 0) {
    emit_exchange_rax_r8(instruction.info.operand_width / 8);
    return Flow::Continue;
  }
  if (!bits64() && (instruction.info.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER ||
                    instruction.info.mnemonic == ZYDIS_MNEMONIC_VZEROALL)) {
    emit_clear_vectors(instruction.info.mnemonic == ZYDIS_MNEMONIC_VZEROALL);
    return Flow::Continue;
  }
  emit_copy(instruction);
  return Flow::Continue;
}

bool Translator::leaves_half(const Instruction& instruction) const {
  const ZydisDecodedOperand& target = instruction.operands[0];
  if (!bits64() || mode_.checked || target.type != ZYDIS_OPERAND_TYPE_IMMEDIATE || target.imm.is_relative == 0)
    return false;
  const std::uint64_t next = instruction.next_rip();
  return ((next ^ (next + static_cast<std::uint64_t>(target.imm.value.s))) >> 47) != 0;
}

bool Translator::ensure_fpu(const Instruction& instruction) {
  const FpuUse use = fpu_use_of(instruction);
  if (use == FpuUse::None) return true;
  if (!is_usable(mode_, use)) return false;
  if (fpu_checked_ || use == FpuUse::Vex) return true;
  fpu_checked_ = true;
  out_->load(hRcx, offsetof(CpuContext, fpu_absent));
  const std::uint32_t present = out_->short_jump_if_rcx_zero();
  out_->call_context(offset_of_thunk(kThunkFpuLoad));
  out_->bind_short(present);
  return true;
}

Host Translator::read_gpr(unsigned number, Host scratch) {
  if (!in_memory(number)) return static_cast<Host>(kHostOf[number]);
  out_->load(scratch, offset_of_gpr(number));
  return scratch;
}

void Translator::write_gpr(unsigned number, Host from, unsigned bytes) {
  if (in_memory(number)) {
    if (bytes == 2) {  // merge: the register's home is eight bytes
      const Host other = from == hR11 ? hRcx : hR11;
      out_->load(other, offset_of_gpr(number));
      out_->mov16(other, from);
      out_->store(offset_of_gpr(number), other);
    } else {
      out_->store(offset_of_gpr(number), from);
    }
    return;
  }
  const auto to = static_cast<Host>(kHostOf[number]);
  if (bytes == 2) {
    out_->mov16(to, from);
  } else if (bytes == 4) {
    out_->mov32(to, from);
  } else {
    out_->mov(to, from);
  }
}

void Translator::emit_copy(const Instruction& instruction) {
  const ZydisDecodedInstruction& info = instruction.info;
  Recoding recoding;
  bool high = false, implicit_rcx = false, rcx_written = false, memory = false, guest_ch = false;
  for (unsigned i = 0; i < info.operand_count; ++i) {
    const ZydisDecodedOperand& operand = instruction.operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY) {
      memory = true;
      recoding.displacement =
          emit_operand(instruction, operand, operand.size / 8u, (operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0,
                       (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0);
    } else if (const auto gpr = gpr_operand(operand)) {
      high = high || gpr->high;
      const bool encoded =
          operand.encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG || operand.encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
          operand.encoding == ZYDIS_OPERAND_ENCODING_NDSNDD || operand.encoding == ZYDIS_OPERAND_ENCODING_OPCODE;
      if ((!encoded || gpr->high) && gpr->number == kRcx) {
        implicit_rcx = true;
        guest_ch = guest_ch || gpr->high;
        rcx_written = rcx_written || (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
      }
    }
  }
  if (memory) recoding.memory = Recoding::Memory::R10R11;

  // Instructions with AH, CH, DH or BH cannot have a REX prefix, so nothing of theirs may be in R8 or above.
  bool rsi_borrowed = false;
  if (high) {
    if (memory && guest_ch) {
      rsi_borrowed = true;
      out_->store(offset_of_scratch(10), hRsi);
      out_->lea(hRsi, hR10, hR11, 1, 0);
      recoding.memory = Recoding::Memory::Rsi;
    } else if (memory) {
      out_->lea(hRcx, hR10, hR11, 1, 0);
      recoding.memory = Recoding::Memory::Rcx;
    } else {
      for (unsigned i = 0; i < info.operand_count_visible; ++i) {  // CL or ECX beside AH: through the real RCX
        const auto gpr = gpr_operand(instruction.operands[i]);
        if (!gpr || gpr->high || gpr->number != kRcx) continue;
        implicit_rcx = true;
        rcx_written = rcx_written || (instruction.operands[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
      }
    }
  }

  // A free scratch register for each operand whose guest register has no host register of its own.
  Host pool[3];
  unsigned free = 0;
  const bool rcx_free = !implicit_rcx && recoding.memory != Recoding::Memory::Rcx;
  if (!memory) pool[free++] = hR10, pool[free++] = hR11;
  if (rcx_free) pool[free++] = hRcx;
  std::optional<Host> stand_in[16];
  bool written[16] = {};
  unsigned rsp_bytes = 0;  // of RSP that are written,
  Host rsp_host = hRcx;    // by way of this
  for (unsigned i = 0; i < info.operand_count_visible; ++i) {
    const ZydisDecodedOperand& operand = instruction.operands[i];
    const auto gpr = gpr_operand(operand);
    if (!gpr || gpr->high) continue;
    Host host = in_memory(gpr->number) ? hRax : static_cast<Host>(kHostOf[gpr->number]);
    if (in_memory(gpr->number)) {
      if (!stand_in[gpr->number]) {
        if (free == 0) {
          out_->lea(hR10, hR10, hR11, 1, 0);
          recoding.memory = Recoding::Memory::R10;
          pool[free++] = hR11;
        }
        stand_in[gpr->number] = pool[--free];
        out_->load(*stand_in[gpr->number], offset_of_gpr(gpr->number));
      }
      host = *stand_in[gpr->number];
      written[gpr->number] = written[gpr->number] || (operand.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0;
    } else if (high && gpr->number == kRcx) {
      host = hRcx;
    } else if (high && gpr->number == kRsp) {
      rsp_bytes = gpr->bytes;
      if ((operand.actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0) {  // CRC32: RCX may be taken by CH
        rsi_borrowed = true;
        out_->store(offset_of_scratch(10), hRsi);
        out_->mov(hRsi, static_cast<Host>(kHostOf[kRsp]));
        rsp_host = hRsi;
      }  // else MOVZX or MOVSX; the source may be CH, read before RCX is written
      host = rsp_host;
    }
    recoding.replace(operand.encoding, host);
  }
  if (implicit_rcx) out_->mov(hRcx, hR9);
  if (!recode(*out_, instruction, recoding)) out_->u8(0x0f), out_->u8(0x0b);  // classify lets none of these through
  for (unsigned number = kR8; number <= kR11; ++number)
    if (stand_in[number] && written[number]) out_->store(offset_of_gpr(number), *stand_in[number]);
  if (rsp_bytes != 0) write_gpr(kRsp, rsp_host, rsp_bytes == 2 ? 2 : 8);
  if (rcx_written) out_->mov(hR9, hRcx);
  if (rsi_borrowed) out_->load(hRsi, offset_of_scratch(10));
}

void Translator::emit_execute(const Instruction& instruction) {
  out_->mov(hRcx, new_exit(Exit::Kind::Execute, instruction.rip, &instruction));
  out_->jump_context(offset_of_thunk(kThunkExecute));
}

void Translator::emit_retry() {
  out_->mov(hRcx, new_exit(Exit::Kind::Retry, rip_ + at_));
  out_->jump_context(offset_of_thunk(kThunkExecute));
}

std::uint64_t Translator::mask_rip(std::uint64_t rip, unsigned bits) const {
  if (mode_.code == CodeSize::Bits64) return rip;
  return rip & (bits == 16 ? 0xffffu : 0xffffffffu);
}

std::uint32_t Translator::new_exit(Exit::Kind kind, std::uint64_t target_rip, const Instruction* instruction) {
  Exit exit;
  exit.kind = kind;
  exit.target_rip = target_rip;
  if (instruction != nullptr) exit.instruction = std::make_shared<const Instruction>(*instruction);
  exits_.push_back(std::move(exit));
  return first_exit_ + static_cast<std::uint32_t>(exits_.size() - 1);
}

void Translator::emit_effective_address(Host to, const Instruction& instruction, const ZydisDecodedOperand& operand,
                                        bool wide) {
  const auto& memory = operand.mem;
  const auto number_of = [](ZydisRegister reg) { return static_cast<unsigned>(ZydisRegisterGetId(reg)); };
  const std::int64_t displacement = memory.disp.has_displacement ? memory.disp.value : 0;
  if (memory.base == ZYDIS_REGISTER_RIP || memory.base == ZYDIS_REGISTER_EIP) {
    const std::uint64_t address = instruction.next_rip() + static_cast<std::uint64_t>(displacement);
    out_->mov(to, wide ? address : address & 0xffffffff);
    return;
  }
  const bool has_base = memory.base != ZYDIS_REGISTER_NONE, has_index = memory.index != ZYDIS_REGISTER_NONE;
  const auto small = static_cast<std::int32_t>(displacement);
  if (!has_base && !has_index) {
    std::uint64_t address = static_cast<std::uint64_t>(displacement);
    if (instruction.info.address_width == 32) address &= 0xffffffff;
    if (instruction.info.address_width == 16) address &= 0xffff;
    out_->mov(to, wide ? address : address & 0xffffffff);
    return;
  }
  const Host index = has_index ? read_gpr(number_of(memory.index), hR11) : hRsp;
  if (!has_base) {
    out_->lea_no_base(to, index, memory.scale, small, wide);
  } else {
    const Host base = read_gpr(number_of(memory.base), hR10);
    out_->lea(to, base, index, memory.scale == 0 ? 1 : memory.scale, small, wide);
  }
  if (instruction.info.address_width == 16) out_->movzx16(to, to);
}

void Translator::emit_address(const Instruction& instruction, const ZydisDecodedOperand& operand) {
  emit_effective_address(hR10, instruction, operand, instruction.info.address_width == 64);
  emit_segment_base(operand);
}

void Translator::emit_segment_base(const ZydisDecodedOperand& operand) {
  if (mode_.checked) return;
  const SegmentRegister segment = segment_of(operand.mem.segment);
  if (segment != kFs && segment != kGs) return;
  out_->load(hR11, static_cast<std::uint32_t>(offsetof(CpuContext, segments) + sizeof(Segment) * segment +
                                              offsetof(Segment, base)));
  out_->lea(hR10, hR10, hR11, 1, 0);
}

void Translator::emit_access(unsigned bytes, bool read, bool write, SegmentRegister segment) {
  const auto tlb = static_cast<std::uint32_t>(mode_.tlb);
  const std::uint32_t info = bytes | (write ? kInfoWrite : 0) | (read ? kInfoRead : 0) | tlb << kInfoTlbShift |
                             static_cast<std::uint32_t>(segment) << kInfoSegmentShift | accesses_++ << kInfoIndexShift |
                             at_ << kInfoRipShift;
  if (mode_.checked) {
    out_->mov(hRcx, info);
    out_->call_context(offset_of_thunk(kThunkCheckedAccess));
    return;
  }
  const std::uint32_t miss = emit_probe(bytes, write);
  stubs_.push_back({Stub::Kind::Miss, miss, info, out_->position()});
}

std::int32_t Translator::emit_operand(const Instruction& instruction, const ZydisDecodedOperand& operand,
                                      unsigned bytes, bool read, bool write) {
  if (place_) return *place_;
  emit_address(instruction, operand);
  emit_access(bytes, read, write, segment_of(operand.mem.segment));
  return 0;
}

std::int32_t Translator::emit_stack_operand(std::int32_t displacement, unsigned bytes, bool write) {
  if (place_) return *place_;
  emit_stack_address(displacement);
  emit_access(bytes, !write, write, kSs);
  return 0;
}

void Translator::emit_stack_address(std::int32_t displacement) {
  out_->lea(hR10, hR8, displacement, mode_.stack_bytes == 8);
  if (mode_.stack_bytes == 2) out_->movzx16(hR10, hR10);
}

void Translator::emit_adjust_stack(std::int32_t amount) {
  if (mode_.stack_bytes == 8) {
    out_->lea(hR8, hR8, amount);
  } else if (mode_.stack_bytes == 4) {
    out_->lea(hR8, hR8, amount, false);
  } else {
    out_->lea(hRcx, hR8, amount);
    out_->mov16(hR8, hRcx);
  }
}

void Translator::emit_poll() {
  if (mode_.checked) return;  // one instruction, then C++ looks
  out_->load(hRcx, offsetof(CpuContext, poll));
  out_->skip_if_rcx_zero(5);
  stubs_.push_back({Stub::Kind::Poll, out_->jump(), at_ << kInfoRipShift});
}

void Translator::emit_stubs() {
  // Taken by index: binding a stub does not add others.
  for (const Stub& stub : stubs_) {
    out_->bind(stub.jump);
    switch (stub.kind) {
      case Stub::Kind::Link: {
        Exit& exit = exits_[stub.value];
        exit.patch = stub.jump;
        exit.stub = out_->position();
        // By way of the slot, which stays at the link thunk unless the target goes on in another page.
        out_->mov(hRcx, first_exit_ + stub.value);
        out_->jump_context(kSlotsOffset + 8 * (first_exit_ + stub.value));
        break;
      }
      case Stub::Kind::Slot:
        out_->mov(hRcx, first_exit_ + stub.value);
        out_->jump_context(kSlotsOffset + 8 * (first_exit_ + stub.value));
        break;
      case Stub::Kind::Miss:
        out_->mov(hRcx, stub.value);
        out_->call_context(offset_of_thunk(kThunkMiss));
        out_->bind(out_->jump(), stub.back);
        break;
      case Stub::Kind::Poll:
        out_->mov(hRcx, stub.value);
        out_->call_context(offset_of_thunk(kThunkPoll));
        break;
    }
  }
}

}  // namespace vm_platform::soft
