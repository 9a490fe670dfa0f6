// Code that is not 64-bit on the software engine.
#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "engine/soft_engine_fixture.hpp"

namespace vm_platform {
namespace {

class LegacyCodeTest : public SoftEngineTest {
 protected:
  /// 32-bit flat segments, no paging, x87, SSE and AVX switched on.
  void protected_mode() {
    state_.cr0 = 0x33, state_.cr4 = 0x40600, state_.efer = 0;
    const Segment data{0, 0xffffffff, 0x18, 0xc093};
    state_.segments = {data, {0, 0xffffffff, 0x10, 0xc09b}, data, data, data, data};
  }
  /// CS at 20000h; the handler of `vector` tells by the port, as in long mode.
  void real_mode(unsigned vector) {
    handler(vector);
    put<std::uint32_t>(kIdt + vector * 4, (0xa000 + vector * 16) / 16 << 16);
    state_.cr0 = 0x10, state_.cr4 = 0, state_.efer = 0, state_.idtr = {kIdt, 0x3ff};
    const Segment data{0, 0xffff, 0, 0x93};
    state_.segments = {data, {0x20000, 0xffff, 0x2000, 0x9b}, data, data, data, data};
    state_.gpr[kRsp] = 0x7000;
  }
  CpuState run_at(std::uint64_t rip, std::initializer_list<int> bytes) {
    std::uint64_t at = state_.segments[kCs].base + (state_.rip = rip);
    for (const int byte : bytes) put<std::uint8_t>(at++, static_cast<std::uint8_t>(byte));
    EXPECT_TRUE(vcpu_->set_state(state_));
    EXPECT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
    return vcpu_->state();
  }
};

TEST_F(LegacyCodeTest, VexWidthsOf64BitModeDoNotReachBeyondTheOperand) {
  if (__builtin_cpu_supports("avx2") == 0) GTEST_SKIP() << "the host has no AVX2";
  protected_mode();
  // The last bytes of RAM, and what a page's end must keep apart.
  for (const std::uint64_t at : {memory_->size() - 4, kData + 0xffc}) {
    if (at + 8 <= memory_->size()) put<std::uint32_t>(at + 4, 0);
    state_.gpr[kRbx] = at;
    std::memset(state_.xsave.data() + 160, 0x5a, 16);
    const CpuState end = run({0xc4, 0xe1, 0xf9, 0x7e, 0x03,        // vmovd [ebx], xmm0, with W
                              0xc4, 0xe3, 0xf9, 0x16, 0x03, 0x01,  // vpextrd [ebx], xmm0, 1
                              0xc4, 0xe2, 0xfb, 0xf7, 0x33,        // shrx esi, [ebx], eax
                              0xc4, 0xe1, 0xfa, 0x2a, 0x0b,        // vcvtsi2ss xmm1, xmm0, [ebx]
                              0xb0, 0xff});
    EXPECT_EQ(exit_.written, 0xffu);
    EXPECT_EQ(get<std::uint32_t>(at), 0x5a5a5a5au);
    EXPECT_EQ(end.gpr[kRsi], 0x5a5a5a5aULL >> (state_.gpr[kRax] & 31));
    if (at + 8 <= memory_->size()) {
      EXPECT_EQ(get<std::uint32_t>(at + 4), 0u) << "beyond the operand";
    }
  }
}

TEST_F(LegacyCodeTest, VectorRegistersOf64BitModeStay) {
  if (__builtin_cpu_supports("avx") == 0) GTEST_SKIP() << "the host has no AVX";
  protected_mode();
  const auto fill = [&] {
    std::fill(state_.xsave.begin() + 160, state_.xsave.begin() + 160 + 256, std::uint8_t{0x11});
    std::fill(state_.xsave.begin() + 576, state_.xsave.begin() + 576 + 256, std::uint8_t{0x22});
  };
  const auto all = [](const CpuState& state, std::size_t begin, std::uint8_t value) {
    return std::all_of(state.xsave.begin() + static_cast<std::ptrdiff_t>(begin),
                       state.xsave.begin() + static_cast<std::ptrdiff_t>(begin) + 128,
                       [value](std::uint8_t byte) { return byte == value; });
  };
  fill();
  CpuState end = run({0xc5, 0xf8, 0x77});  // vzeroupper
  EXPECT_TRUE(all(end, 160, 0x11) && all(end, 576, 0));
  EXPECT_TRUE(all(end, 160 + 128, 0x11) && all(end, 576 + 128, 0x22));
  end = run({0xc5, 0xfc, 0x77});  // vzeroall
  EXPECT_TRUE(all(end, 160, 0) && all(end, 576, 0));
  EXPECT_TRUE(all(end, 160 + 128, 0x11) && all(end, 576 + 128, 0x22));
  // The fourth operand's highest bit does not count: xmm0, not xmm8, says what is blended.
  std::memset(state_.xsave.data() + 160 + 128, 0xff, 16);
  std::memset(state_.xsave.data() + 160 + 32, 0x77, 16);
  end = run({0xc4, 0xe3, 0x71, 0x4a, 0xda, 0x80});  // vblendvps xmm3, xmm1, xmm2, xmm0
  EXPECT_EQ(end.xsave[160 + 48], 0x11) << "xmm1's, since no sign bit is set in xmm0";
}

TEST_F(LegacyCodeTest, VexIsNoPrefixInRealMode) {
  real_mode(6);
  run_at(0x100, {0xc4, 0xe2, 0x78, 0xf2, 0xc1, 0xb0, 0xff, 0xe6, 0xf4});  // andn eax, eax, ecx
  EXPECT_EQ(exit_.written, 6u);
}

TEST_F(LegacyCodeTest, AJumpBeyondTheLimitChangesNothing) {
  real_mode(13);
  struct Case {
    const char* what;
    std::initializer_list<int> bytes;
  };
  for (const auto& [what, bytes] : {Case{"jmp", {0x66, 0xe9, 0, 0, 1, 0}}, Case{"call", {0x66, 0xe8, 0, 0, 1, 0}},
                                    Case{"jz", {0x66, 0x0f, 0x84, 0, 0, 1, 0}}}) {
    state_.rflags = 0x42;
    const CpuState end = run_at(0x100, bytes);
    EXPECT_EQ(exit_.written, 13u) << what;
    EXPECT_EQ(get<std::uint16_t>(0x7000 - 6), 0x100u) << what;
    EXPECT_EQ(end.gpr[kRsp] & 0xffff, 0x7000u - 6) << what;
  }
  state_.segments[kCs].limit = 0x17f, state_.gpr[kRcx] = 5;
  const CpuState end = run_at(0x110, {0xe2, 0x7e});  // loop
  EXPECT_EQ(get<std::uint16_t>(0x7000 - 6), 0x110u);
  EXPECT_EQ(end.gpr[kRcx] & 0xffff, 5u);
}

}  // namespace
}  // namespace vm_platform
