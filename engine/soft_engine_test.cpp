// Whole small programs on the software engine, in a flat 64-bit guest.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.hpp"

namespace vm_platform {
namespace {

constexpr std::uint64_t kCode = 0x100000, kData = 0x200000, kStack = 0x300000, kIdt = 0x8000, kGdt = 0x9000;

/// At most one interrupt, waiting from the start; no MSRs.
struct NoController : CpuInterruptController {
  std::optional<std::uint8_t> waiting;
  bool has_interrupt() noexcept override { return waiting.has_value(); }
  std::optional<std::uint8_t> acknowledge() noexcept override { return std::exchange(waiting, std::nullopt); }
  std::uint8_t task_priority() noexcept override { return 0; }
  void set_task_priority(std::uint8_t) noexcept override {}
  MsrAccess read_msr(std::uint32_t, std::uint64_t&) noexcept override { return MsrAccess::NotMine; }
  MsrAccess write_msr(std::uint32_t, std::uint64_t) noexcept override { return MsrAccess::NotMine; }
};

/// A write to port 0xf4 ends the program.
struct ExitPort : PortDevice {
  std::uint32_t port_read(std::uint16_t, unsigned) override { return 0; }
  void port_write(std::uint16_t, unsigned, std::uint32_t value) override {
    written = value;
    vcpu->kick();
  }
  Vcpu* vcpu = nullptr;
  std::optional<std::uint32_t> written;
};

class SoftEngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    memory_.emplace(GuestMemory::create(16 * kMiB).value());
    // 4 MiB identity-mapped with 4 KiB pages, the rest with 2 MiB pages.
    put<std::uint64_t>(0x1000, 0x2003), put<std::uint64_t>(0x2000, 0x3003);
    for (std::uint64_t i = 0; i < 8; ++i) put<std::uint64_t>(0x3000 + i * 8, i << 21 | 0x83);
    for (std::uint64_t i = 0; i < 2; ++i) put<std::uint64_t>(0x3000 + i * 8, (0x4000 + i * 0x1000) | 3);
    for (std::uint64_t i = 0; i < 1024; ++i) put<std::uint64_t>(0x4000 + i * 8, i << 12 | 3);
    put<std::uint64_t>(kGdt + 0x10, 0x00af9b000000ffff), put<std::uint64_t>(kGdt + 0x18, 0x00cf93000000ffff);
    ASSERT_TRUE(ports_.attach(0xf4, 1, exit_, "exit"));
    environment_ = {&*memory_, &ports_, &mmio_, {}};
    make_engine({});
    state_.rip = kCode;
    state_.gpr[kRsp] = kStack;
    state_.cr0 = 0x80010033, state_.cr3 = 0x1000, state_.cr4 = 0x40620, state_.efer = 0xd01, state_.xcr0 = 7;
    const Segment data{0, 0xffffffff, 0x18, 0xc093};
    state_.segments = {data, {0, 0xffffffff, 0x10, 0xa09b}, data, data, data, data};
    state_.tr = {0, 0xffff, 0, 0x8b};
    state_.gdtr = {kGdt, 0x1f}, state_.idtr = {kIdt, 0xfff};
    state_.xsave[0] = 0x7f, state_.xsave[1] = 3, state_.xsave[24] = 0x80, state_.xsave[25] = 0x1f,
    state_.xsave[512] = 7;
  }

  void make_engine(const EngineOptions& options) {
    vcpu_.reset(), engine_.reset();
    engine_ = create_soft_engine(environment_, options).value();
    vcpu_ = engine_->create_vcpu(0, controller_).value();
    exit_.vcpu = vcpu_.get();
  }

  template <typename T>
  void put(std::uint64_t address, T value) {
    std::memcpy(memory_->host(Gpa(address), sizeof value), &value, sizeof value);
  }
  template <typename T>
  T get(std::uint64_t address) {
    T value;
    std::memcpy(&value, memory_->host(Gpa(address), sizeof value), sizeof value);
    return value;
  }
  /// The handler of an exception: leaves through the port with its number in AL.
  void handler(unsigned vector) {
    const std::uint64_t at = 0xa000 + vector * 16;
    const std::uint8_t code[] = {0xb0, static_cast<std::uint8_t>(vector), 0xe6, 0xf4};
    std::memcpy(memory_->host(Gpa(at), sizeof code), code, sizeof code);
    put<std::uint64_t>(kIdt + vector * 16, (at & 0xffff) | 0x10ULL << 16 | 0x8e00ULL << 32 | (at & 0xffff0000) << 32);
    put<std::uint64_t>(kIdt + vector * 16 + 8, 0);
  }

  /// Runs the bytes followed by `mov al, 0xff; out 0xf4, al`; returns the state at the end.
  CpuState run(std::initializer_list<int> bytes) {
    std::uint64_t at = kCode;
    for (const int byte : bytes) put<std::uint8_t>(at++, static_cast<std::uint8_t>(byte));
    for (const int byte : {0xe6, 0xf4}) put<std::uint8_t>(at++, static_cast<std::uint8_t>(byte));
    EXPECT_TRUE(vcpu_->set_state(state_));
    const VcpuExit exit = vcpu_->run();
    EXPECT_EQ(exit.kind, VcpuExit::Kind::Kicked) << exit.error;
    return vcpu_->state();
  }

  std::optional<GuestMemory> memory_;
  PortBus ports_;
  MmioBus mmio_;
  ExitPort exit_;
  NoController controller_;
  EngineEnvironment environment_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Vcpu> vcpu_;
  CpuState state_;
};

TEST_F(SoftEngineTest, RegistersGoThrough) {
  for (unsigned i = 0; i < 16; ++i)
    if (i != kRsp) state_.gpr[i] = 0x1111111111111111ULL * i;
  const CpuState end = run({0x90});
  for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(end.gpr[i], state_.gpr[i]) << i;
  EXPECT_EQ(end.rip, kCode + 3);
}

TEST_F(SoftEngineTest, ArithmeticAndFlags) {
  state_.gpr[kRax] = 1, state_.gpr[kR9] = ~0ULL, state_.gpr[kRcx] = 5;
  const CpuState end = run({0x49, 0x01, 0xc1,          // add r9, rax  -> 0, CF ZF
                            0x48, 0x11, 0xc9,          // adc rcx, rcx -> 11
                            0x48, 0x83, 0xe9, 0x0c});  // sub rcx, 12  -> -1, CF
  EXPECT_EQ(end.gpr[kR9], 0u);
  EXPECT_EQ(end.gpr[kRcx], ~0ULL);
  EXPECT_EQ(end.rflags & 0x8d5, 0x95u);
}

TEST_F(SoftEngineTest, MemoryOperandsOfEveryKind) {
  state_.gpr[kRbx] = kData, state_.gpr[kR10] = 2, state_.gpr[kRsi] = kData + 0xffe;
  put<std::uint64_t>(kData + 16, 40);
  put<std::uint32_t>(kData + 0xffe, 0x11223344);                 // crosses a page
  const CpuState end = run({0x4a, 0x8b, 0x04, 0xd3,              // mov rax, [rbx + r10*8]
                            0x83, 0x43, 0x10, 0x02,              // add dword [rbx+16], 2
                            0x48, 0x8b, 0x4b, 0x10,              // mov rcx, [rbx+16]
                            0x8b, 0x16,                          // mov edx, [rsi]
                            0x81, 0x06, 0x01, 0x00, 0x00, 0x01,  // add dword [rsi], 0x01000001
                            0x8a, 0x63, 0x10});                  // mov ah, [rbx+16]
  EXPECT_EQ(end.gpr[kRax], 0x2a28u);
  EXPECT_EQ(end.gpr[kRcx], 42u);
  EXPECT_EQ(end.gpr[kRdx], 0x11223344u);
  EXPECT_EQ(get<std::uint32_t>(kData + 0xffe), 0x12223345u);
}

TEST_F(SoftEngineTest, FlagsLiveAcrossMemoryAccesses) {
  state_.gpr[kRbx] = kData;
  const CpuState end = run({0x48, 0x39, 0xdb,                                // cmp rbx, rbx (ZF)
                            0x48, 0x8b, 0x03,                                // mov rax, [rbx]
                            0x48, 0x89, 0x43, 0x08, 0x0f, 0x94, 0x43, 0x20,  // sete [rbx+32]
                            0x50, 0x59,                                      // push rax; pop rcx
                            0x0f, 0x94, 0xc2});                              // sete dl
  EXPECT_EQ(get<std::uint8_t>(kData + 32), 1u);
  EXPECT_EQ(end.gpr[kRdx] & 0xff, 1u);
}

TEST_F(SoftEngineTest, LoopsCallsAndReturns) {
  const CpuState end = run({0xb9, 0x10, 0x27, 0x00, 0x00,  // mov ecx, 10000
                            0x31, 0xc0,                    // xor eax, eax
                            0xe8, 0x06, 0x00, 0x00, 0x00,  // again: call add
                            0xff, 0xc9,                    // dec ecx
                            0x75, 0xf7,                    // jnz again
                            0xeb, 0x04,                    // jmp end
                            0x48, 0x01, 0xc8, 0xc3});      // add: add rax, rcx; ret
  EXPECT_EQ(end.gpr[kRax], 50005000u);
  EXPECT_EQ(end.gpr[kRsp], kStack);
}

TEST_F(SoftEngineTest, PushOfRspAndPopIntoMemoryRelativeToRsp) {
  const CpuState end = run({0x54,                      // push rsp
                            0x6a, 0xf9,                // push -7
                            0x8f, 0x44, 0x24, 0x08});  // pop [rsp+8]: the address after the increment
  EXPECT_EQ(get<std::uint64_t>(kStack - 8), kStack);
  EXPECT_EQ(get<std::int64_t>(kStack), -7);
  EXPECT_EQ(end.gpr[kRsp], kStack - 8);
}

TEST_F(SoftEngineTest, VectorAndX87StateIsTheGuests) {
  state_.gpr[kRbx] = kData;
  put<double>(kData, 2.0);
  const CpuState end = run({0xf2, 0x0f, 0x51, 0x03,        // sqrtsd xmm0, [rbx]
                            0xc5, 0xfb, 0x58, 0xc8,        // vaddsd xmm1, xmm0, xmm0
                            0xf2, 0x0f, 0x11, 0x4b, 0x08,  // movsd [rbx+8], xmm1
                            0xdd, 0x03, 0xd9, 0xfa,        // fld qword [rbx]; fsqrt
                            0xdd, 0x5b, 0x10});            // fstp qword [rbx+16]
  EXPECT_DOUBLE_EQ(get<double>(kData + 8), 2 * 1.4142135623730951);
  EXPECT_DOUBLE_EQ(get<double>(kData + 16), 1.4142135623730951);
  double xmm0 = 0;
  std::memcpy(&xmm0, end.xsave.data() + 160, 8);
  EXPECT_DOUBLE_EQ(xmm0, 1.4142135623730951);
}

TEST_F(SoftEngineTest, SelfModifyingCodeDownToTheNextInstruction) {
  // mov byte [rip+1], 42; mov al, 7   -- the write changes the 7
  const CpuState end = run({0xc6, 0x05, 0x01, 0x00, 0x00, 0x00, 0x2a, 0xb0, 0x07});
  EXPECT_EQ(end.gpr[kRax] & 0xff, 42u);
}

TEST_F(SoftEngineTest, DivisionByZeroIsTheGuestsException) {
  handler(0);
  state_.gpr[kRcx] = 0;
  run({0x31, 0xd2, 0xf7, 0xf1});  // xor edx, edx; div ecx
  EXPECT_EQ(exit_.written, 0u);
  EXPECT_EQ(get<std::uint64_t>(kStack - 40), kCode + 2) << "RIP of the faulting instruction";
}

TEST_F(SoftEngineTest, PageFaultPushesErrorCodeAndKeepsRegisters) {
  handler(14);
  state_.gpr[kRbx] = 0x40000000;
  const CpuState end = run({0xff, 0x03});  // inc dword [rbx]
  EXPECT_EQ(exit_.written, 14u);
  EXPECT_EQ(end.cr2, 0x40000000u);
  EXPECT_EQ(get<std::uint64_t>(kStack - 48), 2u) << "write, not present";
  EXPECT_EQ(get<std::uint64_t>(kStack - 40), kCode);
}

TEST_F(SoftEngineTest, BitTestReachesBeyondItsOperand) {
  state_.gpr[kRbx] = kData, state_.gpr[kRcx] = 1000, state_.gpr[kRdx] = static_cast<std::uint64_t>(-3);
  put<std::uint8_t>(kData + 125, 1);
  const CpuState end = run({0x48, 0x0f, 0xa3, 0x0b,  // bt [rbx], rcx -> bit 0 of byte 125
                            0x0f, 0x92, 0xc0,        // setc al
                            0x0f, 0xab, 0x13});      // bts [rbx], edx -> bit 29 of the dword before
  EXPECT_EQ(end.gpr[kRax] & 0xff, 1u);
  EXPECT_EQ(get<std::uint32_t>(kData - 4), 1u << 29);
}

TEST_F(SoftEngineTest, FlagsArePushedAndPoppedWhole) {
  state_.gpr[kRax] = 0x1234;
  const CpuState end = run({0xf9,                                            // stc
                            0xfb, 0x90, 0x90,                                // sti; nop; nop
                            0x9c,                                            // pushfq
                            0xfa,                                            // cli
                            0x9c, 0x5b,                                      // pushfq; pop rbx
                            0x0f, 0x92, 0xc1,                                // setc cl
                            0x9d,                                            // popfq
                            0x0f, 0x92, 0xc2,                                // setc dl
                            0x48, 0x81, 0x0c, 0x24, 0xc4, 0x08, 0x00, 0x00,  // or qword [rsp], ZF SF PF OF (any)
                            0x6a, 0x02, 0x9d,                                // push 2; popfq: everything off
                            0x9c, 0x5e});                                    // pushfq; pop rsi
  EXPECT_EQ(end.gpr[kRbx], 0x3u);
  EXPECT_EQ(end.gpr[kRcx] & 0xff, 1u);
  EXPECT_EQ(end.gpr[kRdx] & 0xff, 1u);
  EXPECT_EQ(end.gpr[kRsi], 0x2u);
  EXPECT_EQ(get<std::uint64_t>(kStack - 8) & 0x203, 0x2u);
  EXPECT_EQ(end.gpr[kRax], 0x1234u);
}

TEST_F(SoftEngineTest, AccessThatWrapsRoundTheAddressSpaceFaults) {
  handler(14);
  state_.gpr[kRax] = static_cast<std::uint64_t>(-4);
  const CpuState end = run({0x48, 0x8b, 0x00});  // mov rax, [rax]
  EXPECT_EQ(exit_.written, 14u);
  EXPECT_EQ(end.cr2, static_cast<std::uint64_t>(-4));
}

TEST_F(SoftEngineTest, MovzxIntoRspFromAHighByte) {
  state_.gpr[kRcx] = 0x1234, state_.gpr[kRdx] = 0x85ff;
  const CpuState end = run({0x48, 0x89, 0xe3,        // mov rbx, rsp
                            0x0f, 0xb6, 0xe5,        // movzx esp, ch
                            0x89, 0xe6,              // mov esi, esp
                            0x66, 0x0f, 0xbe, 0xe6,  // movsx sp, dh
                            0x89, 0xe7,              // mov edi, esp
                            0x48, 0x89, 0xdc});      // mov rsp, rbx
  EXPECT_EQ(end.gpr[kRsi], 0x12u);
  EXPECT_EQ(end.gpr[kRdi], 0xff85u);
  EXPECT_EQ(end.gpr[kRcx], 0x1234u);
}

TEST_F(SoftEngineTest, WaitingInterruptIsTakenOneInstructionAfterSti) {
  handler(0x40);
  controller_.waiting = 0x40;
  run({0x90, 0xfb, 0x90, 0x90, 0x90});  // nop; sti; nop; nop; nop
  EXPECT_EQ(exit_.written, 0x40u);
  EXPECT_EQ(get<std::uint64_t>(kStack - 40), kCode + 3);
}

TEST_F(SoftEngineTest, WaitingInterruptIsTakenRightAfterPopf) {
  handler(0x40);
  controller_.waiting = 0x40;
  run({0x68, 0x02, 0x02, 0x00, 0x00, 0x9d, 0x90, 0x90});  // push 0x202; popfq; nop; nop
  EXPECT_EQ(exit_.written, 0x40u);
  EXPECT_EQ(get<std::uint64_t>(kStack - 40), kCode + 6);
}

TEST_F(SoftEngineTest, StringsMove) {
  state_.gpr[kRsi] = kData, state_.gpr[kRdi] = kData + 0x1800, state_.gpr[kRcx] = 0x1001;
  for (unsigned i = 0; i < 0x1001; ++i) put<std::uint8_t>(kData + i, static_cast<std::uint8_t>(i * 7));
  const CpuState end = run({0xf3, 0xa4});
  EXPECT_EQ(end.gpr[kRcx], 0u);
  EXPECT_EQ(std::memcmp(memory_->host(Gpa(kData), 0x1001), memory_->host(Gpa(kData + 0x1800), 0x1001), 0x1001), 0);
}

TEST_F(SoftEngineTest, InstructionBreakpointIsAFault) {
  handler(1);
  state_.debug_address[2] = kCode + 3, state_.dr7 = 0x400 | 1 << 4;
  const CpuState end = run({0x48, 0xff, 0xc3, 0x48, 0xff, 0xc3});  // inc rbx; inc rbx
  EXPECT_EQ(end.gpr[kRbx], state_.gpr[kRbx] + 1);
  EXPECT_EQ(end.dr6 & 0xf, 4u);
  EXPECT_EQ(get<std::uint64_t>(kStack - 40), kCode + 3) << "before the instruction";
}

TEST_F(SoftEngineTest, ResumeFlagGoesPastABreakpoint) {
  // The handler of the debug exception counts in R15, sets RF in the image, and returns.
  const std::uint8_t code[] = {0x49, 0xff, 0xc7, 0x81, 0x4c, 0x24, 0x10, 0, 0, 1, 0, 0x48, 0xcf};
  handler(1);
  std::memcpy(memory_->host(Gpa(0xa010), sizeof code), code, sizeof code);
  state_.debug_address[0] = kCode, state_.dr7 = 0x401;
  const CpuState end = run({0x48, 0xff, 0xc3, 0x48, 0xff, 0xc3});
  EXPECT_EQ(end.gpr[kRbx], state_.gpr[kRbx] + 2);
  EXPECT_EQ(end.gpr[kR15], state_.gpr[kR15] + 1) << "hit once";
}

TEST_F(SoftEngineTest, SingleStepSkipsTheHandlerOfASoftwareInterrupt) {
  handler(1);
  handler(0x80);
  state_.rflags = 0x102;
  const CpuState end = run({0xcd, 0x80});
  EXPECT_EQ(end.gpr[kRax] & 0xff, 0x80u) << "the handler runs without a trap before it";
}

TEST_F(SoftEngineTest, SingleStepTrapsAfterEveryRepetition) {
  // The handler of the debug exception counts in R15 and returns.
  const std::uint8_t code[] = {0x49, 0xff, 0xc7, 0x48, 0xcf};
  handler(1);
  std::memcpy(memory_->host(Gpa(0xa010), sizeof code), code, sizeof code);
  state_.rflags = 0x102;
  state_.gpr[kRdi] = kData, state_.gpr[kRcx] = 3;
  const CpuState end = run({0xf3, 0xaa, 0x90});  // rep stosb; nop; the OUT after them ends it
  EXPECT_EQ(end.gpr[kR15], state_.gpr[kR15] + 3 + 1);
  EXPECT_EQ(end.gpr[kRcx], 0u);
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

TEST_F(SoftEngineTest, DataBreakpointIsATrap) {
  handler(1);
  state_.gpr[kRbx] = kData;
  state_.debug_address[0] = kData + 8, state_.dr7 = 0x400 | 1 | 0xd << 16;  // writes of 4 bytes
  const CpuState end = run({0x48, 0x8b, 0x43, 0x08,                         // mov rax, [rbx+8]: reads do not count
                            0x48, 0x89, 0x03,                               // mov [rbx], rax
                            0xc6, 0x43, 0x0b, 0x07,                         // mov byte [rbx+11], 7
                            0x48, 0xff, 0xc3});                             // inc rbx
  EXPECT_EQ(end.gpr[kRbx], kData);
  EXPECT_EQ(end.dr6 & 0xf, 1u);
  EXPECT_EQ(get<std::uint8_t>(kData + 11), 7u);
  EXPECT_EQ(get<std::uint64_t>(kStack - 40), kCode + 11) << "after the instruction";
}

/// Bytes at a guest-physical address, as a ROM has them.
struct Rom : MmioDevice {
  explicit Rom(std::initializer_list<int> code) : bytes(code.begin(), code.end()) {}
  std::uint64_t mmio_read(std::uint64_t offset, unsigned, unsigned) override {
    ++reads;
    return offset < bytes.size() ? bytes[offset] : 0;
  }
  void mmio_write(std::uint64_t, unsigned, std::uint64_t, unsigned) override {}
  std::vector<std::uint8_t> bytes;
  unsigned reads = 0;
};

TEST_F(SoftEngineTest, CodeOutsideOfRamIsReadFromTheBus) {
  // The bytes behind the last page of RAM: the rest of `mov eax, 0x78563412`, and a loop that adds up 3 + 2 + 1.
  Rom rom({0x12, 0x34, 0x56, 0x78, 0xb9, 3, 0, 0, 0, 0x01, 0xcb, 0xff, 0xc9, 0x75, 0xfa, 0x89, 0x1e, 0xe6, 0xf4});
  ASSERT_TRUE(mmio_.attach(Gpa(0xd0000000), 4096, rom, "rom"));
  put<std::uint64_t>(0x3000 + 8 * 8, 0xd0000083);  // behind RAM in linear addresses
  put<std::uint8_t>(0xffffff, 0xb8);
  state_.gpr[kRbx] = 0, state_.gpr[kRsi] = kData;
  const CpuState end = run({0xbf, 0xff, 0xff, 0xff, 0, 0xff, 0xe7});  // mov edi, 0xffffff; jmp rdi
  EXPECT_EQ(end.gpr[kRax] & 0xffffff00, 0x78563400u);
  EXPECT_EQ(end.gpr[kRbx], 6u);
  EXPECT_EQ(get<std::uint32_t>(kData), 6u);
  EXPECT_GT(rom.reads, 3 * 15u) << "read anew for each instruction";

  rom.bytes[9] = 0x29;  // sub ebx, ecx
  state_.rip = 0x1000004;
  ASSERT_TRUE(vcpu_->set_state(state_));
  EXPECT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
  EXPECT_EQ(get<std::uint32_t>(kData), static_cast<std::uint32_t>(-6));
}

TEST_F(SoftEngineTest, CodeWhereNothingAnswersIsAnInvalidInstruction) {
  handler(6);
  put<std::uint64_t>(0x3000 + 8 * 8, 0xd0000083);
  const CpuState end = run({0xbf, 0x10, 0, 0, 1, 0xff, 0xd7});  // mov edi, 0x1000010; call rdi
  EXPECT_EQ(end.gpr[kRax] & 0xff, 6u) << "all ones are no instruction";
  EXPECT_EQ(get<std::uint64_t>(kStack - 8), kCode + 7);
}

TEST_F(SoftEngineTest, InvalidInstructionAtTheEndOfAPageDoesNotAskForTheNext) {
  handler(6), handler(14);
  put<std::uint8_t>(kCode + 0xfff, 0x06);                  // push es, which 64-bit mode does not have
  put<std::uint64_t>(0x4000 + (kCode / 4096 + 1) * 8, 0);  // absent
  const CpuState end = run({0xe9, 0xfa, 0x0f, 0, 0});
  EXPECT_EQ(end.gpr[kRax] & 0xff, 6u);
}

TEST_F(SoftEngineTest, CodeIsWrittenWhereOnlyProtectionSwitchingIsAllowed) {
  make_engine({.code_memory = JitMode::ProtectionSwitch});
  handler(0);
  // A loop with a call in it, then code that changes, then a fault of the host's CPU.
  const CpuState end = run({0xb9, 0xe8, 0x03, 0,    0,             // mov ecx, 1000
                            0xe8, 0x13, 0,    0,    0,             // call +0x13
                            0xff, 0xc9,                            // dec ecx
                            0x75, 0xf7,                            // jnz call
                            0xc6, 0x05, 0x01, 0,    0,   0, 0x2a,  // mov byte [rip+1], 42
                            0xb2, 0x01,                            // mov dl, 1 (42 by now)
                            0x31, 0xc9,                            // xor ecx, ecx
                            0xf7, 0xf1,                            // div ecx
                            0xf4, 0x90,                            // hlt; nop
                            0x48, 0x83, 0xc3, 0x03, 0xc3});        // add rbx, 3; ret
  EXPECT_EQ(end.gpr[kRbx], state_.gpr[kRbx] + 3000);
  EXPECT_EQ(end.gpr[kRdx] & 0xff, 42u);
  EXPECT_EQ(end.gpr[kRax] & 0xff, 0u) << "divided by zero";
}

TEST_F(SoftEngineTest, MemoryThatTheHostCannotGiveEndsTheRun) {
  // A file that is empty behind the mapping does what a host without memory does: SIGBUS.
  const int empty = ::memfd_create("empty", 0);
  ASSERT_GE(empty, 0);
  std::byte* page = memory_->host(Gpa(kData), 4096);
  ASSERT_NE(::mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty, 0), MAP_FAILED);
  ::close(empty);
  std::uint64_t at = kCode;
  for (const int byte : {0x48, 0x89, 0x03, 0xeb, 0xfe}) put<std::uint8_t>(at++, static_cast<std::uint8_t>(byte));
  state_.gpr[kRbx] = kData;
  ASSERT_TRUE(vcpu_->set_state(state_));
  const VcpuExit exit = vcpu_->run();  // mov [rbx], rax; jmp $
  EXPECT_EQ(exit.kind, VcpuExit::Kind::Failed);
  EXPECT_NE(exit.error.find("0x200000"), std::string::npos) << exit.error;
  EXPECT_NE(exit.error.find("no memory left"), std::string::npos) << exit.error;
}

TEST_F(SoftEngineTest, ReturnsAloneCanBeInterrupted) {
  // One page full of RET, which read as addresses point into it, mapped everywhere: a stack without end.
  std::memset(memory_->host(Gpa(0x20000), 4096), 0xc3, 4096);
  for (std::uint64_t i = 0; i < 1024; ++i)
    put<std::uint32_t>(0x10000 + i * 4, 0x20003), put<std::uint32_t>(0x11000 + i * 4, 0x10003);
  state_.efer = 0, state_.cr3 = 0x11000, state_.cr4 = 0x600, state_.rip = 0xc3c3c3c3;
  state_.segments[kCs] = {0, 0xffffffff, 0x10, 0xc09b};
  ASSERT_TRUE(vcpu_->set_state(state_));
  std::jthread kicker([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    vcpu_->kick();
  });
  EXPECT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
}

}  // namespace
}  // namespace vm_platform
