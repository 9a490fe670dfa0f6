#include <gtest/gtest.h>

#include "engine/soft/semantics/delivery.hpp"
#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kHandler = 0x50000;

std::vector<std::uint64_t> frame64(const FlatMachine& machine, std::size_t words) {
  std::vector<std::uint64_t> frame(words);
  for (std::size_t i = 0; i < words; ++i) frame[i] = machine.get<std::uint64_t>(machine.cpu.gpr[kRsp] + 8 * i);
  return frame;
}

TEST(Interrupt, PageFaultFromUserModeSwitchesStacks) {
  FlatMachine machine(Mode::Long64, 3);
  machine.set_gate(14, kCode64, kHandler);
  machine.cpu.system_flags |= rflags::kInterrupt;
  machine.cpu.arithmetic_flags = rflags::kCarry;
  deliver_exception(machine.cpu, {Vector::PageFault, 6, 0x7fff1234});
  EXPECT_EQ(machine.cpu.rip, kHandler);
  EXPECT_EQ(machine.cpu.cpl, 0);
  EXPECT_EQ(machine.cpu.cr2, 0x7fff1234U);
  EXPECT_EQ(machine.cpu.segments[kCs].selector, kCode64);
  EXPECT_EQ(machine.cpu.segments[kSs].selector, 0);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStack0 - 48);
  EXPECT_EQ(machine.cpu.system_flags & rflags::kInterrupt, 0U);
  const std::vector<std::uint64_t> expected{6,       FlatMachine::kCodeAt,   kUserCode64 | 3,
                                            0x10203, FlatMachine::kStackTop, kUserData | 3};
  EXPECT_EQ(frame64(machine, 6), expected);
}

TEST(Interrupt, TrapGateKeepsInterruptsOn) {
  FlatMachine machine(Mode::Long64);
  machine.set_gate(3, kCode64, kHandler, 15);
  machine.cpu.system_flags |= rflags::kInterrupt;
  ASSERT_TRUE(machine.run({0xcc}).ok());
  EXPECT_NE(machine.cpu.system_flags & rflags::kInterrupt, 0U);
  EXPECT_EQ(frame64(machine, 1)[0], FlatMachine::kCodeAt + 1);
}

TEST(Interrupt, FaultOfTheFrameIsThatOfTheHighestWordFirst) {
  struct Case {
    std::uint64_t rsp, absent_page, address;
  };
  constexpr std::uint64_t kTop = FlatMachine::kStackTop;
  for (const auto& [rsp, absent_page, address] : {
           Case{kTop, kTop - 0x1000, kTop - 8},         // all of it
           Case{kTop + 0x10, kTop, kTop + 8},           // the upper part
           Case{kTop + 0x10, kTop - 0x1000, kTop - 8},  // the lower part
           Case{kTop + 0x28, kTop - 0x1000, kTop - 8},  // the last word (RSP is aligned first)
       }) {
    FlatMachine machine(Mode::Long64);
    machine.set_gate(0x20, kCode64, kHandler);
    machine.cpu.gpr[kRsp] = rsp;
    machine.absent.insert(absent_page >> 12);
    try {
      deliver_event(machine.cpu, {0x20, false, {}, machine.cpu.rip});
      FAIL() << "no fault";
    } catch (const GuestFault& fault) {
      EXPECT_EQ(fault.vector, Vector::PageFault);
      EXPECT_EQ(fault.address, address) << std::hex << rsp << ' ' << absent_page;
    }
    EXPECT_EQ(machine.cpu.gpr[kRsp], rsp);
    EXPECT_EQ(machine.get<std::uint64_t>(kTop), 0U) << "nothing was written";
  }
}

TEST(Interrupt, SameStackIsAligned) {
  FlatMachine machine(Mode::Long64);
  machine.set_gate(0x20, kCode64, kHandler);
  machine.cpu.gpr[kRsp] = FlatMachine::kStackTop - 3;
  deliver_interrupt(machine.cpu, 0x20);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop - 16 - 40);
  EXPECT_EQ(frame64(machine, 5)[3], FlatMachine::kStackTop - 3);
}

TEST(Interrupt, InterruptStackTable) {
  FlatMachine machine(Mode::Long64);
  machine.set_gate(2, kCode64, kHandler, 14, 0, 1);
  deliver_interrupt(machine.cpu, 2, true);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kIst1 - 40);
  EXPECT_TRUE(machine.cpu.nmi_masked);
  ASSERT_TRUE(machine.run({0x48, 0xcf}).ok());  // iretq
  EXPECT_FALSE(machine.cpu.nmi_masked);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop);
}

struct GateFault {
  const char* name;
  std::uint8_t vector;
  std::uint16_t selector;
  unsigned type, dpl;
  bool present;
  unsigned cpl;
  Vector expected;
  std::uint32_t code;
};

TEST(Interrupt, GateFaultsOfIntN) {
  const GateFault cases[] = {
      {"DPL below CPL", 0x80, kCode64, 14, 0, true, 3, Vector::GeneralProtection, 0x80 * 8 + 2},
      {"not present", 0x80, kCode64, 14, 3, false, 3, Vector::SegmentNotPresent, 0x80 * 8 + 2},
      {"not a gate of long mode", 0x80, kCode64, 5, 3, true, 3, Vector::GeneralProtection, 0x80 * 8 + 2},
      {"null selector", 0x80, 0, 14, 3, true, 3, Vector::GeneralProtection, 0},
      {"32-bit code", 0x80, kCode32, 14, 3, true, 3, Vector::GeneralProtection, kCode32},
      {"data segment", 0x80, kData0, 14, 3, true, 3, Vector::GeneralProtection, kData0},
      {"absent code", 0x80, kAbsentCode, 14, 3, true, 3, Vector::SegmentNotPresent, kAbsentCode},
      {"outward", 0x80, kUserCode64 | 3, 14, 3, true, 0, Vector::GeneralProtection, kUserCode64},
      {"beyond the GDT", 0x80, 0x7f8, 14, 3, true, 3, Vector::GeneralProtection, 0x7f8},
  };
  for (const GateFault& test : cases) {
    SCOPED_TRACE(test.name);
    FlatMachine machine(Mode::Long64, test.cpl);
    machine.set_gate(test.vector, test.selector, kHandler, test.type, test.dpl, 0, test.present);
    EXPECT_TRUE(machine.run_checked({0xcd, test.vector}).is(test.expected, test.code));
  }
}

TEST(Interrupt, BeyondTheIdt) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.idtr.limit = 0x80 * 16 + 14;
  EXPECT_TRUE(machine.run_checked({0xcd, 0x80}).is(Vector::GeneralProtection, 0x80 * 8 + 2));
}

TEST(Interrupt, FaultDuringDeliveryHasExternalBit) {
  FlatMachine machine(Mode::Long64);
  machine.set_gate(6, kCode64, kHandler, 14, 0, 0, false);
  machine.set_gate(11, kCode64, kHandler + 0x100);
  deliver_exception(machine.cpu, {Vector::InvalidOpcode});
  EXPECT_EQ(machine.cpu.rip, kHandler + 0x100);
  EXPECT_EQ(frame64(machine, 1)[0], 6U * 8 + 2 + 1);
}

TEST(Interrupt, ContributoryFaultsDouble) {
  FlatMachine machine(Mode::Long64);
  machine.set_gate(13, kCode64, kHandler, 14, 0, 0, false);
  machine.set_gate(8, kCode64, kHandler + 0x200);
  deliver_exception(machine.cpu, {Vector::GeneralProtection, 0x1234});
  EXPECT_EQ(machine.cpu.rip, kHandler + 0x200);
  EXPECT_EQ(frame64(machine, 2), (std::vector<std::uint64_t>{0, FlatMachine::kCodeAt}));
}

TEST(Interrupt, PageFaultWhileDeliveringPageFaultDoubles) {
  FlatMachine machine(Mode::Long64);
  machine.set_gate(14, kCode64, kHandler);
  machine.set_gate(8, kCode64, kHandler + 0x200, 14, 0, 1);
  machine.absent.insert((FlatMachine::kStackTop - 1) >> 12);
  deliver_exception(machine.cpu, {Vector::PageFault, 0, 0x123000});
  EXPECT_EQ(machine.cpu.rip, kHandler + 0x200);
  EXPECT_EQ(machine.cpu.cr2, FlatMachine::kStackTop - 8);
}

TEST(Interrupt, TripleFault) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.idtr.limit = 0;
  EXPECT_THROW(deliver_exception(machine.cpu, {Vector::InvalidOpcode}), TripleFault);
  EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt);
}

TEST(Interrupt, IretqToUserMode) {
  FlatMachine machine(Mode::Long64);
  const std::uint64_t frame[] = {0x12345, kUserCode64 | 3, 0x246 | rflags::kTrap, 0x77777, kUserData | 3};
  machine.cpu.gpr[kRsp] -= sizeof frame;
  for (std::size_t i = 0; i < 5; ++i) machine.put(machine.cpu.gpr[kRsp] + 8 * i, frame[i]);
  ASSERT_TRUE(machine.run({0x48, 0xcf}).ok());
  EXPECT_EQ(machine.cpu.rip, 0x12345U);
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.gpr[kRsp], 0x77777U);
  EXPECT_EQ(machine.cpu.flags(), 0x246U | rflags::kTrap);
  EXPECT_EQ(machine.cpu.segments[kSs].selector, kUserData | 3);
  // Data segments of the kernel do not follow into user mode.
  EXPECT_NE(machine.cpu.segments[kDs].attributes & Segment::kUnusable, 0);
}

TEST(Interrupt, IretqFaults) {
  struct Case {
    const char* name;
    std::uint64_t rip, cs, rsp, ss;
    Vector vector;
    std::uint32_t code;
  };
  const Case cases[] = {
      {"null CS", 0, 0, 0, kUserData | 3, Vector::GeneralProtection, 0},
      {"data as CS", 0, kUserData | 3, 0, kUserData | 3, Vector::GeneralProtection, kUserData},
      {"absent CS", 0, kAbsentCode, 0, kData0, Vector::SegmentNotPresent, kAbsentCode},
      {"RPL and DPL differ", 0, kCode64 | 3, 0, kUserData | 3, Vector::GeneralProtection, kCode64},
      {"non-canonical RIP", 0x800000000000, kUserCode64 | 3, 0, kUserData | 3, Vector::GeneralProtection, 0},
      {"null SS for CPL 3", 0, kUserCode64 | 3, 0, 3, Vector::GeneralProtection, 0},
      {"SS of another privilege", 0, kUserCode64 | 3, 0, kData0, Vector::GeneralProtection, kData0},
      {"read-only SS", 0, kCode64, 0, kReadOnly, Vector::GeneralProtection, kReadOnly},
      {"absent SS", 0, kCode64, 0, kAbsentData, Vector::StackFault, kAbsentData},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FlatMachine machine(Mode::Long64);
    machine.cpu.gpr[kRsp] -= 40;
    const std::uint64_t frame[] = {test.rip, test.cs, 2, test.rsp, test.ss};
    for (std::size_t i = 0; i < 5; ++i) machine.put(machine.cpu.gpr[kRsp] + 8 * i, frame[i]);
    EXPECT_TRUE(machine.run_checked({0x48, 0xcf}).is(test.vector, test.code));
  }
}

TEST(Interrupt, IretqFromUserModeCannotRaiseIopl) {
  FlatMachine machine(Mode::Long64, 3);
  const std::uint64_t frame[] = {0x12345, kUserCode64 | 3, 0x3002 | rflags::kInterrupt, 0x77777, kUserData | 3};
  machine.cpu.gpr[kRsp] -= sizeof frame;
  for (std::size_t i = 0; i < 5; ++i) machine.put(machine.cpu.gpr[kRsp] + 8 * i, frame[i]);
  ASSERT_TRUE(machine.run({0x48, 0xcf}).ok());
  EXPECT_EQ(machine.cpu.flags(), 2U);
}

TEST(Interrupt, NestedTaskFlagFaultsInLongMode) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.system_flags |= rflags::kNestedTask;
  EXPECT_TRUE(machine.run_checked({0x48, 0xcf}).is(Vector::GeneralProtection, 0));
}

TEST(Interrupt, RealModeVector) {
  FlatMachine machine(Mode::Real);
  machine.put<std::uint32_t>(0x21 * 4, 0x12340056);
  machine.cpu.system_flags |= rflags::kInterrupt;
  ASSERT_TRUE(machine.run({0xcd, 0x21}).ok());
  EXPECT_EQ(machine.cpu.segments[kCs].selector, 0x1234);
  EXPECT_EQ(machine.cpu.segments[kCs].base, 0x12340U);
  EXPECT_EQ(machine.cpu.rip, 0x56U);
  EXPECT_EQ(machine.cpu.gpr[kRsp], 0xf000U - 6);
  EXPECT_EQ(machine.get<std::uint16_t>(0xf000 - 6), 0x8002);
  ASSERT_TRUE(machine.run({0xcf}).ok());
  EXPECT_EQ(machine.cpu.rip, 0x8002U);
  EXPECT_EQ(machine.cpu.segments[kCs].selector, 0);
  EXPECT_NE(machine.cpu.system_flags & rflags::kInterrupt, 0U);
}

TEST(Interrupt, ProtectedModeStackSwitch) {
  FlatMachine machine(Mode::Protected32, 3);
  machine.set_gate(0x80, kCode32, kHandler, 14, 3);
  ASSERT_TRUE(machine.run({0xcd, 0x80}).ok());
  EXPECT_EQ(machine.cpu.cpl, 0);
  EXPECT_EQ(machine.cpu.segments[kSs].selector, kData0);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStack0 - 20);
  EXPECT_EQ(machine.get<std::uint32_t>(FlatMachine::kStack0 - 20), FlatMachine::kCodeAt + 2);
  EXPECT_EQ(machine.get<std::uint32_t>(FlatMachine::kStack0 - 4), kUserData | 3U);
  ASSERT_TRUE(machine.run({0xcf}).ok());
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop);
}

TEST(Interrupt, Virtual8086RoundTrip) {
  FlatMachine machine(Mode::Protected32);
  machine.set_gate(0x20, kCode32, kHandler);
  const std::uint32_t frame[] = {0x100, 0x2000, 0x20202 | 0x3000, 0x800, 0x3000, 0x111, 0x222, 0x333, 0x444};
  machine.cpu.gpr[kRsp] -= sizeof frame;
  for (std::size_t i = 0; i < std::size(frame); ++i) machine.put(machine.cpu.gpr[kRsp] + 4 * i, frame[i]);
  ASSERT_TRUE(machine.run({0xcf}).ok());
  EXPECT_TRUE(machine.cpu.virtual_8086());
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.segments[kCs].base, 0x20000U);
  EXPECT_EQ(machine.cpu.segments[kGs].selector, 0x444);
  deliver_interrupt(machine.cpu, 0x20);
  EXPECT_FALSE(machine.cpu.virtual_8086());
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStack0 - 36);
  EXPECT_EQ(machine.get<std::uint32_t>(FlatMachine::kStack0 - 4), 0x444U);
  EXPECT_EQ(machine.get<std::uint32_t>(FlatMachine::kStack0 - 28) & rflags::kVirtual8086, rflags::kVirtual8086);
}

}  // namespace
}  // namespace vm_platform::soft
