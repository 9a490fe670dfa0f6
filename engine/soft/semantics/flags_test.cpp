#include <gtest/gtest.h>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

TEST(Flags, PushfHidesResumeAndVirtual8086) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.set_flags(0x10202 | rflags::kZero);
  ASSERT_TRUE(machine.run({0x9c}).ok());
  EXPECT_EQ(machine.get<std::uint64_t>(FlatMachine::kStackTop - 8), 0x242U);
  ASSERT_TRUE(machine.run({0x66, 0x9c}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop - 10);
}

struct Pop {
  const char* name;
  Mode mode;
  unsigned cpl;
  std::uint64_t iopl, popped, expected;
};

TEST(Flags, PopfPrivilege) {
  const Pop cases[] = {
      {"kernel", Mode::Long64, 0, 0, 0x3702, 0x3702},
      {"user without IOPL", Mode::Long64, 3, 0, 0x3702, 0x0502},
      {"user with IOPL", Mode::Long64, 3, 3, 0x0702, 0x3702},
      {"AC and ID", Mode::Long64, 3, 0, 0x240002, 0x240002},
      {"VM, RF, VIF, VIP are not loaded", Mode::Long64, 0, 0, 0x1b0002, 0x2},
      {"32-bit", Mode::Protected32, 0, 0, 0x203ed7, 0x203ed7},
  };
  for (const Pop& test : cases) {
    SCOPED_TRACE(test.name);
    FlatMachine machine(test.mode, test.cpl);
    machine.cpu.set_flags(2 | test.iopl << 12);
    machine.put(FlatMachine::kStackTop, test.popped);
    ASSERT_TRUE(machine.run({0x9d}).ok());
    EXPECT_EQ(machine.cpu.flags(), test.expected);
  }
}

TEST(Flags, CliSti) {
  FlatMachine machine(Mode::Long64);
  ASSERT_TRUE(machine.run({0xfb}).ok());
  EXPECT_TRUE(machine.cpu.interrupt_shadow);
  EXPECT_NE(machine.cpu.system_flags & rflags::kInterrupt, 0U);
  machine.cpu.interrupt_shadow = false;
  ASSERT_TRUE(machine.run({0xfb}).ok());
  EXPECT_FALSE(machine.cpu.interrupt_shadow) << "no shadow when IF was set before";
  ASSERT_TRUE(machine.run({0xfa}).ok());
  EXPECT_EQ(machine.cpu.system_flags & rflags::kInterrupt, 0U);
  FlatMachine user(Mode::Long64, 3);
  EXPECT_TRUE(user.run_checked({0xfa}).is(Vector::GeneralProtection, 0));
  EXPECT_TRUE(user.run_checked({0xfb}).is(Vector::GeneralProtection, 0));
  EXPECT_TRUE(user.run_checked({0x0f, 0x01, 0xcb}).is(Vector::InvalidOpcode));  // stac
}

TEST(Flags, StacClac) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.cr4 |= cr4::kSmap;
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0xcb}).ok());
  EXPECT_NE(machine.cpu.system_flags & rflags::kAlignmentCheck, 0U);
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0xca}).ok());
  EXPECT_EQ(machine.cpu.system_flags & rflags::kAlignmentCheck, 0U);
}

TEST(Flags, Virtual8086NeedsIopl) {
  FlatMachine machine(Mode::Protected32);
  machine.cpu.system_flags |= rflags::kVirtual8086;
  machine.cpu.cpl = 3;
  for (const std::uint8_t opcode : std::initializer_list<std::uint8_t>{0x9c, 0x9d, 0xfa, 0xfb, 0xcf}) {
    EXPECT_TRUE(machine.run_checked({opcode}).is(Vector::GeneralProtection, 0)) << int{opcode};
  }
  EXPECT_TRUE(machine.run_checked({0xcd, 0x10}).is(Vector::GeneralProtection, 0));
}

TEST(Flags, FaultingPushLeavesTheStackPointer) {
  FlatMachine machine(Mode::Long64);
  machine.absent.insert((FlatMachine::kStackTop - 8) >> 12);
  EXPECT_TRUE(machine.run_checked({0x9c}).is(Vector::PageFault, 2));
}

}  // namespace
}  // namespace vm_platform::soft
