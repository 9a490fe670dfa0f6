#include "tests/random_instructions/initial_state.hpp"

#include <cstring>

namespace vm_platform::random_instructions {
namespace {

constexpr std::uint64_t kArithmeticFlags = 0x8d5;

std::uint32_t random_mxcsr(Random& random) {
  std::uint32_t v = 0x1f80 | static_cast<std::uint32_t>(random.next() & 0x6000);
  if (random.percent(20)) v |= static_cast<std::uint32_t>(random.next() & 0x8040);
  if (random.percent(5)) v &= ~(std::uint32_t{1} << (7 + random.below(6)));
  return v;
}

}  // namespace

std::uint64_t random_word(Random& random) {
  switch (random.below(6)) {
    case 0: return random.below(256) - 128;
    case 1: return std::uint64_t{1} << random.below(64);
    case 2: return ~std::uint64_t{0} << random.below(64);
    case 3: return random.next() & 0xffffffff;
    default: return random.next();
  }
}

MachineState random_state(Random& random) {
  MachineState s{};
  for (auto& r : s.gpr) r = random_word(random);
  // Some CPUs (AMD's Zen 5) return to user mode with no stack pointer that is not canonical.
  constexpr std::size_t kRsp = 4;
  s.gpr[kRsp] = static_cast<std::uint64_t>(static_cast<std::int64_t>(s.gpr[kRsp] << 16) >> 16);
  s.rflags = 2 | (random.next() & kArithmeticFlags);
  std::uint8_t* x = s.xsave.data();
  for (std::size_t i = 32; i < 416; ++i) x[i] = random.byte();
  for (std::size_t i = 576; i < 832; ++i) x[i] = random.byte();
  for (std::size_t i = 0; i < 8; ++i) {  // x87 registers: 80 bits, often plain numbers
    if (random.percent(60)) {
      x[32 + 16 * i + 7] |= 0x80;
      x[32 + 16 * i + 9] = (x[32 + 16 * i + 9] & 0x80) | 0x3f;
      x[32 + 16 * i + 8] |= 0xf0;
    }
    for (std::size_t j = 10; j < 16; ++j) x[32 + 16 * i + j] = 0;
  }
  for (std::size_t i = 160; i < 416; i += 4)  // vectors: often ordinary floats
    if (random.percent(40)) x[i + 3] = (x[i + 3] & 0x80) | 0x3f;
  const std::uint16_t fcw =
      static_cast<std::uint16_t>(0x7f | (random.next() & 0xc00) | (random.percent(70) ? 0x300 : random.next() & 0x300));
  const std::uint16_t fsw = static_cast<std::uint16_t>(random.next() & 0x7f7f & ~0xbfU);
  std::memcpy(x, &fcw, 2);
  std::memcpy(x + 2, &fsw, 2);
  x[4] = random.percent(50) ? 0 : random.byte();
  const std::uint32_t mxcsr = random_mxcsr(random);
  std::memcpy(x + 24, &mxcsr, 4);
  const std::uint32_t mxcsr_mask = 0xffff;
  std::memcpy(x + 28, &mxcsr_mask, 4);
  x[512] = 7;
  return s;
}

std::vector<std::uint8_t> random_data(Random& random) {
  std::vector<std::uint8_t> d(kDataSize);
  for (std::size_t i = 0; i < d.size(); i += 8) {
    const std::uint64_t v = random.next();
    std::memcpy(&d[i], &v, 8);
  }
  const auto at = [&](std::uint64_t address) { return &d[address - kDataBase]; };
  for (std::uint64_t i = 0; i < 0x400; i += 4) {
    const auto v = static_cast<std::int32_t>(random.below(400)) - 200;
    std::memcpy(at(kTable + i), &v, 4);
  }
  for (std::uint64_t i = 0x400; i < 0x800; i += 8) {
    const auto v = static_cast<std::int64_t>(random.below(400)) - 200;
    std::memcpy(at(kTable + i), &v, 8);
  }
  for (std::uint64_t i = 0; i < 0x400; i += 4) {
    const std::uint32_t v = random_mxcsr(random);
    std::memcpy(at(kMxcsrTable + i), &v, 4);
  }
  for (std::uint64_t i = 0; i < 0x400; i += 2) {
    const auto v =
        static_cast<std::uint16_t>(0x37f ^ (random.next() & 0xf00) ^ (random.percent(3) ? 1U << random.below(6) : 0));
    std::memcpy(at(kFcwTable + i), &v, 2);
  }
  return d;
}

}  // namespace vm_platform::random_instructions
