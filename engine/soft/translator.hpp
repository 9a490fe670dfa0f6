// From guest code to host code, one block at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/soft/access_group.hpp"
#include "engine/soft/code_cache.hpp"
#include "engine/soft/emitter.hpp"
#include "engine/soft/entry.hpp"
#include "engine/soft/recode.hpp"
#include "engine/soft/semantics/host_cpu.hpp"

namespace vm_platform::soft {

/// Per-CPU tables that generated code reaches through GS, behind the CpuContext in one mapping.
inline constexpr std::uint32_t kJumpCacheOffset = 128 * 1024;
inline constexpr std::uint32_t kJumpCacheBytes = kJumpCacheEntries * sizeof(JumpCacheEntry);
inline constexpr std::uint32_t kSlotsOffset = kJumpCacheOffset + kTlbSets * kJumpCacheBytes;
inline constexpr std::uint32_t kCpuMappingBytes = kSlotsOffset + CodeCache::kMaxExits * 8;

/// The bytes to translate, as the CPU would fetch them.
struct CodeBytes {
  std::span<const std::uint8_t> first;   ///< To the end of the page.
  std::span<const std::uint8_t> second;  ///< The next page, if it has been fetched; may be empty.
  std::uint64_t physical = 0;            ///< Guest-physical address of the first byte.
  std::uint64_t second_page = 0;         ///< Of `second`.
  bool in_ram = true;                    ///< False: the block is not kept (Block::kept).
};

class Translator {
 public:
  Translator(CodeCache& cache, const HostCpu& host, const Mode& mode, std::uint64_t rip, std::uint64_t cs_base,
             const CodeBytes& bytes);

  /// Null when the very first instruction goes on in the next page and `bytes.second` is empty. Needs the world's lock.
  Block* translate();

  /// Translates a block once more without keeping it, to learn which instruction the host address `host_offset` (from
  /// the block's beginning) belongs to. Returns the instruction's offset in the block.
  std::optional<std::uint32_t> locate(const Block& block, std::uint32_t host_offset);

 private:
  enum class Flow : std::uint8_t { Continue, End };
  struct Stub {
    enum class Kind : std::uint8_t { Link, Slot, Miss, Poll } kind;
    std::uint32_t jump;      ///< The distance to bind to the stub.
    std::uint32_t value;     ///< Exit (from the block's first) or access info.
    std::uint32_t back = 0;  ///< Miss: where to go on.
  };

  /// A group once more, each access with a look into the TLB of its own: where one for all does not do.
  struct ColdGroup {
    std::uint32_t jump;  ///< The distance to bind to it.
    const Instruction* first;
    std::size_t instructions;
    bool fpu_checked;                        ///< As it was at the beginning.
    std::optional<std::uint32_t> back = {};  ///< Where to go on.
  };

  void build(std::byte* buffer, std::size_t room, std::uint32_t first_exit);
  void begin(const Instruction& instruction);
  /// #UD, or #GP where the bytes go on for too long. `code`: as much of it as there is, 15 bytes at least over an edge.
  void emit_invalid(std::span<const std::uint8_t> code);
  Flow emit(const Instruction& instruction);
  Flow emit_group(const AccessGroup& group);
  void emit_cold_groups();
  /// A direct jump to where it may fault for its target, which is the checked path's to find out.
  [[nodiscard]] bool leaves_half(const Instruction& instruction) const;
  bool ensure_fpu(const Instruction& instruction);
  void emit_copy(const Instruction& instruction);
  void emit_execute(const Instruction& instruction);
  void emit_retry();
  void emit_stubs();

  // templates.cpp
  Flow emit_template(const Instruction& instruction);
  void emit_lea(const Instruction& instruction);
  void emit_bit_test(const Instruction& instruction);
  void emit_moffs(const Instruction& instruction);
  void emit_push(const Instruction& instruction);
  void emit_pop(const Instruction& instruction);
  void emit_leave(const Instruction& instruction);
  void emit_exchange_rax_r8(unsigned bytes);
  /// VZEROALL, or only the upper halves (VZEROUPPER), outside of 64-bit mode.
  void emit_clear_vectors(bool whole);
  Flow emit_jcc(const Instruction& instruction);
  Flow emit_loop(const Instruction& instruction);
  void emit_jump_or_call(const Instruction& instruction);
  void emit_return(const Instruction& instruction);
  void emit_jump_to(std::uint64_t target);
  /// Jumps to the RIP in R10 after adding `stack_adjustment` to the guest's RSP.
  void emit_indirect(std::int32_t stack_adjustment);

  // shift_templates.cpp: what has another form where the host has no BMI2
  /// Frees the host's flags and RAX: the guest's flags go into AH and AL, its RAX into memory.
  void emit_put_flags_aside();
  void emit_bring_flags_back();
  void emit_interrupt_flag(bool set);
  void emit_rdtsc(const Instruction& instruction);
  /// R11, a signed bit number, becomes the number of the unit of 2^shift bits that the bit is in. RCX is lost.
  void emit_bit_unit(unsigned shift);
  /// After emit_bit_unit, whatever happened to R11 and RCX since: RCX = the bit's number within its unit.
  void emit_bit_number(unsigned number, unsigned shift);

  // flag_templates.cpp
  [[nodiscard]] bool can_inline_sti(const Instruction& instruction) const;
  void emit_swapgs();
  void emit_push_flags();
  void emit_pop_flags(const Instruction& instruction);
  /// Leaves at the next instruction if an interrupt waits for IF.
  void emit_interrupt_window();

  // operands
  [[nodiscard]] std::uint64_t mask_rip(std::uint64_t rip, unsigned bits) const;
  /// R10 = linear address (checked: offset) of a memory operand. R11 and RCX are lost.
  void emit_address(const Instruction& instruction, const ZydisDecodedOperand& operand);
  /// Makes a linear address of the offset in R10. R11 is lost.
  void emit_segment_base(const ZydisDecodedOperand& operand);
  void emit_effective_address(Host to, const Instruction& instruction, const ZydisDecodedOperand& operand, bool wide);
  /// From R10 as emit_address left it to a host address R10 + R11. RCX is lost; flags are kept.
  void emit_access(unsigned bytes, bool read, bool write, SegmentRegister segment);
  /// The same without an answer to a miss: returns the distance to bind to one.
  std::uint32_t emit_probe(unsigned bytes, bool write);
  /// Makes a memory operand reachable at R10 + R11 + the returned displacement.
  std::int32_t emit_operand(const Instruction& instruction, const ZydisDecodedOperand& operand, unsigned bytes,
                            bool read, bool write);
  /// The same for what lies `displacement` from the top of the stack.
  std::int32_t emit_stack_operand(std::int32_t displacement, unsigned bytes, bool write);
  /// R10 = the address `displacement` from the top of the stack.
  void emit_stack_address(std::int32_t displacement);
  void emit_adjust_stack(std::int32_t amount);
  /// The host register a guest register is in; for one in memory, loads it into `scratch` first.
  Host read_gpr(unsigned number, Host scratch);
  void write_gpr(unsigned number, Host from, unsigned bytes);
  void emit_poll();
  std::uint32_t new_exit(Exit::Kind kind, std::uint64_t target_rip, const Instruction* instruction = nullptr);
  [[nodiscard]] bool same_page(std::uint64_t target) const { return ((target ^ rip_) >> 12) == 0; }
  [[nodiscard]] bool bits64() const { return mode_.code == CodeSize::Bits64; }

  CodeCache& cache_;
  const HostCpu& host_;
  const Mode mode_;
  const std::uint64_t rip_, cs_base_;
  const CodeBytes& bytes_;
  InstructionWindow window_;

  std::optional<Emitter> emitter_;
  Emitter* out_ = nullptr;  // the one above, while code is built
  std::vector<Exit> exits_;
  std::vector<Stub> stubs_;
  std::vector<ColdGroup> cold_groups_;
  std::optional<std::int32_t> place_;  // of the access being emitted, from R10 + R11: it belongs to a group
  std::vector<std::pair<std::uint32_t, std::uint32_t>> starts_;  // of each instruction: host offset, guest offset
  std::uint32_t first_exit_ = 0;
  std::uint32_t at_ = 0;      // offset of the instruction being translated
  std::uint32_t length_ = 0;  // of all so far
  unsigned instructions_ = 0, branches_ = 0, accesses_ = 0;
  unsigned interrupt_window_in_ = 0;  // instructions until the shadow of STI ends; 0: none
  bool fpu_checked_ = false, crosses_ = false, locked_ = false;
};

}  // namespace vm_platform::soft
