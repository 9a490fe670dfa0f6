#include "tests/random_instructions/compare.hpp"

#include <fmt/format.h>

namespace vm_platform::random_instructions {
namespace {

constexpr std::array kNames = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                               "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
// Arithmetic flags and DF. IF differs by design; AC, NT, IOPL and ID are not touched by what is generated.
constexpr std::uint64_t kComparedFlags = 0xcd5;

std::string bytes(const std::uint8_t* at, std::size_t size) {
  std::string text;
  for (std::size_t i = size; i-- > 0;) text += fmt::format("{:02x}", at[i]);
  return text;
}

/// Of the XSAVE area: not FOP, FIP and FDP (bytes 6 to 23), which AMD saves only with a pending exception and which
/// name host addresses under translation; not MXCSR_MASK and the reserved tail of each x87 register.
struct Field {
  std::string name;
  std::size_t offset, size;
};
const std::vector<Field>& fields() {
  static const std::vector<Field> all = [] {
    std::vector<Field> f = {{"fcw", 0, 2}, {"fsw", 2, 2}, {"ftw", 4, 1}, {"mxcsr", 24, 4}};
    for (std::size_t i = 0; i < 8; ++i) f.push_back({fmt::format("st{}", i), 32 + 16 * i, 10});
    for (std::size_t i = 0; i < 16; ++i) f.push_back({fmt::format("xmm{}", i), 160 + 16 * i, 16});
    for (std::size_t i = 0; i < 16; ++i) f.push_back({fmt::format("ymm{} high", i), 576 + 16 * i, 16});
    return f;
  }();
  return all;
}

}  // namespace

std::string compare(const Sequence& sequence, const Outcome& expected, const MemoryImage& expected_memory,
                    const Outcome& got, const MemoryImage& got_memory) {
  std::string report;
  const auto number = [&](std::string_view name, std::uint64_t a, std::uint64_t b) {
    if (a != b) report += fmt::format("  {}: {:x} {:x}\n", name, a, b);
  };
  // The last user page is no guest's: what the host has there shows in bit 0 of its error code. An access in two parts,
  // as x87's 10-byte store, may meet that page before it meets the non-canonical addresses above, or after.
  const bool last_page = expected.vector == 14 && expected.fault_address >= 0x7ffffffff000;
  if (!last_page || got.vector != 13) number("vector", expected.vector, got.vector);
  if (expected.vector == got.vector && (expected.vector == 14 || expected.vector == 13) && !last_page)
    number("error code", expected.error_code, got.error_code);
  if (expected.vector == 14 && got.vector == 14) number("cr2", expected.fault_address, got.fault_address);
  number("rip", expected.state.rip, got.state.rip);
  const std::uint64_t flags = kComparedFlags & ~sequence.undefined_flags;
  number("flags", expected.state.rflags & flags, got.state.rflags & flags);
  for (std::size_t i = 0; i < 16; ++i) number(kNames[i], expected.state.gpr[i], got.state.gpr[i]);
  for (const Field& f : fields())
    if (std::memcmp(&expected.state.xsave[f.offset], &got.state.xsave[f.offset], f.size) != 0)
      report += fmt::format("  {}: {} {}\n", f.name, bytes(&expected.state.xsave[f.offset], f.size),
                            bytes(&got.state.xsave[f.offset], f.size));
  for (std::size_t page = 0; page < kDataPages.size(); ++page) {
    if (kDataPages[page] == PageKind::Hole) continue;
    const std::uint8_t *a = expected_memory(page), *b = got_memory(page);
    if (std::memcmp(a, b, 4096) == 0) continue;
    unsigned shown = 0;
    for (std::size_t i = 0; i < 4096 && shown < 4; ++i)
      if (a[i] != b[i]) {
        report += fmt::format("  byte {:x}: {:02x} {:02x}\n", kDataBase + 4096 * page + i, a[i], b[i]);
        ++shown;
      }
  }
  return report;
}

std::string describe_registers(const MachineState& state) {
  std::string text = fmt::format("  rip {:x} flags {:x}\n ", state.rip, state.rflags);
  for (std::size_t i = 0; i < 16; ++i)
    text += fmt::format(" {} {:x}{}", kNames[i], state.gpr[i], i % 4 == 3 ? "\n " : "");
  return text;
}

std::string describe(const MachineState& state) {
  std::string text = describe_registers(state);
  for (std::size_t i = 0; i < 12; ++i)
    text += fmt::format(" {} {}", fields()[i].name, bytes(&state.xsave[fields()[i].offset], fields()[i].size));
  text += "\n";
  for (std::size_t i = 12; i < 28; ++i)
    text += fmt::format("  {} {}{}\n", fields()[i].name, bytes(&state.xsave[fields()[i + 16].offset], 16),
                        bytes(&state.xsave[fields()[i].offset], 16));
  return text;
}

std::vector<std::uint8_t> copy_pages(const MemoryImage& memory) {
  std::vector<std::uint8_t> copy(kDataSize);
  for (std::size_t page = 0; page < kDataPages.size(); ++page)
    if (kDataPages[page] != PageKind::Hole) std::memcpy(&copy[4096 * page], memory(page), 4096);
  return copy;
}

}  // namespace vm_platform::random_instructions
