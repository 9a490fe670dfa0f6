// Whole small programs on the software engine.
#include <cstring>

#include "engine/soft_engine_fixture.hpp"

namespace vm_platform {
namespace {

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

/// CRC-32C of one byte more (Castagnoli's polynomial, reflected), as CRC32 computes it.
std::uint32_t crc32c(std::uint32_t sum, std::uint8_t byte) {
  sum ^= byte;
  for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ ((sum & 1) != 0 ? 0x82f63b78u : 0);
  return sum;
}

TEST_F(SoftEngineTest, RspIsReadBesideARegisterThatAllowsNoRexPrefix) {
  const CpuState end = run({0xbc, 0x78, 0x56, 0x34, 0x12,    // mov esp, 0x12345678
                            0xba, 0x00, 0xab, 0x00, 0x00,    // mov edx, 0xab00
                            0xb9, 0x00, 0xcd, 0x00, 0x00,    // mov ecx, 0xcd00
                            0xbe, 0x55, 0x00, 0x00, 0x00,    // mov esi, 0x55
                            0xf2, 0x0f, 0x38, 0xf0, 0xe6,    // crc32 esp, dh
                            0xf2, 0x0f, 0x38, 0xf0, 0xe5});  // crc32 esp, ch
  EXPECT_EQ(end.gpr[kRsp], crc32c(crc32c(0x12345678, 0xab), 0xcd));
  EXPECT_EQ(end.gpr[kRcx], 0xcd00u);
  EXPECT_EQ(end.gpr[kRdx], 0xab00u);
  EXPECT_EQ(end.gpr[kRsi], 0x55u);
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

TEST_F(SoftEngineTest, InvlpgDropsAllOfALargePage) {
  // 2 MiB at 600000h, to be moved to A00000h, where something else stands.
  put<std::uint64_t>(0x601000, 1), put<std::uint64_t>(0xa01000, 2);
  for (const unsigned global : {0U, 0x100U}) {
    put<std::uint64_t>(0x3000 + 3 * 8, 0x600083 | global);
    state_.cr4 |= 0x80;  // PGE
    state_.gpr[kRbx] = 0x600000, state_.gpr[kRdi] = 0x3000 + 3 * 8, state_.gpr[kRdx] = 0xa00083 | global;
    const CpuState end = run({0x48, 0x8b, 0x83, 0, 0x10, 0, 0,    // mov rax, [rbx+0x1000]
                              0x48, 0x8b, 0x0b,                   // mov rcx, [rbx]
                              0x48, 0x89, 0x17,                   // mov [rdi], rdx
                              0x0f, 0x01, 0x3b,                   // invlpg [rbx]
                              0x48, 0x8b, 0xb3, 0, 0x10, 0, 0});  // mov rsi, [rbx+0x1000]
    EXPECT_EQ(end.gpr[kRax], 1u);
    EXPECT_EQ(end.gpr[kRsi], 2u) << "the other address in the same page";
  }
}

}  // namespace
}  // namespace vm_platform
