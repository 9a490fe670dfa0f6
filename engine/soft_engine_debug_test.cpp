// Breakpoints and single steps on the software engine.
#include <cstring>

#include "engine/soft_engine_fixture.hpp"

namespace vm_platform {
namespace {

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

TEST_F(SoftEngineTest, SingleStepSkipsTheHandlerOfASoftwareInterrupt) {
  handler(1);
  handler(0x80);
  state_.rflags = 0x102;
  const CpuState end = run({0xcd, 0x80});
  EXPECT_EQ(end.gpr[kRax] & 0xff, 0x80u) << "the handler runs without a trap before it";
}

TEST_F(SoftEngineTest, SingleStepSkipsTheHandlerOfInt1) {
  handler(1);
  state_.rflags = 0x102;
  const CpuState end = run({0xf1});
  EXPECT_EQ(end.gpr[kRsp], kStack - 40) << "delivered once";
  EXPECT_EQ(end.dr6 & 1 << 14, 0u) << "and no single step";
}

TEST_F(SoftEngineTest, SingleStepOverSyscallDoesNotTrapInTheKernelThatMasksIt) {
  handler(1);
  put<std::uint32_t>(kCode + 0x800, 0xf4e655b0);  // mov al, 0x55; out 0xf4, al
  state_.rflags = 0x102;
  state_.msrs = {{0xc0000081, 0x10ULL << 32}, {0xc0000082, kCode + 0x800}, {0xc0000084, 0x100}};
  run({0x0f, 0x05});
  EXPECT_EQ(exit_.written, 0x55u);
  state_.msrs.back().value = 0;  // a kernel that does not mask it is to blame
  run({0x0f, 0x05});
  EXPECT_EQ(exit_.written, 1u);
  EXPECT_EQ(get<std::uint64_t>(kStack - 40), kCode + 0x800);
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

}  // namespace
}  // namespace vm_platform
