// Where the code that the software engine runs comes from, how it is written on different hosts, and how a run ends
// that the guest does not end.
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <initializer_list>
#include <iterator>
#include <thread>
#include <vector>

#include "engine/soft_engine_fixture.hpp"

namespace vm_platform {
namespace {

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

TEST_F(SoftEngineTest, MoreCodeThanThereIsMemoryForIsTranslatedAnew) {
  // 2 MiB of blocks that lead to one another, in a page and over its end, until RCX is 0: inc rbx; jmp next.
  make_engine({.code_bytes = EngineOptions::kMinCodeBytes});
  constexpr std::uint64_t kBegin = 0x400000, kEnd = 0x600000, kDistance = 64, kPasses = 3;
  for (std::uint64_t at = kBegin; at < kEnd; at += kDistance) {
    constexpr std::uint8_t kBlock[] = {0x48, 0xff, 0xc3, 0xeb, kDistance - 5};
    std::memcpy(memory_->host(Gpa(at), sizeof kBlock), kBlock, sizeof kBlock);
  }
  constexpr std::uint8_t kReturn[] = {0xc3};
  std::memcpy(memory_->host(Gpa(kEnd), sizeof kReturn), kReturn, sizeof kReturn);
  state_.gpr[kRcx] = kPasses, state_.gpr[kRbx] = 0, state_.gpr[kRdi] = kBegin;
  const CpuState end = run({0xff, 0xd7, 0xff, 0xc9, 0x75, 0xfa});  // again: call rdi; dec ecx; jnz again
  constexpr std::uint64_t kBlocks = (kEnd - kBegin) / kDistance;
  EXPECT_EQ(end.gpr[kRbx], kPasses * kBlocks);
  EXPECT_GT(engine_->stats().translated_blocks, kPasses * kBlocks);  // none was kept from one pass to the next
  EXPECT_LE(engine_->stats().code_bytes, EngineOptions::kMinCodeBytes);
}

TEST_F(SoftEngineTest, TheEngineItselfMayWriteToAPageOfRunningCode) {
  // The page that the KVM clock is put into is the one that WRMSR is in.
  constexpr std::uint64_t kClock = kCode + 0x800;
  state_.gpr[kRcx] = 0x4b564d01, state_.gpr[kRax] = kClock | 1, state_.gpr[kRdx] = 0;
  run({0x0f, 0x30, 0xff, 0xc0});                   // wrmsr; inc eax
  EXPECT_NE(get<std::uint32_t>(kClock + 24), 0u);  // tsc_to_system_mul
}

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

TEST_F(SoftEngineTest, CodeOverThePageEndIntoTheSamePageOrTheFirstIsWatched) {
  // mov eax, imm32; ret, whose first two bytes are the last of a page.
  const std::uint64_t at = 0x150ffe, second[] = {0x150000, 0};
  for (const std::uint64_t page : second) {
    put<std::uint64_t>(0x4000 + 0x151 * 8, page | 3);
    put<std::uint16_t>(at, 0x11b8);
    put<std::uint32_t>(page, 0xc3443322);
    state_.gpr[kRdi] = at, state_.gpr[kRsi] = page, state_.gpr[kRdx] = 0;
    const CpuState end = run({0xff, 0xd7, 0x89, 0xc3,                    // call rdi; mov ebx, eax
                              0xc6, 0x47, 0x01, 0x77,                    // mov byte [rdi+1], 0x77
                              0xff, 0xd7, 0x89, 0xc1,                    // call rdi; mov ecx, eax
                              0xc6, 0x06, 0x55, 0xff, 0xd7, 0x89, 0xc5,  // mov byte [rsi], 0x55; call rdi; mov ebp, eax
                              0xc6, 0x06, 0x66, 0xff, 0xd7, 0x89, 0xc2});
    EXPECT_EQ(end.gpr[kRbx], 0x44332211u) << std::hex << page;
    EXPECT_EQ(end.gpr[kRcx], 0x44332277u) << std::hex << page;
    EXPECT_EQ(end.gpr[kRbp], 0x44335577u) << std::hex << page;
    EXPECT_EQ(end.gpr[kRdx], 0x44336677u) << std::hex << page;
  }
}

TEST_F(SoftEngineTest, AnInvalidInstructionOverThePageEndIsWatched) {
  handler(6), handler(13);
  put<std::uint16_t>(0x150ffe, 0x3a0f);
  put<std::uint32_t>(0x151000, 0xc300c0ff);  // 0F 3A FF is nothing
  state_.gpr[kRdi] = 0x150ffe;
  run({0xff, 0xd7, 0xb0, 0xff});
  EXPECT_EQ(exit_.written, 6u);
  state_.gpr[kRsi] = 0x151000;
  run({0xc6, 0x06, 0x0f, 0xff, 0xd7, 0xb0, 0xff});  // mov byte [rsi], 0x0f: palignr mm0, mm0, 0
  EXPECT_EQ(exit_.written, 0xffu);
  // Sixteen bytes, of which two lie in the first page.
  std::memset(memory_->host(Gpa(0x152ffe), 32), 0x66, 32);
  state_.gpr[kRdi] = 0x152ffe;
  run({0xff, 0xd7});
  EXPECT_EQ(exit_.written, 13u) << "too long, which is not #UD";
}

TEST_F(SoftEngineTest, OperandsOfUndefinedInstructionsAreNotLookedAt) {
  handler(6), handler(14);
  for (const int opcode : {0xb9, 0xff}) {
    run({0x0f, opcode, 0x04, 0x25, 0, 0, 0, 0x70});  // ud1 eax, [0x70000000], and ud0: nothing is mapped there
    EXPECT_EQ(exit_.written, 6u) << opcode;
  }
}

TEST_F(SoftEngineTest, WhatIsKnownOfDescribedInstructionsIsLimitedToo) {
  // 4096 times CLD: hardly any code, but each holds on to its instruction.
  make_engine({.code_bytes = EngineOptions::kMinCodeBytes});
  std::memset(memory_->host(Gpa(0x400000), 4096), 0xfc, 4096);
  put<std::uint8_t>(0x401000, 0xc3);
  state_.gpr[kRdi] = 0x400000;
  run({0xff, 0xd7, 0xff, 0xd7});  // call rdi, twice
  EXPECT_GT(engine_->stats().translated_blocks, 2 * 4096u) << "kept from one call to the next";
}

TEST_F(SoftEngineTest, JumpsAcrossTheHoleOfCanonicalAddressesFaultThemselves) {
  // The last 2 MiB of the lower half; the upper half begins with a page fault.
  handler(13);
  put<std::uint64_t>(0x1000 + 255 * 8, 0x2003), put<std::uint64_t>(0x2000 + 511 * 8, 0x3003);
  put<std::uint64_t>(0x3000 + 511 * 8, 0xa00083);
  for (const int opcode : {0xe9, 0xe8}) {
    state_.rip = 0x7fffffffffe0;
    const int code[] = {opcode, 0, 0x10, 0, 0};
    for (std::uint64_t i = 0; i < std::size(code); ++i) put(0xbfffe0 + i, static_cast<std::uint8_t>(code[i]));
    ASSERT_TRUE(vcpu_->set_state(state_));
    EXPECT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
    EXPECT_EQ(exit_.written, 13u);
    EXPECT_EQ(get<std::uint64_t>(kStack - 40), state_.rip);
    EXPECT_EQ(get<std::uint64_t>(kStack - 16), kStack) << "nothing was pushed";
  }
}

TEST_F(SoftEngineTest, AnInterruptThatWaitsForStiIsSeenWhereverTheBlockEnds) {
  handler(0x20), handler(14);
  for (unsigned before = 40; before < 52; ++before) {
    std::uint64_t at = kCode;
    const auto emit = [&](std::initializer_list<int> bytes) {
      for (const int byte : bytes) put(at++, static_cast<std::uint8_t>(byte));
    };
    for (unsigned i = 0; i < before; ++i) emit({0x90});
    // sti; nop; mov ecx, 100000; again: dec ecx; jnz again; mov al, 0xff; out
    emit({0xfb, 0x90, 0xb9, 0xa0, 0x86, 1, 0, 0xff, 0xc9, 0x75, 0xfc, 0xb0, 0xff, 0xe6, 0xf4});
    controller_.waiting = 0x20;
    ASSERT_TRUE(vcpu_->set_state(state_));
    EXPECT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
    EXPECT_EQ(exit_.written, 0x20u) << before << " instructions before STI";
  }
}

TEST_F(SoftEngineTest, AnInterruptThatWaitsForStiIsSeenBehindADevice) {
  Rom device({0});
  ASSERT_TRUE(mmio_.attach(Gpa(0xd0000000), 4096, device, "device"));
  put<std::uint64_t>(0x3000 + 8 * 8, 0xd0000083);
  handler(0x20);
  controller_.waiting = 0x20;
  state_.gpr[kRbx] = 0x1000000;
  run({0xfb, 0x89, 0x03,                                              // sti; mov [rbx], eax
       0xb9, 0xa0, 0x86, 1, 0, 0xff, 0xc9, 0x75, 0xfc, 0xb0, 0xff});  // and a loop that looks at nothing
  EXPECT_EQ(exit_.written, 0x20u);
}

TEST_F(SoftEngineTest, FlushingALineOfADeviceReadsNothing) {
  Rom device({1, 2, 3});
  ASSERT_TRUE(mmio_.attach(Gpa(0xd0000000), 4096, device, "device"));
  put<std::uint64_t>(0x3000 + 8 * 8, 0xd0000083);
  state_.gpr[kRbx] = 0x1000000;
  run({0x0f, 0xae, 0x3b});  // clflush [rbx]
  EXPECT_EQ(device.reads, 0u);
}

TEST_F(SoftEngineTest, BitTestsOf32BitAddressesStayInTheirSegment) {
  // bts gs:[ecx], eax, with GS at 4 GiB and another page behind it.
  put<std::uint64_t>(0x2000 + 4 * 8, 0x7003), put<std::uint64_t>(0x7000 + 8, 0x800083);
  for (const std::uint64_t at : {kData, std::uint64_t{0x800000}}) put<std::uint64_t>(at, 0);
  state_.segments[kGs].base = 0x100000000, state_.gpr[kRcx] = kData, state_.gpr[kRax] = 41;
  run({0x67, 0x65, 0x0f, 0xab, 0x01});
  EXPECT_EQ(get<std::uint64_t>(kData), 0u);
  EXPECT_EQ(get<std::uint64_t>(0x800000), 1ULL << 41);
}

TEST_F(SoftEngineTest, AnInstructionLiesWithinTheLimitOfItsSegment) {
  // Real mode; the handler of vector 13 tells by the port, as in long mode.
  handler(13);
  put<std::uint32_t>(kIdt + 13 * 4, 0x0a0000d0);
  state_.cr0 = 0x10, state_.cr4 = 0, state_.efer = 0, state_.idtr = {kIdt, 0x3ff};
  const Segment data{0, 0xffff, 0, 0x93};
  state_.segments = {data, {0x20000, 0xffff, 0x2000, 0x9b}, data, data, data, data};
  struct Case {
    std::uint64_t at, limit;
    bool runs;
  };
  for (const auto& [at, limit, runs] :
       {Case{0x8ffd, 0x8fff, true}, Case{0x8ffe, 0x8fff, false}, Case{0x8fff, 0x8fff, false},
        Case{0xfffe, 0xffff, false}, Case{0x8ffc, 0x8fff, true}}) {
    state_.segments[kCs].limit = static_cast<std::uint32_t>(limit);
    state_.rip = at, state_.gpr[kRax] = 0, state_.gpr[kRsp] = 0x7000;
    const int code[] = {0xb8, 0x34, 0x12, 0xe6, 0xf4};  // mov ax, 0x1234; out 0xf4, al
    for (std::uint64_t i = 0; i < std::size(code); ++i) put(0x20000 + at + i, static_cast<std::uint8_t>(code[i]));
    ASSERT_TRUE(vcpu_->set_state(state_));
    EXPECT_EQ(vcpu_->run().kind, VcpuExit::Kind::Kicked);
    EXPECT_EQ(exit_.written, 13u) << "then IP, or the OUT, is beyond the limit";
    EXPECT_EQ(get<std::uint16_t>(0x7000 - 6), runs ? at + 3 : at) << std::hex << at;
    EXPECT_EQ(vcpu_->state().gpr[kRax], runs ? 0x120du : 0x0du) << std::hex << at;
  }
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

constexpr HostCpuUse kHostCpus[] = {HostCpuUse::All, HostCpuUse::NoBmi2, HostCpuUse::Baseline};

TEST_F(SoftEngineTest, EveryBitOfAnAddressCountsOnEveryHost) {
  handler(13), handler(14);
  for (const HostCpuUse use : kHostCpus) {
    make_host(use);
    for (unsigned bit = 3; bit < 64; ++bit) {
      const std::uint64_t other = kData ^ std::uint64_t{1} << bit;
      put<std::uint64_t>(kData, 1);
      if (other < memory_->size()) put<std::uint64_t>(other, 2);
      state_.gpr[kRbx] = kData, state_.gpr[kRsi] = other;
      const CpuState end = run({0x48, 0x8b, 0x13,                // mov rdx, [rbx]: now it is in the TLB
                                0x48, 0x8b, 0x16, 0xb0, 0xff});  // mov rdx, [rsi]; mov al, 0xff
      const unsigned expected = other < memory_->size() ? 0xff : bit < 47 ? 14 : 13;
      EXPECT_EQ(exit_.written, expected) << "bit " << bit << ", host " << static_cast<int>(use);
      EXPECT_EQ(end.gpr[kRdx], expected == 0xff ? 2u : 1u) << "bit " << bit << ", host " << static_cast<int>(use);
    }
  }
}

TEST_F(SoftEngineTest, EveryOffsetIntoAPageOnEveryHost) {
  for (const HostCpuUse use : kHostCpus) {
    make_host(use);
    for (std::uint64_t at = kData + 0xff0; at < kData + 0x1008; ++at) {  // some cross into the next page
      for (std::uint64_t i = 0; i < 32; ++i) put<std::uint8_t>(kData + 0xff0 + i, static_cast<std::uint8_t>(i));
      state_.gpr[kRbx] = at;
      state_.rflags = 0x8d7;                         // all of the arithmetic ones
      const CpuState end = run({0x48, 0x8b, 0x13,    // mov rdx, [rbx]
                                0x9c, 0x59,          // pushfq; pop rcx
                                0x48, 0xff, 0x03});  // inc qword [rbx]
      EXPECT_EQ(end.gpr[kRdx] & 0xff, at - kData - 0xff0) << static_cast<int>(use);
      EXPECT_EQ(end.gpr[kRdx] >> 56, at - kData - 0xff0 + 7) << static_cast<int>(use);
      EXPECT_EQ(end.gpr[kRcx], 0x8d7u) << static_cast<int>(use);
      EXPECT_EQ(get<std::uint64_t>(at), end.gpr[kRdx] + 1) << static_cast<int>(use);
    }
  }
}

TEST_F(SoftEngineTest, ShiftsKeepTheFlagsOnEveryHost) {
  for (const HostCpuUse use : kHostCpus) {
    make_host(use);
    put<std::uint64_t>(kData - 128, 1ULL << 24);
    state_.gpr[kRbx] = kData, state_.gpr[kRax] = static_cast<std::uint64_t>(-1000), state_.rflags = 0xc6;  // ZF SF PF
    const CpuState end = run({0xfb, 0x90, 0x90,        // sti; nop; nop
                              0x9c, 0x5e,              // pushfq; pop rsi
                              0xfa,                    // cli
                              0x9c, 0x5f,              // pushfq; pop rdi
                              0x48, 0x0f, 0xa3, 0x03,  // bt [rbx], rax: 1000 bits below
                              0x9c, 0x5d,              // pushfq; pop rbp
                              0x49, 0x89, 0xc0,        // mov r8, rax
                              0x0f, 0x31});            // rdtsc
    EXPECT_EQ(end.gpr[kRsi], 0x2c6u) << static_cast<int>(use);
    EXPECT_EQ(end.gpr[kRdi], 0xc6u) << static_cast<int>(use);
    EXPECT_EQ(end.gpr[kRbp] & 0x41, 0x41u) << static_cast<int>(use) << ": the bit, and ZF as it was";
    EXPECT_EQ(end.gpr[kR8], static_cast<std::uint64_t>(-1000));
    const std::uint64_t now = __builtin_ia32_rdtsc() + environment_.tsc.offset;
    const std::uint64_t tsc = end.gpr[kRdx] << 32 | end.gpr[kRax];
    EXPECT_LE(tsc, now);
    EXPECT_GT(tsc, now - 60'000'000'000) << "some seconds ago";
  }
}

TEST_F(SoftEngineTest, StateThatIsLoadedAfterTheInitialStateIsNotLost) {
  if (__builtin_cpu_supports("avx") == 0) GTEST_SKIP() << "the host has no AVX";
  // An XSAVE area with FCW 037F, MXCSR 1F80, an x87 register, XMM1 and the upper half of YMM1.
  put<std::uint16_t>(kData, 0x37f), put<std::uint32_t>(kData + 24, 0x1f80);
  put<std::uint8_t>(kData + 4, 0x80), put<std::uint16_t>(kData + 2, 7 << 11);
  put<std::uint64_t>(kData + 32, 0x8000000000000000), put<std::uint16_t>(kData + 40, 0x3fff);
  put<std::uint64_t>(kData + 160 + 16, 0x1111), put<std::uint64_t>(kData + 576 + 16, 0x2222);
  put<std::uint64_t>(kData + 512, 7);
  state_.gpr[kRbx] = kData;
  run({0xb8, 7,    0,    0,    0,    0x31, 0xd2, 0x31, 0xc9,  // mov eax, 7; xor edx, edx; xor ecx, ecx
       0x48, 0x0f, 0xae, 0xab, 0x00, 0x08, 0,    0,           // xrstor64 [rbx+0x800]: all initial
       0xc5, 0xfc, 0x77, 0xdb, 0xe3,                          // vzeroall; fninit
       0x0f, 0x01, 0xd0,                                      // xgetbv: out of generated code
       0xb8, 7,    0,    0,    0,    0x31, 0xd2,              // mov eax, 7; xor edx, edx
       0x48, 0x0f, 0xae, 0x2b,                                // xrstor64 [rbx]
       0xc5, 0xfe, 0x7f, 0x8b, 0x00, 0x04, 0,    0,           // vmovdqu [rbx+0x400], ymm1
       0xdd, 0x9b, 0x40, 0x04, 0,    0});                     // fstp qword [rbx+0x440]
  EXPECT_EQ(get<std::uint64_t>(kData + 0x400), 0x1111u);
  EXPECT_EQ(get<std::uint64_t>(kData + 0x410), 0x2222u);
  EXPECT_DOUBLE_EQ(get<double>(kData + 0x440), 1.0);
}

TEST_F(SoftEngineTest, VectorStateIsKeptOnEveryHost) {
  handler(6);
  for (const HostCpuUse use : kHostCpus) {
    make_host(use);
    state_.gpr[kRbx] = kData;
    put<double>(kData, 2.0), put<double>(kData + 0x1000, 0);
    // Between the two instructions that use it the state is saved and loaded: CPUID leaves generated code.
    const CpuState end = run({0xf2, 0x0f, 0x51, 0x23,                       // sqrtsd xmm4, [rbx]
                              0xdd, 0x03, 0xd9, 0xfa,                       // fld qword [rbx]; fsqrt
                              0x31, 0xc0, 0x53, 0x0f, 0xa2, 0x5b,           // cpuid, leaf 0
                              0xdd, 0x5b, 0x10,                             // fstp qword [rbx+16]
                              0xf2, 0x0f, 0x11, 0xa3, 0x00, 0x10, 0,    0,  // movsd [rbx+0x1000], xmm4
                              0xb8, 0x01, 0,    0,    0,    0x0f, 0xa2,     // cpuid, leaf 1
                              0xc5, 0xfd, 0x58, 0xc0, 0xb0, 0xff});         // vaddpd ymm0, ymm0, ymm0; mov al, 0xff
    EXPECT_DOUBLE_EQ(get<double>(kData + 0x1000), 1.4142135623730951) << static_cast<int>(use);
    EXPECT_DOUBLE_EQ(get<double>(kData + 16), 1.4142135623730951) << static_cast<int>(use);
    const bool offered = (end.gpr[kRcx] >> 28 & 1) != 0;  // AVX
    EXPECT_TRUE(use != HostCpuUse::Baseline || !offered);
    EXPECT_EQ(exit_.written, offered ? 0xffu : 6u) << static_cast<int>(use) << ": AVX needs XSAVE";
  }
}

}  // namespace
}  // namespace vm_platform
