// Writes host instructions. Only what the translator needs; none changes the flags but where it says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/soft/context.hpp"

namespace vm_platform::soft {

/// Host registers by their encoding.
enum Host : std::uint8_t {
  hRax,
  hRcx,
  hRdx,
  hRbx,
  hRsp,
  hRbp,
  hRsi,
  hRdi,
  hR8,
  hR9,
  hR10,
  hR11,
  hR12,
  hR13,
  hR14,
  hR15
};

/// A buffer of code in the making. Overflow is remembered, not written.
class Emitter {
 public:
  /// `limit` bytes at `begin`; the code will run at the same offsets from wherever `begin` is mapped executable.
  Emitter(std::byte* begin, std::size_t limit) : begin_(begin), limit_(limit) {}

  [[nodiscard]] std::uint32_t position() const { return static_cast<std::uint32_t>(size_); }
  [[nodiscard]] bool overflowed() const { return overflowed_; }

  void u8(unsigned value) { put(static_cast<std::uint8_t>(value)); }
  void u32(std::uint32_t value) { put(value); }
  void u64(std::uint64_t value) { put(value); }
  void bytes(const std::uint8_t* data, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) u8(data[i]);
  }

  // ---- registers and constants
  void mov(Host to, Host from) { rex_rr(true, from, to), u8(0x89), modrm(3, from, to); }
  void mov32(Host to, Host from) { rex_rr(false, from, to), u8(0x89), modrm(3, from, to); }
  void mov16(Host to, Host from) { u8(0x66), mov32(to, from); }
  void mov(Host to, std::uint64_t value) {
    if (value <= UINT32_MAX) {
      rex_rr(false, hRax, to), u8(0xb8 + (to & 7)), u32(static_cast<std::uint32_t>(value));
    } else if (fits_signed_32(value)) {
      rex_rr(true, hRax, to), u8(0xc7), modrm(3, 0, to), u32(static_cast<std::uint32_t>(value));
    } else {
      rex_rr(true, hRax, to), u8(0xb8 + (to & 7)), u64(value);
    }
  }
  void movzx16(Host to, Host from) { rex_rr(false, to, from), u8(0x0f), u8(0xb7), modrm(3, to, from); }
  void movsx16(Host to, Host from) { rex_rr(true, to, from), u8(0x0f), u8(0xbf), modrm(3, to, from); }
  void movzx8(Host to, Host from) { rex_rxb(false, to, hRax, from, from >= 4), u8(0x0f), u8(0xb6), modrm(3, to, from); }
  void movsxd(Host to, Host from) { rex_rr(true, to, from), u8(0x63), modrm(3, to, from); }

  // ---- pieces of RCX
  void movzx_ecx_ch() { u8(0x0f), u8(0xb6), u8(0xcd); }
  /// CX = CH; the rest of RCX stays, as with all 16-bit and 8-bit results.
  void movzx_cx_ch() { u8(0x66), movzx_ecx_ch(); }
  /// CX = CX * 16, without what overflows.
  void shift_cx_by_4() {
    u8(0x66), lea_no_base(hRcx, hRcx, 8, 0, false);
    u8(0x66), lea(hRcx, hRcx, hRcx, 1, 0, false);
  }
  void clear_cl() { u8(0xb1), u8(0); }
  void bswap_ecx() { u8(0x0f), u8(0xc9); }

  // ---- BMI2, which leaves flags alone
  void shrx(Host to, Host from, Host count) { vex_rm(3, to, from, count, true), u8(0xf7), modrm(3, to, from); }
  void sarx(Host to, Host from, Host count) { vex_rm(2, to, from, count, true), u8(0xf7), modrm(3, to, from); }
  void shlx(Host to, Host from, Host count) { vex_rm(1, to, from, count, true), u8(0xf7), modrm(3, to, from); }
  void rorx(Host to, Host from, unsigned count) {
    u8(0xc4), u8(vex_rxb(to, hRax, from) | 3), u8(0xfb), u8(0xf0), modrm(3, to, from), u8(count);
  }
  void pext_context(Host to, Host from, std::uint32_t offset) {
    u8(0x65);
    u8(0xc4), u8(vex_rxb(to, hRax, hRax) | 2), u8(0x82 | vvvv(from)), u8(0xf5), absolute(to, offset);
  }

  // ---- memory of the context, through GS
  void load(Host to, std::uint32_t offset) { u8(0x65), rex_rr(true, to, hRax), u8(0x8b), absolute(to, offset); }
  void load32(Host to, std::uint32_t offset) { u8(0x65), rex_rr(false, to, hRax), u8(0x8b), absolute(to, offset); }
  void store(std::uint32_t offset, Host from) { u8(0x65), rex_rr(true, from, hRax), u8(0x89), absolute(from, offset); }
  void store32(std::uint32_t offset, Host from) {
    u8(0x65), rex_rr(false, from, hRax), u8(0x89), absolute(from, offset);
  }
  /// to = gs:[offset + index * 8]
  void load_indexed(Host to, Host index, std::uint32_t offset) {
    u8(0x65), rex_rxb(true, to, index, hRax), u8(0x8b), modrm(0, to, 4), u8(0xc5 | (index & 7U) << 3), u32(offset);
  }
  void jump_context(std::uint32_t offset) { u8(0x65), u8(0xff), absolute(4, offset); }
  void call_context(std::uint32_t offset) { u8(0x65), u8(0xff), absolute(2, offset); }
  void jump_indexed(Host index, std::uint32_t offset) {
    u8(0x65), rex_rxb(false, 4, index, hRax), u8(0xff), modrm(0, 4, 4), u8(0xc5 | (index & 7U) << 3), u32(offset);
  }

  // ---- these may set flags
  void and32(Host reg, std::uint8_t mask) { rex_rr(false, 4, reg), u8(0x83), modrm(3, 4, reg), u8(mask); }
  void sar(Host reg, unsigned count) { rex_rr(true, 7, reg), u8(0xc1), modrm(3, 7, reg), u8(count); }
  /// Sets (BTS) or clears (BTR) a bit.
  void change_bit(Host reg, unsigned bit, bool set) {
    rex_rr(true, set ? 5 : 6, reg), u8(0x0f), u8(0xba), modrm(3, set ? 5 : 6, reg), u8(bit);
  }
  /// An instruction `opcode` with a register and a quadword of the context.
  void context_operation(unsigned opcode, Host reg, std::uint32_t offset) {
    u8(0x65), rex_rr(true, reg, hRax), u8(opcode), absolute(reg, offset);
  }

  // ---- addresses
  /// to = base + index * scale + displacement; hRsp as index means none.
  void lea(Host to, Host base, Host index, unsigned scale, std::int32_t displacement, bool wide = true) {
    rex_rxb(wide, to, index == hRsp ? hRax : index, base), u8(0x8d);
    memory(to, base, index, scale, displacement);
  }
  /// to = index * scale + displacement
  void lea_no_base(Host to, Host index, unsigned scale, std::int32_t displacement, bool wide = true) {
    rex_rxb(wide, to, index, hRax), u8(0x8d), modrm(0, to, 4);
    u8(scale_bits(scale) << 6 | (index & 7U) << 3 | 5), u32(static_cast<std::uint32_t>(displacement));
  }
  void lea(Host to, Host base, std::int32_t displacement, bool wide = true) {
    lea(to, base, hRsp, 1, displacement, wide);
  }

  // ---- guest memory at [R10 + R11 + displacement], `size` bytes 1, 2, 4 or 8
  void load_guest(Host to, unsigned size, std::int32_t displacement = 0) {
    if (size == 2) u8(0x66);
    rex_rxb(size == 8, to, hR11, hR10, size == 1 && to >= 4), u8(size == 1 ? 0x8a : 0x8b);
    memory(to, hR10, hR11, 1, displacement);
  }
  void store_guest(Host from, unsigned size, std::int32_t displacement = 0) {
    if (size == 2) u8(0x66);
    rex_rxb(size == 8, from, hR11, hR10, size == 1 && from >= 4), u8(size == 1 ? 0x88 : 0x89);
    memory(from, hR10, hR11, 1, displacement);
  }

  // ---- control flow; the 32-bit distances are returned as positions to be bound later
  std::uint32_t jump() { return u8(0xe9), hole(); }
  std::uint32_t jump_if(unsigned condition) { return u8(0x0f), u8(0x80 + condition), hole(); }
  /// Skips `distance` bytes when RCX (or ECX) is zero.
  void skip_if_rcx_zero(unsigned distance) { u8(0xe3), u8(distance); }
  std::uint32_t short_jump_if_rcx_zero() { return u8(0xe3), u8(0), position() - 1; }
  void bind_short(std::uint32_t at) {
    if (!overflowed_) begin_[at] = static_cast<std::byte>(position() - at - 1);
  }
  void bind(std::uint32_t at) { bind(at, position()); }
  void bind(std::uint32_t at, std::uint32_t target) {
    const std::uint32_t distance = target - (at + 4);
    if (!overflowed_) std::memcpy(begin_ + at, &distance, 4);
  }
  /// Pads with a no-operation so that `ahead` bytes from here the position is a multiple of four.
  void align_for_patching(unsigned ahead) {
    static constexpr std::uint8_t kNops[4][3] = {{}, {0x90}, {0x66, 0x90}, {0x0f, 0x1f, 0x00}};
    const unsigned count = (0u - (position() + ahead)) & 3;
    bytes(kNops[count], count);
  }

  static bool fits_signed_32(std::uint64_t value) {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::int32_t>(value))) == value;
  }

  // ---- pieces, also for the recoder
  void rex_rxb(bool w, unsigned reg, unsigned index, unsigned base, bool force = false) {
    const unsigned rex = 0x40 | (w ? 8u : 0u) | (reg > 7 ? 4u : 0u) | (index > 7 ? 2u : 0u) | (base > 7 ? 1u : 0u);
    if (rex != 0x40 || force) u8(rex);
  }
  void modrm(unsigned mod, unsigned reg, unsigned rm) { u8(mod << 6 | (reg & 7U) << 3 | (rm & 7)); }
  /// A memory operand; hRsp as index means none.
  void memory(unsigned reg, Host base, Host index, unsigned scale, std::int32_t displacement) {
    const bool small = displacement >= -128 && displacement <= 127;
    const unsigned mod = displacement == 0 && (base & 7) != 5 ? 0 : small ? 1 : 2;
    if (index == hRsp && (base & 7) != 4) {
      modrm(mod, reg, base);
    } else {
      modrm(mod, reg, 4), u8(scale_bits(scale) << 6 | (index & 7U) << 3 | (base & 7));
    }
    if (mod == 1) u8(static_cast<std::uint8_t>(displacement));
    if (mod == 2) u32(static_cast<std::uint32_t>(displacement));
  }

 private:
  template <typename T>
  void put(T value) {
    if (size_ + sizeof value > limit_) {
      overflowed_ = true;
      return;
    }
    std::memcpy(begin_ + size_, &value, sizeof value);
    size_ += sizeof value;
  }
  std::uint32_t hole() { return u32(0), position() - 4; }
  void rex_rr(bool w, unsigned reg, unsigned rm) { rex_rxb(w, reg, hRax, rm); }
  static unsigned vvvv(unsigned reg) { return (~reg & 15) << 3; }
  static unsigned vex_rxb(unsigned reg, unsigned index, unsigned base) {
    return (reg > 7 ? 0u : 0x80u) | (index > 7 ? 0u : 0x40u) | (base > 7 ? 0u : 0x20u);
  }
  void vex_rm(unsigned pp, unsigned reg, unsigned rm, unsigned v, bool w) {
    u8(0xc4), u8(vex_rxb(reg, hRax, rm) | 2), u8((w ? 0x80u : 0u) | vvvv(v) | pp);
  }
  void absolute(unsigned reg, std::uint32_t offset) { modrm(0, reg, 4), u8(0x25), u32(offset); }
  static unsigned scale_bits(unsigned scale) { return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0; }
  std::byte* begin_;
  std::size_t limit_, size_ = 0;
  bool overflowed_ = false;
};

}  // namespace vm_platform::soft
