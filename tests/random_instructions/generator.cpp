#include "tests/random_instructions/generator.hpp"

#include <algorithm>
#include <bitset>
#include <optional>

#include "tests/random_instructions/candidate.hpp"
#include "tests/random_instructions/initial_state.hpp"

namespace vm_platform::random_instructions {
namespace {

std::map<std::string, std::uint64_t> mnemonic_counts;

enum : unsigned { kRax, kRcx, kRdx, kRbx, kRsp, kRbp, kRsi, kRdi };
constexpr std::uint64_t kArithmeticFlags = 0x8d5;

/// The number of the general register that `reg` is part of, -1 for others.
int gpr_number(ZydisRegister reg) {
  const ZydisRegister full = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);
  return ZydisRegisterGetClass(full) == ZYDIS_REGCLASS_GPR64 ? ZydisRegisterGetId(full) : -1;
}

class Builder {
 public:
  Builder(std::uint64_t seed, const GeneratorOptions& options) : random_(seed), options_(options) {}

  Sequence build() {
    calm_ = random_.percent(70);
    sequence_.initial = random_state(random_);
    sequence_.data = random_data(random_);
    // Sometimes over the end of a page, so that blocks and instructions cross it.
    const std::uint64_t page_offset = random_.percent(30) ? 4096 - random_.below(160) : random_.below(4096 - 1024);
    start_ = kCodeBase + 4096 * random_.below(kCodePages - 2) + page_offset;
    sequence_.initial.rip = start_;
    const std::uint64_t groups = 1 + random_.below(2 * options_.instructions);
    for (std::uint64_t i = 0; i < groups; ++i) {
      begin_group();
      add_group();
    }
    begin_group();
    emit({0xcc});
    resolve();
    sequence_.undefined_flags = undefined_;
    return std::move(sequence_);
  }

 private:
  std::uint64_t here() const { return start_ + sequence_.code.size(); }
  void emit(std::initializer_list<unsigned> bytes) {
    for (const unsigned b : bytes) sequence_.code.push_back(static_cast<std::uint8_t>(b));
  }
  template <typename T>
  void emit_value(T value) {
    for (unsigned i = 0; i < sizeof(T); ++i)
      sequence_.code.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8 * i)));
  }

  /// Where an operand of `size` bytes shall be: mostly in the middle, sometimes over the edge of a page of any kind.
  std::uint64_t random_target(std::uint64_t size) {
    if (size == 0) size = 1;
    if (calm_) {  // where nothing faults, now and then over the edge between two writable pages
      if (random_.percent(10))
        return kDataBase + 4096 * (1 + random_.below(2)) - (size > 1 ? 1 + random_.below(size) : 0);
      const std::uint64_t t = kDataBase + 1024 + random_.below(3 * 4096 - 2048);
      return size >= 16 || random_.percent(50) ? t & ~std::uint64_t{31} : t;
    }
    const unsigned kind = static_cast<unsigned>(random_.below(100));
    if (kind < 55) {
      const std::uint64_t t = kDataBase + 1024 + random_.below(3 * 4096 - 2048);
      return random_.percent(60) ? t & ~std::uint64_t{size > 16 ? 31U : 15U} : t;
    }
    if (kind < 85) {  // over the edge between two pages
      const std::uint64_t edge = kDataBase + 4096 * (1 + random_.below(kind < 75 ? 2 : kDataPages.size() - 2));
      return edge - (size > 1 ? 1 + random_.below(size) : 0) + (random_.percent(10) ? random_.below(2 * size) : 0);
    }
    if (kind < 97) return kDataBase + 64 + random_.below(kDataSize - 256);
    if (kind < 98) return 0x0000800000000000 - random_.below(size + 4);  // around the last canonical address
    return random_.percent(50) ? 0x0000800000000000 + random_.below(1 << 30) : 0xffff7fffffffff00 + random_.below(64);
  }
  static bool harmless(std::uint64_t address) {
    const bool canonical = static_cast<std::uint64_t>(static_cast<std::int64_t>(address << 16) >> 16) == address;
    return (address >= kDataBase - 0x8000 && address < kDataBase + kDataSize + 0x8000) || !canonical ||
           (address >= 0x0000800000000000 - 64 && address < 0x0000800000000000);
  }

  // ---- groups: what a jump may land before --------------------------------------------------------------------------
  void begin_group() { groups_.push_back(here()), known_.reset(); }
  bool in_branch_shadow() const { return !fixups_.empty(); }

  void set_register(unsigned reg, std::uint64_t value) {
    if (known_[reg] && values_[reg] == value) return;
    if (value >> 32 == 0) {
      if (reg >= 8) emit({0x41});
      emit({0xb8 | (reg & 7)});
      emit_value(static_cast<std::uint32_t>(value));
    } else {
      emit({0x48U | (reg >= 8), 0xb8 | (reg & 7)});
      emit_value(value);
    }
    known_[reg] = true;
    values_[reg] = value;
  }

  void add_group() {
    const unsigned kind = static_cast<unsigned>(random_.below(100));
    if (options_.branches && kind < 12) return add_branch();
    if (kind < 15) return add_flags_group();
    if (options_.self_modifying && kind < 16) return add_self_modifying();
    if (kind < 18) return add_stack_group();
    if (kind < 26) return add_neighbours();
    const unsigned run = 1 + static_cast<unsigned>(random_.below(4));
    for (unsigned i = 0; i < run; ++i)
      for (unsigned attempt = 0; attempt < 50; ++attempt)
        if (add_instruction(random_candidate(random_, options_.strings, options_.vex))) break;
  }

  void stack_somewhere() { set_register(kRsp, random_target(8)); }

  struct Fixup {
    std::size_t position;
    unsigned bytes;
    bool absolute;
    std::size_t group;
  };
  void fixup(unsigned bytes, bool absolute) {
    fixups_.push_back({sequence_.code.size(), bytes, absolute, groups_.size()});
    for (unsigned i = 0; i < bytes; ++i) emit({0});
  }
  void add_branch() {
    const unsigned condition = static_cast<unsigned>(random_.below(16));
    switch (random_.below(9)) {
      case 0:
      case 1:
      case 2:
        if (flags_undefined_for_condition()) return;
        emit({0x0f, 0x80 | condition});
        return fixup(4, false);
      case 3:
        if (flags_undefined_for_condition()) return;
        emit({0x70 | condition});
        return fixup(1, false);
      case 4:
        if (random_.percent(70)) set_register(kRcx, random_.below(3));
        if (flags_undefined_for_condition()) return;
        emit({0xe0 + static_cast<unsigned>(random_.below(4))});  // loopne loope loop jrcxz
        known_[kRcx] = false;
        return fixup(1, false);
      case 5: emit({0xe9}); return fixup(4, false);
      case 6:
        stack_somewhere();
        emit({0xe8});
        known_[kRsp] = false;
        return fixup(4, false);
      case 7:  // push target; ret [n]
        stack_somewhere();
        emit({0x68});
        fixup(4, true);
        known_[kRsp] = false;
        if (random_.percent(50)) return emit({0xc3});
        emit({0xc2});
        return emit_value(static_cast<std::uint16_t>(random_.below(64)));
      default: {  // mov reg, target; jmp or call reg
        unsigned reg = static_cast<unsigned>(random_.below(16));
        if (reg == kRsp) reg = kRbx;
        const bool call = random_.percent(50);
        if (call) stack_somewhere();
        if (reg >= 8) emit({0x41});
        emit({0xb8 | (reg & 7)});
        fixup(4, true);
        known_[reg] = false;
        if (reg >= 8) emit({0x41});
        emit({0xff, (call ? 0xd0U : 0xe0U) | (reg & 7)});
        if (call) known_[kRsp] = false;
      }
    }
  }
  bool flags_undefined_for_condition() const { return (undefined_ & kArithmeticFlags) != 0; }

  void add_flags_group() {
    unsigned reg = static_cast<unsigned>(random_.below(8));
    if (reg == kRsp) reg = kRdx;
    switch (random_.below(4)) {
      case 0:  // pushfq; and dword [rsp], arithmetic flags and DF; pop reg
        if (flags_undefined_for_condition()) return;
        stack_somewhere();
        emit({0x9c, 0x81, 0x24, 0x24});
        emit_value(std::uint32_t{0xcd5});
        emit({0x58 | reg});
        defined(kArithmeticFlags & ~std::uint64_t{0x10});
        leave_undefined(0x10);
        known_[reg] = known_[kRsp] = false;
        return;
      case 1:  // push imm; popfq
        stack_somewhere();
        emit({0x68});
        emit_value(
            static_cast<std::uint32_t>(2 | (random_.next() & kArithmeticFlags) | (random_.percent(20) ? 0x400 : 0)));
        emit({0x9d});
        defined(kArithmeticFlags);
        known_[kRsp] = false;
        return;
      default: return emit({random_.percent(50) ? 0xfdU : 0xfcU});  // std, cld
    }
  }

  /// The forms of PUSH and POP that use RSP twice.
  void add_stack_group() {
    stack_somewhere();
    const unsigned disp = 8 * static_cast<unsigned>(random_.below(8));
    switch (random_.below(6)) {
      case 0: emit({0x8f, 0x44, 0x24, disp}); break;  // pop [rsp+disp]
      case 1: emit({0xff, 0x74, 0x24, disp}); break;  // push [rsp+disp]
      case 2: emit({0x54}); break;                    // push rsp
      case 3: emit({0x5c}); break;                    // pop rsp
      case 4: emit({0x66, 0x54}); break;              // push sp
      default: emit({0x66, 0x8f, 0x44, 0x24, disp}); break;
    }
    known_[kRsp] = false;
  }

  /// Accesses at constant distances from one register, which the engine may look up in one go.
  void add_neighbours() {
    const unsigned base = random_.percent(40) ? unsigned{kRsp} : static_cast<unsigned>(random_.below(16));
    const std::uint64_t reach = random_.percent(80) ? 100 : 700;
    // Sometimes below the edge of a page, with the highest access one byte over it.
    const bool over_edge = !calm_ && random_.percent(25);
    const std::uint64_t to_edge = reach / 2 + random_.below(8);
    const std::uint64_t edge = kDataBase + 4096 * (1 + random_.below(kDataPages.size() - 2));
    set_register(base, over_edge ? edge - to_edge : random_target(8) + random_.below(reach) - reach / 2);
    const unsigned count = 2 + static_cast<unsigned>(random_.below(8));
    for (unsigned i = 0; i < count; ++i) {
      const unsigned reg = static_cast<unsigned>(random_.below(16)), other = static_cast<unsigned>(random_.below(16));
      const unsigned kind = static_cast<unsigned>(random_.below(20));
      if (kind < 2) {  // add or lea of registers
        if (reg == base) continue;
        if (random_.percent(50)) {
          emit({0x48U | (other >> 3) << 2 | reg >> 3, 0x01, 0xc0U | (other & 7) << 3 | (reg & 7)});
          defined(kArithmeticFlags);
        } else {
          emit({0x48U | (reg >> 3) << 2 | other >> 3, 0x8d, 0x80U | (reg & 7) << 3 | (other & 7)});
          if ((other & 7) == 4) emit({0x24});
          emit_value(static_cast<std::uint32_t>(random_.next()));
        }
        known_[reg] = false;
      } else if (kind < 4) {
        if (flags_undefined_for_condition()) continue;
        emit({0x70 | static_cast<unsigned>(random_.below(16))});
        fixup(1, false);
      } else if (kind < 10 && base == kRsp) {
        switch (random_.below(5)) {
          case 0:
          case 1:
            if (reg >= 8) emit({0x41});
            emit({0x50 | (reg & 7)});
            break;
          case 2:
            if (reg == kRsp) continue;
            if (reg >= 8) emit({0x41});
            emit({0x58 | (reg & 7)});
            known_[reg] = false;
            break;
          default:  // add or sub rsp
            emit({0x48, 0x83, random_.percent(50) ? 0xc4U : 0xecU});
            emit_value(static_cast<std::uint8_t>(8 * random_.below(16)));
            defined(kArithmeticFlags);
        }
        known_[kRsp] = false;
      } else {
        const std::uint64_t displacement = over_edge && random_.percent(30) ? to_edge + 1 - (4U << random_.below(3))
                                                                            : random_.below(reach) - reach / 2;
        add_access(base, reg, static_cast<std::uint32_t>(displacement));
        if (reg == base && !known_[base]) return;
      }
    }
    known_[base] = false;
  }

  /// A load, store or operation on memory at base + displacement, with a general or vector register.
  void add_access(unsigned base, unsigned reg, std::uint32_t displacement) {
    enum Kind : unsigned { Load, Store, Add, AddTo, Compare, Exchange, LoadVector, StoreVector, LoadByte };
    static constexpr unsigned kOpcodes[] = {0x8b, 0x89, 0x03, 0x01, 0x3b, 0x87, 0x10, 0x11, 0xb6};
    const auto kind = static_cast<Kind>(random_.below(9));
    const unsigned rex = (reg >> 3) << 2 | base >> 3;
    if (kind == LoadVector || kind == StoreVector) {
      emit({0x40 | rex, 0x0f, kOpcodes[kind]});
    } else if (kind == LoadByte) {
      emit({0x48 | rex, 0x0f, kOpcodes[kind]});
    } else {
      emit({(random_.percent(60) ? 0x48U : 0x40U) | rex, kOpcodes[kind]});
    }
    emit({0x80U | (reg & 7) << 3 | (base & 7)});
    if ((base & 7) == 4) emit({0x24});
    emit_value(displacement);
    if (kind == Add || kind == AddTo || kind == Compare) defined(kArithmeticFlags);
    if (kind == Load || kind == Add || kind == Exchange || kind == LoadByte) known_[reg] = false;
  }

  /// mov dword [imm of the next instruction], imm; (nothing, or a few NOPs); mov reg, imm.
  void add_self_modifying() {
    const unsigned reg = static_cast<unsigned>(random_.below(8)), nops = static_cast<unsigned>(random_.below(3));
    if (reg == kRsp) return;
    emit({0xc7, 0x04, 0x25});
    emit_value(static_cast<std::uint32_t>(here() + 8 + nops + 1));
    emit_value(static_cast<std::uint32_t>(random_.next()));
    for (unsigned i = 0; i < nops; ++i) emit({0x90});
    emit({0xb8 | reg});
    emit_value(static_cast<std::uint32_t>(random_.next()));
    known_[reg] = false;
  }

  void resolve() {
    for (const Fixup& f : fixups_) {
      std::size_t group = f.group + random_.below(groups_.size() - f.group);
      const std::uint64_t next = start_ + f.position + f.bytes;
      if (f.bytes == 1)
        while (group > f.group && groups_[group] - next > 127) --group;
      std::uint64_t value = f.absolute ? groups_[group] : groups_[group] - next;
      if (f.bytes == 1 && value > 127) value = 0;
      for (unsigned i = 0; i < f.bytes; ++i)
        sequence_.code[f.position + i] = static_cast<std::uint8_t>(value >> (8 * i));
    }
  }

  // ---- flags that the manuals leave undefined -----------------------------------------------------------------------
  void defined(std::uint64_t flags) {
    if (!in_branch_shadow()) undefined_ &= ~flags;  // what may be jumped over defines nothing for sure
  }
  void leave_undefined(std::uint64_t flags) { undefined_ |= flags & kArithmeticFlags; }

  // ---- one instruction ----------------------------------------------------------------------------------------------
  /// What must be set before it: the registers of its addresses. Nothing where they cannot all be right.
  struct Setup {
    std::map<unsigned, std::uint64_t> registers;
    std::optional<std::uint64_t> patched_target;  ///< For addresses without registers: RIP-relative or absolute.
    std::optional<unsigned> index_vector;
    bool wide_index = false;
  };

  std::optional<Setup> place(const Candidate& c) {
    Setup setup;
    for (unsigned i = 0; i < c.info.operand_count; ++i) {
      const ZydisDecodedOperand& o = c.operands[i];
      if (o.type != ZYDIS_OPERAND_TYPE_MEMORY || o.mem.type == ZYDIS_MEMOP_TYPE_AGEN) continue;
      if (!place_operand(c, o, setup)) return std::nullopt;
    }
    // A bit string's offset reaches beyond the operand.
    switch (c.info.mnemonic) {
      case ZYDIS_MNEMONIC_BT:
      case ZYDIS_MNEMONIC_BTS:
      case ZYDIS_MNEMONIC_BTR:
      case ZYDIS_MNEMONIC_BTC:
        if (c.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY && c.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
          const auto reg = static_cast<unsigned>(gpr_number(c.operands[1].reg.value));
          if (!setup.registers.try_emplace(reg, random_.below(8000) - 4000).second) return std::nullopt;
        }
        break;
      case ZYDIS_MNEMONIC_ENTER:
        if (!setup.registers.try_emplace(kRbp, kDataBase + 2000).second) return std::nullopt;
        break;
      default: break;
    }
    if (c.info.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
      if (!setup.registers.try_emplace(kRcx, random_.below(random_.percent(90) ? 20 : 600)).second) return std::nullopt;
    return setup;
  }

  bool place_operand(const Candidate& c, const ZydisDecodedOperand& o, Setup& setup) {
    std::uint64_t size = o.size / 8;
    std::uint64_t target = random_target(size);
    // Of two operands only the first may fault: which is accessed first is each CPU's own choice.
    if (c.info.meta.category == ZYDIS_CATEGORY_STRINGOP && !setup.registers.empty())
      target = kDataBase + 5000 + random_.below(2000);
    if (c.info.mnemonic == ZYDIS_MNEMONIC_LDMXCSR || c.info.mnemonic == ZYDIS_MNEMONIC_VLDMXCSR)
      target = kMxcsrTable + 4 * random_.below(256);
    if (c.info.mnemonic == ZYDIS_MNEMONIC_FLDCW) target = kFcwTable + 2 * random_.below(512);
    // What a fault of these leaves of the x87 tags, and which byte it names, is the CPU's own affair.
    if (c.info.mnemonic == ZYDIS_MNEMONIC_MASKMOVQ || c.info.mnemonic == ZYDIS_MNEMONIC_MASKMOVDQU ||
        c.info.mnemonic == ZYDIS_MNEMONIC_VMASKMOVDQU)
      target = kDataBase + 5000 + random_.below(2000);
    // Whether its pushes are seen when the final stack pointer faults is the CPU's own affair.
    if (c.info.mnemonic == ZYDIS_MNEMONIC_ENTER) target = kDataBase + 5000 + random_.below(2000);
    const bool vector_index = o.mem.type == ZYDIS_MEMOP_TYPE_VSIB;
    if (vector_index) target = kDataBase + 4096 + random_.below(4096);
    const std::uint64_t segment = o.mem.segment == ZYDIS_REGISTER_GS ? kGsBase : 0;
    const bool narrow = c.info.address_width == 32;
    const auto truncate = [&](std::uint64_t v) { return narrow ? v & 0xffffffff : v; };
    std::uint64_t wanted = target - segment;  // the effective address
    if (narrow && wanted >> 32 != 0) wanted = kDataBase + random_.below(8192) - segment;
    const std::uint64_t disp = static_cast<std::uint64_t>(o.mem.disp.value);
    const bool has_base = o.mem.base != ZYDIS_REGISTER_NONE,
               has_index = o.mem.index != ZYDIS_REGISTER_NONE && !vector_index;

    if (o.mem.base == ZYDIS_REGISTER_RIP || o.mem.base == ZYDIS_REGISTER_EIP || (!has_base && !has_index)) {
      if (wanted >> 31 != 0) wanted = kDataBase + 4096 * random_.below(3) + random_.below(4096);
      setup.patched_target = wanted;
      return true;
    }
    if (vector_index) {
      if (!has_base) return false;
      setup.index_vector = static_cast<unsigned>(ZydisRegisterGetId(o.mem.index));
      setup.wide_index = c.info.mnemonic == ZYDIS_MNEMONIC_VPGATHERQQ || c.info.mnemonic == ZYDIS_MNEMONIC_VPGATHERQD ||
                         c.info.mnemonic == ZYDIS_MNEMONIC_VGATHERQPD || c.info.mnemonic == ZYDIS_MNEMONIC_VGATHERQPS;
      setup.registers[static_cast<unsigned>(gpr_number(o.mem.base))] = truncate(wanted - disp);
      return true;
    }
    const int base = has_base ? gpr_number(o.mem.base) : -1, index = has_index ? gpr_number(o.mem.index) : -1;
    const std::uint64_t scale = has_index ? o.mem.scale : 0;
    const auto known = [&](int reg) { return reg >= 0 && setup.registers.contains(static_cast<unsigned>(reg)); };
    if ((has_base && base < 0) || (has_index && index < 0)) return false;
    if (known(base) || known(index)) {
      // A second operand with the same register: it must land somewhere harmless as it is.
      const std::uint64_t b = base < 0 ? 0 : known(base) ? setup.registers[static_cast<unsigned>(base)] : 0;
      if (has_index || !known(base)) return false;
      return harmless(truncate(b + disp) + segment) && harmless(b + segment);
    }
    if (base == index && base >= 0) {
      const std::uint64_t value = (wanted - disp) / (1 + scale);
      if (!harmless(truncate(value * (1 + scale) + disp) + segment)) return false;
      setup.registers[static_cast<unsigned>(base)] = truncate(value);
      return true;
    }
    if (base < 0) {
      const std::uint64_t value = (wanted - disp) / scale;
      if (!harmless(truncate(value * scale + disp) + segment)) return false;
      setup.registers[static_cast<unsigned>(index)] = truncate(value);
      return true;
    }
    std::uint64_t offset = 0;
    if (index >= 0) {
      std::uint64_t value = random_.percent(70) ? random_.below(512) - 256 : random_word(random_);
      if (narrow) value &= 0xffffffff;
      setup.registers[static_cast<unsigned>(index)] = value;
      offset = (o.mem.index == ZYDIS_REGISTER_AL ? value & 0xff : value) * scale;
    }
    setup.registers[static_cast<unsigned>(base)] = truncate(wanted - disp - offset);
    return true;
  }

  bool add_instruction(Candidate c) {
    if (std::ranges::count(options_.without, ZydisMnemonicGetString(c.info.mnemonic)) != 0) return false;
    if (c.info.mnemonic == ZYDIS_MNEMONIC_ENTER) {  // a few levels and few locals
      c.bytes.back() &= 3;
      c.bytes[c.bytes.size() - 2] = 0;
    }
    const ZydisAccessedFlags* flags = c.info.cpu_flags;
    if (flags != nullptr && (flags->tested & undefined_) != 0) return false;
    if (calm_ && (c.info.mnemonic == ZYDIS_MNEMONIC_DIV || c.info.mnemonic == ZYDIS_MNEMONIC_IDIV) &&
        random_.percent(80))
      return false;
    const auto setup = place(c);
    if (!setup) return false;
    for (const auto& [reg, value] : setup->registers) set_register(reg, value);
    if (setup->index_vector) {  // vmovdqu ymm, [indices]
      const unsigned v = *setup->index_vector;
      emit({0xc4, v < 8 ? 0xe1U : 0x61U, 0x7e, 0x6f, ((v & 7) << 3) | 4, 0x25});
      emit_value(static_cast<std::uint32_t>(
          kTable + (setup->wide_index ? 0x400 + 8 * random_.below(124) : 4 * random_.below(200))));
    }
    if (setup->patched_target) {
      std::uint64_t value = *setup->patched_target;
      const auto& disp = c.info.raw.disp;
      bool relative = false;
      for (unsigned i = 0; i < c.info.operand_count; ++i)
        relative |= c.operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                    (c.operands[i].mem.base == ZYDIS_REGISTER_RIP || c.operands[i].mem.base == ZYDIS_REGISTER_EIP);
      if (relative) value -= here() + c.bytes.size();
      for (unsigned i = 0; i < disp.size / 8U; ++i)
        c.bytes[disp.offset + i] = static_cast<std::uint8_t>(value >> (8 * i));
    }
    sequence_.code.insert(sequence_.code.end(), c.bytes.begin(), c.bytes.end());
    ++mnemonic_counts[ZydisMnemonicGetString(c.info.mnemonic)];
    for (unsigned i = 0; i < c.info.operand_count; ++i) {
      const ZydisDecodedOperand& o = c.operands[i];
      if (o.type == ZYDIS_OPERAND_TYPE_REGISTER && (o.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0)
        if (const int reg = gpr_number(o.reg.value); reg >= 0) known_[static_cast<unsigned>(reg)] = false;
    }
    if (flags != nullptr) {
      defined((flags->modified | flags->set_0 | flags->set_1) & ~flags->undefined & kArithmeticFlags);
      leave_undefined(flags->undefined);
      // A count of zero leaves the flags alone, others define them: what was undefined may stay so.
    }
    return true;
  }

  Random random_;
  const GeneratorOptions& options_;
  Sequence sequence_;
  bool calm_ = false;  ///< No faults on purpose, so that long sequences come to their end.
  std::uint64_t start_ = 0, undefined_ = 0;
  std::vector<std::uint64_t> groups_;
  std::vector<Fixup> fixups_;
  std::bitset<16> known_;
  std::array<std::uint64_t, 16> values_{};
};

}  // namespace

Sequence generate(std::uint64_t seed, const GeneratorOptions& options) { return Builder(seed, options).build(); }

const std::map<std::string, std::uint64_t>& generated_mnemonics() { return mnemonic_counts; }

}  // namespace vm_platform::random_instructions
