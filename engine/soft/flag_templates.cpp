// CLI, STI, PUSHF, POPF and SWAPGS of a 64-bit kernel, which uses them for every lock it takes and every way in.
#include "engine/soft/classify.hpp"
#include "engine/soft/translator.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint32_t kSystemFlags = offsetof(CpuContext, system_flags);

}  // namespace

bool Translator::can_inline_sti(const Instruction& instruction) const {
  // The instruction in the shadow must be followed by another one in this block, where the window can open.
  const std::size_t offset = length_;
  if (offset + 30 > bytes_.first.size() || crosses_) return false;
  const auto next = decode(bytes_.first.data() + offset, 15, instruction.next_rip(), mode_.code);
  if (!next || next->info.mnemonic == ZYDIS_MNEMONIC_STI || fpu_use_of(*next) != FpuUse::None) return false;
  const Treatment treatment = treatment_of(*next);
  return treatment == Treatment::Copy || treatment == Treatment::Nothing;
}

void Translator::emit_interrupt_window() {
  out_->load(hRcx, offsetof(CpuContext, interrupt_waiting));
  out_->skip_if_rcx_zero(5);
  stubs_.push_back({Stub::Kind::Poll, out_->jump(), length_ << kInfoRipShift});
}

void Translator::emit_swapgs() {
  constexpr auto kBase =
      static_cast<std::uint32_t>(offsetof(CpuContext, segments) + sizeof(Segment) * kGs + offsetof(Segment, base));
  out_->load(hRcx, kBase);
  out_->load(hR10, offsetof(CpuContext, kernel_gs_base));
  out_->store(kBase, hR10);
  out_->store(offsetof(CpuContext, kernel_gs_base), hRcx);
}

void Translator::emit_push_flags() {
  emit_stack_address(-8);
  emit_access(8, false, true, kSs);
  emit_put_flags_aside();
  out_->store(offset_of_scratch(1), hRax);
  static constexpr std::uint8_t kJoin[] = {0x0f, 0xb6, 0xcc,                    // movzx ecx, ah
                                           0x0f, 0xb6, 0xc0,                    // movzx eax, al
                                           0x81, 0xe1, 0xd5, 0x00, 0x00, 0x00,  // and ecx, 0xd5
                                           0xc1, 0xe0, 0x0b,                    // shl eax, 11
                                           0x09, 0xc1};                         // or ecx, eax
  out_->bytes(kJoin, sizeof kJoin);
  out_->context_operation(0x0b, hRcx, kSystemFlags);                             // or rcx, system_flags
  static constexpr std::uint8_t kMask[] = {0x81, 0xe1, 0xff, 0xff, 0xfc, 0xff};  // and ecx, ~(VM | RF)
  out_->bytes(kMask, sizeof kMask);
  out_->store_guest(hRcx, 8);
  out_->load(hRax, offset_of_scratch(1));
  emit_bring_flags_back();
  emit_adjust_stack(-8);
}

void Translator::emit_pop_flags(const Instruction& instruction) {
  emit_stack_address(0);
  emit_access(8, true, false, kSs);
  out_->load_guest(hR10, 8);
  // Anything but IF and the arithmetic flags is for C++ (which sets the flags that are lost here).
  out_->mov(hRcx, hR10);
  out_->context_operation(0x33, hRcx, kSystemFlags);                                     // xor rcx, system_flags
  static constexpr std::uint8_t kOthers[] = {0x48, 0x81, 0xe1, 0x2a, 0xf5, 0xff, 0xff};  // and rcx, ~(arithmetic | IF)
  out_->bytes(kOthers, sizeof kOthers);
  const std::uint32_t plain = out_->jump_if(4);  // jz
  emit_execute(instruction);
  out_->bind(plain);
  static constexpr std::uint8_t kSystem[] = {0x4c, 0x89, 0xd1, 0x48, 0x81, 0xe1, 0x2a, 0xf7, 0xff, 0xff};
  out_->bytes(kSystem, sizeof kSystem);  // mov rcx, r10; and rcx, ~arithmetic
  out_->store(kSystemFlags, hRcx);
  out_->lea(hR8, hR8, 8);
  out_->store(offset_of_scratch(0), hRax);
  static constexpr std::uint8_t kLoad[] = {0x44, 0x89, 0xd0,  // mov eax, r10d
                                           0x89, 0xc1,        // mov ecx, eax
                                           0xc1, 0xe9, 0x0b,  // shr ecx, 11
                                           0x83, 0xe1, 0x01,  // and ecx, 1
                                           0x88, 0xc4,        // mov ah, al
                                           0x88, 0xc8,        // mov al, cl
                                           0x04, 0x7f,        // add al, 0x7f
                                           0x9e};             // sahf
  out_->bytes(kLoad, sizeof kLoad);
  out_->load(hRax, offset_of_scratch(0));
  emit_interrupt_window();
}

}  // namespace vm_platform::soft
