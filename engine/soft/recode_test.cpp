// Whether what is copied is still the same instruction to the host's CPU, for every encoding there is.
#include "engine/soft/recode.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <vector>

#include "engine/soft/classify.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::size_t kRoom = 64;

std::string hex(const std::uint8_t* bytes, std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += {kDigits[bytes[i] >> 4], kDigits[bytes[i] & 15], ' '};
  }
  return text;
}

/// The replacements that Translator::emit_copy makes, but for registers that live in memory: guest registers are where
/// they are kept, and memory is at R10 + R11.
Recoding plain_recoding(const Instruction& instruction) {
  Recoding recoding;
  bool high = false;
  for (unsigned i = 0; i < instruction.info.operand_count; ++i)
    if (const auto gpr = gpr_operand(instruction.operands[i])) high = high || gpr->high;
  for (unsigned i = 0; i < instruction.info.operand_count; ++i) {
    const ZydisDecodedOperand& operand = instruction.operands[i];
    if (operand.type == ZYDIS_OPERAND_TYPE_MEMORY)
      recoding.memory = high ? Recoding::Memory::Rsi : Recoding::Memory::R10R11;
    const auto gpr = gpr_operand(operand);
    if (!gpr || gpr->high) continue;
    // Beside AH and its like no register may need a REX prefix.
    const Host host = high                     ? static_cast<Host>(gpr->number & 7)
                      : in_memory(gpr->number) ? hRcx
                                               : static_cast<Host>(kHostOf[gpr->number]);
    recoding.replace(operand.encoding, host);
  }
  return recoding;
}

/// What must be the same for the host: the size and kind of each operand; of vector registers and immediates, the
/// value.
std::string described(const Instruction& instruction) {
  std::string text = ZydisMnemonicGetString(instruction.info.mnemonic);
  for (unsigned i = 0; i < instruction.info.operand_count_visible; ++i) {
    const ZydisDecodedOperand& operand = instruction.operands[i];
    text += ' ' + std::to_string(operand.type) + ':' + std::to_string(operand.size);
    switch (operand.type) {
      case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        text += '=' + std::to_string(operand.size == 8 ? operand.imm.value.u & 0xff : operand.imm.value.u & 0xffffffff);
        break;
      case ZYDIS_OPERAND_TYPE_REGISTER:
        if (!gpr_operand(operand))
          text += '=' + std::to_string(operand.reg.value);
        else if (gpr_operand(operand)->high)
          text += "=high" + std::to_string(gpr_operand(operand)->number);
        break;
      default: break;
    }
  }
  return text;
}

struct Counts {
  unsigned tried = 0, copied = 0;
  std::set<std::string> differences;
};

void try_bytes(const std::vector<std::uint8_t>& prefix, std::uint8_t opcode, std::uint8_t modrm, CodeSize size,
               Counts& counts) {
  std::array<std::uint8_t, 15> bytes{};
  std::ranges::copy(prefix, bytes.begin());
  bytes[prefix.size()] = opcode, bytes[prefix.size() + 1] = modrm;
  // What follows is a displacement, an immediate, or a SIB byte of [eax]; with is4, register 8 and up.
  for (std::size_t i = prefix.size() + 2; i < bytes.size(); ++i) bytes[i] = 0xa0;
  Instruction guest;
  if (!decode(bytes.data(), bytes.size(), 0x1000, size, guest)) return;
  ++counts.tried;
  if (treatment_of(guest) != Treatment::Copy) return;
  if (guest.info.mnemonic == ZYDIS_MNEMONIC_VZEROALL || guest.info.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER) return;
  std::byte room[kRoom];
  Emitter out(room, sizeof room);
  if (!recode(out, guest, plain_recoding(guest))) return;  // Translator::emit_copy makes it #UD
  ++counts.copied;
  Instruction host;
  const auto* code = reinterpret_cast<const std::uint8_t*>(room);
  // PAUSE with REX.B is XCHG with R8, whatever the decoder says (Translator::emit_exchange_rax_r8).
  if (guest.info.mnemonic == ZYDIS_MNEMONIC_XCHG && room[out.position() - 1] == std::byte{0x90}) return;
  const bool decoded = decode(code, out.position(), 0x1000, CodeSize::Bits64, host);
  if (decoded && host.info.length == out.position() && described(host) == described(guest)) return;
  counts.differences.insert(hex(bytes.data(), guest.info.length) + "(" + described(guest) + ") became " +
                            hex(code, out.position()) + "(" + (decoded ? described(host) : "nothing") + ")");
}

/// Every opcode of every map behind `prefix`, with each kind of ModRM byte.
void try_all(const std::vector<std::uint8_t>& prefix, CodeSize size, Counts& counts) {
  for (unsigned opcode = 0; opcode < 256; ++opcode) {
    for (unsigned reg = 0; reg < 8; ++reg) {
      for (const unsigned rm : {0x05u, 0x46u, 0xc1u, 0xc4u, 0xc6u})
        try_bytes(prefix, static_cast<std::uint8_t>(opcode), static_cast<std::uint8_t>(rm | reg << 3), size, counts);
    }
  }
}

void expect_the_same(const Counts& counts, unsigned at_least) {
  EXPECT_GT(counts.copied, at_least);
  unsigned shown = 0;
  for (const std::string& difference : counts.differences) {
    if (++shown > 20) break;
    ADD_FAILURE() << difference;
  }
  EXPECT_TRUE(counts.differences.empty()) << counts.differences.size() << " of " << counts.copied;
}

constexpr CodeSize kSizes[] = {CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64};

TEST(Recode, VexInstructionsStayWhatTheyAre) {
  for (const CodeSize size : kSizes) {
    SCOPED_TRACE(static_cast<int>(size));
    Counts counts;
    for (unsigned map = 1; map <= 3; ++map) {
      for (unsigned rest = 0; rest < 32; ++rest) {
        const unsigned vvvv = (rest & 16) != 0 ? 0xf : 0x9;              // none, or register 6
        const unsigned last = (rest & 8) << 4 | vvvv << 3 | (rest & 7);  // W, vvvv, L, pp
        try_all({0xc4, static_cast<std::uint8_t>(0xe0 | map), static_cast<std::uint8_t>(last)}, size, counts);
      }
    }
    expect_the_same(counts, 10'000);
  }
}

TEST(Recode, LegacyInstructionsStayWhatTheyAre) {
  const std::vector<std::vector<std::uint8_t>> maps = {{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
  for (const CodeSize size : kSizes) {
    SCOPED_TRACE(static_cast<int>(size));
    Counts counts;
    for (const std::vector<std::uint8_t>& before : std::vector<std::vector<std::uint8_t>>{
             {}, {0x66}, {0xf2}, {0xf3}, {0xf0}, {0x67}, {0x66, 0xf2}, {0x66, 0x67}, {0xf2, 0xf3}}) {
      for (const unsigned rex : {0u, 0x40u, 0x48u, 0x4fu}) {
        if (rex != 0 && size != CodeSize::Bits64) continue;
        for (const auto& map : maps) {
          std::vector<std::uint8_t> prefix = before;
          if (rex != 0) prefix.push_back(static_cast<std::uint8_t>(rex));
          prefix.insert(prefix.end(), map.begin(), map.end());
          try_all(prefix, size, counts);
        }
      }
    }
    expect_the_same(counts, 10'000);
  }
}

}  // namespace
}  // namespace vm_platform::soft
