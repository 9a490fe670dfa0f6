#include "tests/cpu_table/survey.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "engine/soft/classify.hpp"
#include "engine/soft/semantics/dispatch.hpp"
#include "tests/random_instructions/candidate.hpp"

namespace vm_platform::cpu_table {
namespace {

using namespace soft;

/// ModRM bytes that tell instructions apart: each register form, and each memory form once.
std::vector<std::uint8_t> modrm_bytes() {
  std::vector<std::uint8_t> all;
  for (unsigned byte = 0xc0; byte <= 0xff; ++byte) all.push_back(static_cast<std::uint8_t>(byte));
  for (unsigned reg = 0; reg < 8; ++reg) all.push_back(static_cast<std::uint8_t>(reg << 3 | 4));
  return all;
}

bool is_prefix(unsigned opcode, CodeSize size) {
  switch (opcode) {
    case 0x0f:
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3: return true;
    case 0x62:
    case 0xc4:
    case 0xc5: return size == CodeSize::Bits64;  // EVEX and VEX; elsewhere BOUND, LES and LDS
    default: return size == CodeSize::Bits64 && opcode >= 0x40 && opcode <= 0x4f;
  }
}

class Surveyor {
 public:
  Survey run() {
    for (const CodeSize size : {CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64}) {
      size_ = size;
      legacy();
      vex();
    }
    for (auto& [set, names] : result_.copied)
      for (const std::string& name : names.compared) names.others.erase(name);
    for (auto& [set, names] : result_.undefined)
      std::erase_if(names, [this](const std::string& name) { return supported_.contains(name); });
    std::erase_if(result_.undefined, [](const auto& entry) { return entry.second.empty(); });
    return std::move(result_);
  }

 private:
  void legacy() {
    constexpr std::array<std::array<std::uint8_t, 3>, 4> kMaps = {{{0}, {1, 0x0f}, {2, 0x0f, 0x38}, {2, 0x0f, 0x3a}}};
    for (const unsigned prefix : {0x00U, 0x66U, 0xf2U, 0xf3U}) {
      for (const unsigned rex : {0x00U, 0x48U}) {
        if (rex != 0 && size_ != CodeSize::Bits64) continue;
        for (const auto& map : kMaps) {
          for (unsigned opcode = 0; opcode < 256; ++opcode) {
            if (map[0] == 0 && is_prefix(opcode, size_)) continue;
            std::vector<std::uint8_t> start;
            if (prefix != 0) start.push_back(static_cast<std::uint8_t>(prefix));
            if (rex != 0) start.push_back(static_cast<std::uint8_t>(rex));
            start.insert(start.end(), map.begin() + 1, map.begin() + 1 + map[0]);
            start.push_back(static_cast<std::uint8_t>(opcode));
            each_modrm(start);
          }
        }
      }
    }
  }

  void vex() {
    for (unsigned map = 1; map <= 3; ++map) {
      for (unsigned low = 0; low < 16; ++low) {  // L and pp, W
        const unsigned last = (low & 8) << 4 | 0x78 | (low & 7);
        for (unsigned opcode = 0; opcode < 256; ++opcode)
          each_modrm({0xc4, static_cast<std::uint8_t>(0xe0 | map), static_cast<std::uint8_t>(last),
                      static_cast<std::uint8_t>(opcode)});
      }
    }
  }

  void each_modrm(const std::vector<std::uint8_t>& start) {
    std::uint8_t bytes[15] = {};
    std::copy(start.begin(), start.end(), bytes);
    for (const std::uint8_t modrm : modrm_) {
      bytes[start.size()] = modrm;
      bytes[start.size() + 1] = 0x08;  // SIB: index and base differ, as gathering wants it
      if (const auto instruction = decode(bytes, sizeof bytes, 0x1000, size_)) note(*instruction);
    }
  }

  void note(const Instruction& instruction) {
    const std::string name = ZydisMnemonicGetString(instruction.info.mnemonic);
    const std::string set = ZydisISASetGetString(instruction.info.meta.isa_set);
    switch (treatment_of(instruction)) {
      case Treatment::Copy: {
        auto& names = result_.copied[set];
        (is_compared(instruction) ? names.compared : names.others).insert(name);
        break;
      }
      case Treatment::Template: result_.templates.insert(name); break;
      case Treatment::Nothing: result_.nothing.insert(name); break;
      case Treatment::Execute:
        if (is_described(instruction)) break;
        result_.undefined[set].insert(name);
        return;
    }
    supported_.insert(name);
  }

  [[nodiscard]] bool is_compared(const Instruction& instruction) const {
    if (size_ != CodeSize::Bits64) return false;
    random_instructions::Candidate candidate;
    candidate.info = instruction.info;
    std::copy(std::begin(instruction.operands), std::end(instruction.operands), candidate.operands.begin());
    return random_instructions::is_allowed(candidate, true);
  }

  CodeSize size_ = CodeSize::Bits64;
  const std::vector<std::uint8_t> modrm_ = modrm_bytes();
  Survey result_;
  Names supported_;  // in some form
};

}  // namespace

Survey survey() { return Surveyor().run(); }

}  // namespace vm_platform::cpu_table
