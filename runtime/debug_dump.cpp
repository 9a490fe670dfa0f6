#include "runtime/debug_dump.hpp"

#include <Zydis/Zydis.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <vector>

namespace vm_platform::runtime {
namespace {

constexpr std::uint64_t kCr0Pe = 1, kCr0Pg = 1U << 31, kCr4Pse = 1 << 4, kCr4Pae = 1 << 5, kCr4La57 = 1 << 12,
                        kEferLma = 1 << 10, kVm86 = 1 << 17;
constexpr std::uint64_t kPresent = 1, kLarge = 0x80, kAddressMask = 0x000ffffffffff000;

/// Follows the page tables (Intel SDM vol. 3, chapter 4) and says what it found at each step.
class PageWalk {
 public:
  PageWalk(const CpuState& state, const GuestMemory& memory) : state_(state), memory_(memory) {}

  std::optional<Gpa> translate(std::uint64_t linear) {
    steps_.clear();
    if ((state_.cr0 & kCr0Pg) == 0) return Gpa(linear & 0xffffffff);
    if ((state_.efer & kEferLma) != 0) return walk(linear, (state_.cr4 & kCr4La57) != 0 ? 5 : 4, 9, 8);
    if ((state_.cr4 & kCr4Pae) != 0) return walk(linear, 3, 9, 8);
    return walk(linear, 2, 10, 4);
  }
  [[nodiscard]] const std::string& steps() const { return steps_; }

 private:
  std::optional<Gpa> walk(std::uint64_t linear, unsigned levels, unsigned bits, unsigned entry_size) {
    std::uint64_t table = state_.cr3 & (levels == 3 ? 0xffffffe0 : entry_size == 4 ? 0xfffff000 : kAddressMask);
    for (unsigned level = levels; level >= 1; --level) {
      const unsigned shift = 12 + (level - 1) * bits;
      const std::uint64_t index = (linear >> shift) & ((1U << bits) - 1);
      const Gpa at(table + index * entry_size);
      std::array<std::byte, 8> raw{};
      if (!memory_.read(at, std::span(raw).first(entry_size))) {
        fmt::format_to(std::back_inserter(steps_), " level {} at {:#x}: not RAM", level, at.value);
        return std::nullopt;
      }
      std::uint64_t entry = 0;
      for (unsigned i = 0; i < entry_size; ++i) entry |= std::to_integer<std::uint64_t>(raw[i]) << (8 * i);
      fmt::format_to(std::back_inserter(steps_), " [{:#x}]={:#x}", at.value, entry);
      if ((entry & kPresent) == 0) {
        steps_ += " not present";
        return std::nullopt;
      }
      const bool may_be_large =
          level == 2 ? (entry_size == 8 || (state_.cr4 & kCr4Pse) != 0) : level == 3 && levels > 3;
      if (level == 1 || (may_be_large && (entry & kLarge) != 0)) {
        const std::uint64_t page = std::uint64_t{1} << shift;
        return Gpa((entry & kAddressMask & ~(page - 1)) | (linear & (page - 1)));
      }
      table = entry & kAddressMask;
    }
    return std::nullopt;
  }

  const CpuState& state_;
  const GuestMemory& memory_;
  std::string steps_;
};

void describe_address(std::string& out, const char* name, std::uint64_t linear, PageWalk& walk) {
  const auto physical = walk.translate(linear);
  fmt::format_to(std::back_inserter(out), "{} {:#x}:{}", name, linear, walk.steps());
  if (physical)
    fmt::format_to(std::back_inserter(out), " -> physical {:#x}\n", physical->value);
  else
    out += "\n";
}

void disassemble(std::string& out, const CpuState& state, const GuestMemory& memory, PageWalk& walk) {
  const Segment& code = state.segments[kCs];
  const bool long_mode = (state.efer & kEferLma) != 0 && (code.attributes & Segment::kLong) != 0;
  const bool real_mode = (state.cr0 & kCr0Pe) == 0 || (state.rflags & kVm86) != 0;
  const bool big = (code.attributes & Segment::kBig) != 0;
  ZydisDecoder decoder;
  ZydisDecoderInit(&decoder,
                   long_mode   ? ZYDIS_MACHINE_MODE_LONG_64
                   : real_mode ? ZYDIS_MACHINE_MODE_REAL_16
                   : big       ? ZYDIS_MACHINE_MODE_LEGACY_32
                               : ZYDIS_MACHINE_MODE_LEGACY_16,
                   long_mode           ? ZYDIS_STACK_WIDTH_64
                   : big && !real_mode ? ZYDIS_STACK_WIDTH_32
                                       : ZYDIS_STACK_WIDTH_16);
  ZydisFormatter formatter;
  ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);

  const std::uint64_t start = (long_mode ? 0 : code.base) + state.rip;
  std::vector<std::byte> bytes;
  while (bytes.size() < 64) {  // page by page, as far as it is mapped
    const std::uint64_t linear = start + bytes.size();
    const auto physical = walk.translate(linear);
    if (!physical) break;
    std::vector<std::byte> part(std::min<std::size_t>(64 - bytes.size(), kPageSize - linear % kPageSize));
    if (!memory.read(*physical, part)) break;
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  if (bytes.empty()) out += "  (the instruction is not in memory)\n";
  std::size_t offset = 0;
  for (int i = 0; i < 6 && offset < bytes.size(); ++i) {
    ZydisDecodedInstruction instruction;
    std::array<ZydisDecodedOperand, ZYDIS_MAX_OPERAND_COUNT> operands;
    std::array<char, 160> text{};
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes.data() + offset, bytes.size() - offset, &instruction,
                                             operands.data()))) {
      fmt::format_to(std::back_inserter(out), "  {:016x}  {:02x} (no instruction)\n", start + offset,
                     std::to_integer<unsigned>(bytes[offset]));
      return;
    }
    ZydisFormatterFormatInstruction(&formatter, &instruction, operands.data(), instruction.operand_count_visible,
                                    text.data(), text.size(), start + offset, nullptr);
    std::string code_bytes;
    for (unsigned j = 0; j < instruction.length; ++j)
      fmt::format_to(std::back_inserter(code_bytes), "{:02x}", std::to_integer<unsigned>(bytes[offset + j]));
    fmt::format_to(std::back_inserter(out), "  {:016x}  {:<24}  {}\n", start + offset, code_bytes, text.data());
    offset += instruction.length;
  }
}

}  // namespace

std::string debug_dump(unsigned cpu, const CpuState& state, const GuestMemory& memory) {
  static constexpr std::array kGprNames = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                           "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"};
  static constexpr std::array kSegmentNames = {"ES", "CS", "SS", "DS", "FS", "GS"};
  std::string out = fmt::format("CPU {}\n", cpu);
  const auto to = [&out] { return std::back_inserter(out); };
  for (std::size_t i = 0; i < kGprNames.size(); ++i)
    fmt::format_to(to(), "{} {:016x}{}", kGprNames[i], state.gpr[i], i % 4 == 3 ? "\n" : "  ");
  fmt::format_to(to(), "RIP {:016x}  RFLAGS {:08x}\n", state.rip, state.rflags);
  const auto segment = [&](const char* name, const Segment& value) {
    fmt::format_to(to(), "{:<4} {:04x}  base {:016x}  limit {:08x}  attributes {:04x}{}\n", name, value.selector,
                   value.base, value.limit, value.attributes,
                   (value.attributes & Segment::kUnusable) != 0 ? " unusable" : "");
  };
  for (std::size_t i = 0; i < kSegmentNames.size(); ++i) segment(kSegmentNames[i], state.segments[i]);
  segment("LDTR", state.ldtr);
  segment("TR", state.tr);
  fmt::format_to(to(), "GDTR      base {:016x}  limit {:04x}\nIDTR      base {:016x}  limit {:04x}\n", state.gdtr.base,
                 state.gdtr.limit, state.idtr.base, state.idtr.limit);
  fmt::format_to(to(), "CR0 {:08x}  CR2 {:016x}  CR3 {:016x}  CR4 {:08x}  CR8 {:x}  EFER {:x}  XCR0 {:x}\n", state.cr0,
                 state.cr2, state.cr3, state.cr4, state.cr8, state.efer, state.xcr0);
  PageWalk walk(state, memory);
  const bool long_mode = (state.efer & kEferLma) != 0 && (state.segments[kCs].attributes & Segment::kLong) != 0;
  describe_address(out, "RIP", (long_mode ? 0 : state.segments[kCs].base) + state.rip, walk);
  describe_address(out, "RSP", (long_mode ? 0 : state.segments[kSs].base) + state.gpr[kRsp], walk);
  describe_address(out, "CR2", state.cr2, walk);
  out += "Instructions:\n";
  disassemble(out, state, memory, walk);
  return out;
}

}  // namespace vm_platform::runtime
