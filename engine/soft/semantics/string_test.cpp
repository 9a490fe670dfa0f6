#include <gtest/gtest.h>

#include <random>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kAt = FlatMachine::kData;

TEST(Strings, MovsAndStosAgainstTheHost) {
  // The same instruction run natively on a copy of the memory is the judge.
  std::mt19937_64 random(20240229);
  for (int round = 0; round < 400; ++round) {
    FlatMachine machine(Mode::Long64);
    for (std::uint64_t i = 0; i < 0x6000; i += 8) machine.put(kAt + i, random());
    if (round % 3 == 0) machine.slow.insert((kAt >> 12) + static_cast<unsigned>(round) % 5);
    if (round % 3 == 1) machine.code.insert((kAt >> 12) + static_cast<unsigned>(round) % 5);
    std::vector<std::byte> copy(machine.ram() + kAt, machine.ram() + kAt + 0x6000);
    const unsigned size = 1U << (round & 3);
    const bool backward = (round & 4) != 0, stos = (round & 8) != 0;
    std::uint64_t count = random() % 0x900;
    if (round % 7 == 0) count = random() % 3;
    const std::uint64_t span = count * size;
    const std::uint64_t room = 0x6000 - 16 > span ? 0x6000 - 16 - span : 0;
    if (room == 0) continue;
    std::uint64_t from = random() % room, to = (round & 16) != 0 ? random() % room : from + random() % 64;
    if (to > room) to = room;
    if (backward) from += span, to += span;
    machine.cpu.gpr[kRsi] = kAt + from;
    machine.cpu.gpr[kRdi] = kAt + to;
    machine.cpu.gpr[kRcx] = count;
    machine.cpu.gpr[kRax] = random();
    if (backward) machine.cpu.system_flags |= rflags::kDirection;
    const auto opcode = static_cast<std::uint8_t>(stos ? size == 1 ? 0xaa : 0xab : size == 1 ? 0xa4 : 0xa5);
    const std::uint64_t rip = machine.cpu.rip;
    while (machine.cpu.rip == rip) {
      const Outcome outcome = size == 8   ? machine.run({0xf3, 0x48, opcode})
                              : size == 2 ? machine.run({0xf3, 0x66, opcode})
                                          : machine.run({0xf3, opcode});
      ASSERT_TRUE(outcome.ok());
    }
    std::byte* source = copy.data() + from;
    std::byte* target = copy.data() + to;
    std::uint64_t left = count;
    if (backward) __asm__ volatile("std");
    if (stos) {
      const std::uint64_t rax = machine.cpu.gpr[kRax];
      if (size == 1) __asm__ volatile("rep stosb" : "+D"(target), "+c"(left) : "a"(rax) : "memory");
      if (size == 2) __asm__ volatile("rep stosw" : "+D"(target), "+c"(left) : "a"(rax) : "memory");
      if (size == 4) __asm__ volatile("rep stosl" : "+D"(target), "+c"(left) : "a"(rax) : "memory");
      if (size == 8) __asm__ volatile("rep stosq" : "+D"(target), "+c"(left) : "a"(rax) : "memory");
    } else {
      if (size == 1) __asm__ volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(left)::"memory");
      if (size == 2) __asm__ volatile("rep movsw" : "+D"(target), "+S"(source), "+c"(left)::"memory");
      if (size == 4) __asm__ volatile("rep movsl" : "+D"(target), "+S"(source), "+c"(left)::"memory");
      if (size == 8) __asm__ volatile("rep movsq" : "+D"(target), "+S"(source), "+c"(left)::"memory");
    }
    __asm__ volatile("cld");
    ASSERT_EQ(0, std::memcmp(copy.data(), machine.ram() + kAt, copy.size())) << "round " << round;
    EXPECT_EQ(machine.cpu.gpr[kRdi] - kAt, static_cast<std::uint64_t>(target - copy.data()));
    if (!stos) {
      EXPECT_EQ(machine.cpu.gpr[kRsi] - kAt, static_cast<std::uint64_t>(source - copy.data()));
    }
    EXPECT_EQ(machine.cpu.gpr[kRcx], 0U);
  }
}

TEST(Strings, FaultLeavesTheElementThatFaulted) {
  FlatMachine machine(Mode::Long64);
  machine.absent.insert((kAt + 0x3000) >> 12);
  machine.cpu.gpr[kRsi] = kAt + 0x10;
  machine.cpu.gpr[kRdi] = kAt + 0x2004;
  machine.cpu.gpr[kRcx] = 0x1000;
  const Outcome outcome = machine.run({0xf3, 0x48, 0xa5});
  ASSERT_TRUE(outcome.is(Vector::PageFault, 2));
  EXPECT_EQ(outcome.fault->address, kAt + 0x3000);
  EXPECT_EQ(machine.cpu.gpr[kRdi], kAt + 0x2ffc) << "the element that crosses into the page";
  EXPECT_EQ(machine.cpu.gpr[kRcx], 0x1000U - 0x1ff);
  EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt);
  machine.absent.clear();
  ASSERT_TRUE(machine.run({0xf3, 0x48, 0xa5}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRcx], 0U);
  EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt + 3);
}

TEST(Strings, FaultIsThatOfTheFirstElementInEitherDirection) {
  struct Case {
    const char* name;
    std::uint8_t prefix, opcode;
    bool backward, source_absent;
    std::uint64_t address;
  };
  constexpr std::uint64_t kFrom = kAt + 0x1210, kTo = kAt + 0x3218;
  for (const Case& c :
       {Case{"repne scasd", 0xf2, 0xaf, false, false, kTo}, Case{"repne scasd", 0xf2, 0xaf, true, false, kTo},
        Case{"rep stosd", 0xf3, 0xab, true, false, kTo}, Case{"rep movsd", 0xf3, 0xa5, true, false, kTo},
        Case{"rep movsd", 0xf3, 0xa5, true, true, kFrom}, Case{"repe cmpsd", 0xf3, 0xa7, true, true, kFrom}}) {
    FlatMachine machine(Mode::Long64);
    machine.absent.insert((c.source_absent ? kFrom : kTo) >> 12);
    machine.cpu.gpr[kRsi] = kFrom;
    machine.cpu.gpr[kRdi] = kTo;
    machine.cpu.gpr[kRcx] = 100;
    if (c.backward) machine.cpu.system_flags |= rflags::kDirection;
    const Outcome outcome = machine.run_checked({c.prefix, c.opcode});
    ASSERT_TRUE(outcome.fault) << c.name;
    EXPECT_EQ(outcome.fault->address, c.address) << c.name << (c.backward ? " backward" : "");
  }
}

TEST(Strings, SingleStepIsOneElement) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.system_flags |= rflags::kTrap;
  machine.cpu.gpr[kRdx] = 0x500;
  struct Case {
    std::uint8_t prefix, opcode;
  };
  for (const auto& [prefix, opcode] : {Case{0xf3, 0xaa}, Case{0xf3, 0xa5}, Case{0xf3, 0xad}, Case{0xf3, 0xa7},
                                       Case{0xf3, 0xae}, Case{0xf3, 0x6c}, Case{0xf3, 0x6f}}) {
    machine.cpu.gpr[kRax] = 0;
    std::memset(machine.ram() + kAt, 0, 0x1000);
    machine.cpu.rip = FlatMachine::kCodeAt;
    machine.cpu.gpr[kRsi] = kAt;
    machine.cpu.gpr[kRdi] = kAt + 0x800;
    machine.cpu.gpr[kRcx] = 3;
    for (std::uint64_t left = 3; left-- > 0;) {
      ASSERT_TRUE(machine.run({prefix, opcode}).ok());
      EXPECT_EQ(machine.cpu.gpr[kRcx], left) << std::hex << unsigned{opcode};
      EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt + (left == 0 ? 2 : 0)) << std::hex << unsigned{opcode};
    }
  }
}

TEST(Strings, AnInterruptThatWaitedIsNotKeptWaiting) {
  for (const bool enabled : {true, false}) {
    FlatMachine machine(Mode::Long64);
    machine.cpu.interrupt_waiting = 1;
    if (enabled) machine.cpu.system_flags |= rflags::kInterrupt;
    machine.cpu.gpr[kRdi] = kAt;
    machine.cpu.gpr[kRcx] = 5;
    ASSERT_TRUE(machine.run({0xf3, 0xaa}).ok());
    EXPECT_EQ(machine.cpu.gpr[kRcx], enabled ? 4U : 0U);
  }
}

TEST(Strings, AlignmentIsCheckedAtCpl3) {
  struct Case {
    const char* name;
    std::initializer_list<std::uint8_t> code;
    std::uint64_t source, target;
    bool faults;
  };
  const Case cases[] = {
      {"lodsd", {0xad}, 1, 0, true},
      {"lodsb", {0xac}, 1, 0, false},
      {"rep stosw", {0xf3, 0x66, 0xab}, 0, 3, true},
      {"rep stosw", {0xf3, 0x66, 0xab}, 0, 2, false},
      {"rep movsq", {0xf3, 0x48, 0xa5}, 4, 0, true},
      {"rep movsq", {0xf3, 0x48, 0xa5}, 0, 4, true},
      {"rep movsq", {0xf3, 0x48, 0xa5}, 8, 16, false},
      {"rep movsb", {0xf3, 0xa4}, 1, 3, false},
      {"repe cmpsd", {0xf3, 0xa7}, 0, 2, true},
      {"repne scasd", {0xf2, 0xaf}, 0, 1, true},
  };
  for (const Case& c : cases) {
    for (const bool checked : {true, false}) {
      FlatMachine machine(Mode::Long64, 3);
      machine.cpu.cr0 |= cr0::kAlignmentMask;
      if (checked) machine.cpu.system_flags |= rflags::kAlignmentCheck;
      machine.cpu.gpr[kRsi] = kAt + c.source;
      machine.cpu.gpr[kRdi] = kAt + 0x1000 + c.target;
      machine.cpu.gpr[kRcx] = 8;
      const Outcome outcome = machine.run(c.code);
      EXPECT_EQ(outcome.is(Vector::AlignmentCheck, 0), c.faults && checked) << c.name;
      EXPECT_EQ(outcome.ok(), !(c.faults && checked)) << c.name;
    }
  }
}

TEST(Strings, LongRunsComeBackForInterrupts) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRdi] = kAt;
  machine.cpu.gpr[kRcx] = 0x18000;
  ASSERT_TRUE(machine.run({0xf3, 0xaa}).ok());
  EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt);
  EXPECT_EQ(machine.cpu.gpr[kRcx], 0x8000U);
  ASSERT_TRUE(machine.run({0xf3, 0xaa}).ok());
  EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt + 2);
}

TEST(Strings, AddressSizeAndSegments) {
  FlatMachine machine(Mode::Real);
  machine.cpu.segments[kEs].base = 0x20000;
  machine.cpu.segments[kFs].base = 0x30000;
  machine.cpu.gpr[kRsi] = 0xabcd0000 + 0xfffe;
  machine.cpu.gpr[kRdi] = 0x12340000;
  machine.cpu.gpr[kRcx] = 0x55550003;
  for (std::uint64_t i = 0; i < 4; ++i) machine.put<std::uint8_t>(0x3fffc + i, static_cast<std::uint8_t>(i + 1));
  machine.put<std::uint8_t>(0x30000, 9);
  ASSERT_TRUE(machine.run({0xf3, 0x64, 0xa4}).ok());  // rep movsb es:[di], fs:[si], SI wraps
  EXPECT_EQ(machine.get<std::uint8_t>(0x20000), 3);
  EXPECT_EQ(machine.get<std::uint8_t>(0x20001), 4);
  EXPECT_EQ(machine.get<std::uint8_t>(0x20002), 9);
  EXPECT_EQ(machine.cpu.gpr[kRsi], 0xabcd0001U);
  EXPECT_EQ(machine.cpu.gpr[kRdi], 0x12340003U);
  EXPECT_EQ(machine.cpu.gpr[kRcx], 0x55550000U);
}

TEST(Strings, SegmentLimitInTheMiddle) {
  FlatMachine machine(Mode::Protected32);
  machine.cpu.segments[kEs].limit = kAt + 9;
  machine.cpu.gpr[kRdi] = kAt;
  machine.cpu.gpr[kRcx] = 100;
  EXPECT_TRUE(machine.run({0xf3, 0xab}).is(Vector::GeneralProtection, 0));
  EXPECT_EQ(machine.cpu.gpr[kRcx], 98U);
  EXPECT_EQ(machine.cpu.gpr[kRdi], kAt + 8);
}

TEST(Strings, ScanAndCompare) {
  FlatMachine machine(Mode::Long64);
  std::memset(machine.ram() + kAt, 'x', 0x3000);
  machine.put<std::uint8_t>(kAt + 0x1234, 0);
  machine.cpu.gpr[kRdi] = kAt;
  machine.cpu.gpr[kRcx] = ~0ULL;
  machine.cpu.gpr[kRax] = 0;
  ASSERT_TRUE(machine.run({0xf2, 0xae}).ok());  // repne scasb
  EXPECT_EQ(machine.cpu.gpr[kRdi], kAt + 0x1235);
  EXPECT_EQ(machine.cpu.gpr[kRcx], ~0ULL - 0x1235);
  EXPECT_EQ(machine.cpu.arithmetic_flags, rflags::kZero | rflags::kParity);
  machine.cpu.gpr[kRsi] = kAt;
  machine.cpu.gpr[kRdi] = kAt + 0x1000;
  machine.cpu.gpr[kRcx] = 0x1000 / 4;
  ASSERT_TRUE(machine.run({0xf3, 0xa7}).ok());  // repe cmpsd: differs at 0x234
  EXPECT_EQ(machine.cpu.gpr[kRsi], kAt + 0x238);
  EXPECT_EQ(machine.cpu.arithmetic_flags & (rflags::kZero | rflags::kCarry), 0U);
  machine.cpu.gpr[kRcx] = 0;
  const std::uint64_t flags = machine.cpu.arithmetic_flags;
  ASSERT_TRUE(machine.run({0xf3, 0xa6}).ok());
  EXPECT_EQ(machine.cpu.arithmetic_flags, flags) << "nothing compared, no flags";
}

TEST(Strings, CompareFlagsAgainstTheHost) {
  std::mt19937_64 random(7);
  FlatMachine machine(Mode::Long64);
  for (int round = 0; round < 2000; ++round) {
    const std::uint64_t a = random() >> (random() & 63), b = random() >> (random() & 63);
    machine.cpu.rip = FlatMachine::kCodeAt;
    machine.cpu.gpr[kRax] = a;
    machine.cpu.gpr[kRdi] = kAt;
    machine.put(kAt, b);
    std::uint64_t flags = 0;
    if ((round & 1) != 0) {
      ASSERT_TRUE(machine.run({0x48, 0xaf}).ok());
      __asm__("cmpq %2, %1; pushfq; popq %0" : "=r"(flags) : "r"(a), "r"(b) : "cc");
    } else {
      ASSERT_TRUE(machine.run({0xae}).ok());
      __asm__("cmpb %2, %1; pushfq; popq %0"
              : "=r"(flags)
              : "q"(static_cast<std::uint8_t>(a)), "q"(static_cast<std::uint8_t>(b))
              : "cc");
    }
    ASSERT_EQ(machine.cpu.arithmetic_flags, flags & rflags::kArithmetic) << a << ' ' << b;
  }
}

TEST(Strings, Ports) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRdx] = 0x500;
  machine.cpu.gpr[kRdi] = kAt;
  machine.cpu.gpr[kRcx] = 3;
  ASSERT_TRUE(machine.run({0xf3, 0x6c}).ok());  // rep insb
  EXPECT_EQ(machine.get<std::uint32_t>(kAt) & 0xffffff, 0x131211U);
  machine.cpu.gpr[kRsi] = kAt;
  machine.cpu.gpr[kRcx] = 2;
  ASSERT_TRUE(machine.run({0xf3, 0x6e}).ok());  // rep outsb
  EXPECT_EQ(machine.device.writes, (std::vector<EchoDevice::Write>{{0x500, 1, 0x11}, {0x500, 1, 0x12}}));
  machine.read_only.insert(kAt >> 12);
  machine.cpu.gpr[kRdi] = kAt;
  const std::uint32_t next = machine.device.next;
  EXPECT_TRUE(machine.run_checked({0x6c}).is(Vector::PageFault, 3));
  EXPECT_EQ(machine.device.next, next) << "the device was not asked";
}

}  // namespace
}  // namespace vm_platform::soft
