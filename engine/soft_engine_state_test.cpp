// The state of a CPU of the software engine, in, out, and after INIT.
#include <algorithm>
#include <chrono>
#include <thread>

#include "engine/soft_engine_fixture.hpp"

namespace vm_platform {
namespace {

TEST_F(SoftEngineTest, RegistersGoThrough) {
  for (unsigned i = 0; i < 16; ++i)
    if (i != kRsp) state_.gpr[i] = 0x1111111111111111ULL * i;
  const CpuState end = run({0x90});
  for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(end.gpr[i], state_.gpr[i]) << i;
  EXPECT_EQ(end.rip, kCode + 3);
}

TEST_F(SoftEngineTest, StateCarriesTheModelSpecificRegisters) {
  struct Case {
    std::uint32_t index;
    std::uint64_t value;
  };
  const Case cases[] = {{0x3b, 0x1000},
                        {0x174, 0x10},
                        {0x1d9, 1},
                        {0x200, 0x80000006},
                        {0x201, 0x3fff80000800},
                        {0x250, 0x0505050505050505},
                        {0x277, 0x0407050600070106},
                        {0x2ff, 0xc00},
                        {0xc0000082, 0xffffffff81000000},
                        {0xc0000103, 7},
                        {0xc0010010, 0x160600},
                        {0x4b564d01, kData | 1}};
  for (const auto& [index, value] : cases) state_.msrs.push_back({index, value});
  ASSERT_TRUE(vcpu_->set_state(state_));
  const CpuState end = vcpu_->state();
  for (const auto& [index, value] : cases) {
    const auto found = std::ranges::find(end.msrs, index, &MsrValue::index);
    ASSERT_NE(found, end.msrs.end()) << std::hex << index;
    EXPECT_EQ(found->value, value) << std::hex << index;
  }
  const std::uint64_t before = __builtin_ia32_rdtsc();
  ASSERT_TRUE(vcpu_->set_state(end)) << "what it gave can be given back";
  const CpuState again = run({0x0f, 0x31});  // rdtsc
  const std::uint64_t tsc = again.gpr[kRdx] << 32 | again.gpr[kRax];
  EXPECT_GE(tsc, before + environment_.tsc.offset + 0x1000) << "the counter goes on, as far ahead as TSC_ADJUST says";
  EXPECT_LE(tsc, __builtin_ia32_rdtsc() + environment_.tsc.offset + 0x1000);
}

TEST_F(SoftEngineTest, StateWithAnImpossibleRegisterIsRefused) {
  for (const MsrValue& msr : {MsrValue{0x277, 2}, MsrValue{0xc0000082, 1ULL << 63}, MsrValue{0x12345678, 0}}) {
    state_.msrs = {msr};
    const auto set = vcpu_->set_state(state_);
    ASSERT_FALSE(set) << std::hex << msr.index;
    EXPECT_EQ(set.error().code(), ErrorCode::InvalidArgument);
  }
}

TEST_F(SoftEngineTest, StateThatWouldHurtTheHostOrTheGuestIsRefused) {
  const CpuState good = state_;
  const auto refused = [&](const char* what, auto&& change) {
    CpuState bad = good;
    change(bad);
    const auto set = vcpu_->set_state(bad);
    ASSERT_FALSE(set) << what;
    EXPECT_EQ(set.error().code(), ErrorCode::InvalidArgument) << what;
  };
  refused("PG without PE", [](CpuState& s) { s.cr0 = 0x80000010; });
  refused("unknown CR4", [](CpuState& s) { s.cr4 |= 1 << 22; });
  refused("AVX without SSE", [](CpuState& s) { s.xcr0 = 5; });
  refused("MXCSR", [](CpuState& s) { s.xsave[26] = 1; });
  refused("XSTATE_BV", [](CpuState& s) { s.xsave[512] = 0xe7; });
  refused("XCOMP_BV", [](CpuState& s) { s.xsave[527] = 0x80; });
  refused("header", [](CpuState& s) { s.xsave[530] = 1; });
  run({0xd9, 0xe8, 0x0f, 0x57, 0xc0});  // fld1; xorps xmm0, xmm0
}

TEST_F(SoftEngineTest, TranslationsBelongToTheProcessContextOfTheStateThatWasSet) {
  // Another address space has other memory at kData. It gets the number 2, and then the number 0, which nobody has had.
  constexpr std::uint64_t kOther = 0x20000;
  put<std::uint64_t>(kOther, (kOther + 0x1000) | 3), put<std::uint64_t>(kOther + 0x1000, (kOther + 0x2000) | 3);
  put<std::uint64_t>(kOther + 0x2000, 0x4003), put<std::uint64_t>(kOther + 0x2008, 0x800083);
  put<std::uint64_t>(kData, 1), put<std::uint64_t>(0x800000, 2);
  state_.cr4 |= 1 << 17, state_.cr3 = 0x1001;
  state_.gpr[kRbx] = kData, state_.gpr[kRsi] = kOther | 2, state_.gpr[kRdi] = kOther | 1ULL << 63;
  const CpuState end = run({0x48, 0x8b, 0x0b,                    // mov rcx, [rbx]
                            0x0f, 0x22, 0xde, 0x0f, 0x22, 0xdf,  // mov cr3, rsi; mov cr3, rdi
                            0x48, 0x8b, 0x13});                  // mov rdx, [rbx]
  EXPECT_EQ(end.gpr[kRcx], 1u);
  EXPECT_EQ(end.gpr[kRdx], 2u);
}

TEST_F(SoftEngineTest, WaitTellsOfAPendingErrorUnlessItIsNotAvailable) {
  handler(16), handler(7);
  state_.xsave[0] = 0x7e, state_.xsave[2] = 0x81, state_.xsave[3] = 0x80;  // invalid operation, not masked
  struct Case {
    std::uint64_t cr0;
    unsigned vector;
  };
  for (const auto& [cr0, vector] :
       {Case{0x80010031, 16}, Case{0x80010039, 16}, Case{0x80010035, 16}, Case{0x8001003b, 7}}) {
    state_.cr0 = cr0;
    run({0x9b, 0xb0, 0xff});  // fwait
    EXPECT_EQ(exit_.written, vector) << std::hex << cr0;
  }
}

TEST_F(SoftEngineTest, InitKeepsWhatTheManualSaysItKeeps) {
  state_.msrs = {{0x277, 0x0407050600070106}, {0xc0000103, 7}};
  state_.gpr[kRbx] = 5;
  state_.xsave[160] = 0x5a;
  ASSERT_TRUE(vcpu_->set_state(state_));
  vcpu_->raise_init();
  vcpu_->raise_startup(0x12);
  put<std::uint16_t>(0x12000, 0xf4e6);  // out 0xf4, al
  ASSERT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
  const CpuState end = vcpu_->state();
  EXPECT_EQ(end.segments[kCs].selector, 0x1200);
  EXPECT_EQ(end.segments[kCs].base, 0x12000u);
  EXPECT_EQ(end.rip, 2u);
  EXPECT_EQ(end.gpr[kRbx], 0u);
  EXPECT_EQ(end.cr0 & 0x80000001, 0u);
  EXPECT_EQ(end.efer, 0u);
  EXPECT_EQ(end.xsave[160], 0x5a) << "vector registers stay";
  for (const MsrValue& msr : state_.msrs) {
    const auto found = std::ranges::find(end.msrs, msr.index, &MsrValue::index);
    ASSERT_NE(found, end.msrs.end());
    EXPECT_EQ(found->value, msr.value) << "MSRs stay";
  }
}

TEST_F(SoftEngineTest, ACpuThatDoesNotWaitLosesAStartUpIpi) {
  put<std::uint16_t>(kCode, 0xf4e6);  // out 0xf4, al
  ASSERT_TRUE(vcpu_->set_state(state_));
  vcpu_->raise_startup(0x12);
  ASSERT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
  EXPECT_EQ(vcpu_->state().rip, kCode + 2);
  // The machine is reset: this CPU waits, and nobody has told it to start since.
  state_.run_state = RunState::WaitForStartup;
  ASSERT_TRUE(vcpu_->set_state(state_));
  std::jthread stop([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    vcpu_->kick();
  });
  ASSERT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
  EXPECT_EQ(vcpu_->state().run_state, RunState::WaitForStartup);
}

TEST_F(SoftEngineTest, ForgottenSignalsDoNothing) {
  put<std::uint16_t>(kCode, 0xf4e6);  // out 0xf4, al
  ASSERT_TRUE(vcpu_->set_state(state_));
  vcpu_->raise_init();
  vcpu_->raise_startup(0x12);
  vcpu_->raise_nmi();
  vcpu_->forget_signals();
  ASSERT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
  EXPECT_EQ(vcpu_->state().rip, kCode + 2);
  EXPECT_FALSE(vcpu_->state().nmi_pending);
}

}  // namespace
}  // namespace vm_platform
