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
