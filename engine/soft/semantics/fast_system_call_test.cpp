#include <gtest/gtest.h>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kEntry = 0xffffffff81000000;

TEST(FastSystemCall, SyscallAndSysret) {
  FlatMachine machine(Mode::Long64, 3);
  machine.cpu.star = std::uint64_t{0x0023} << 48 | std::uint64_t{0x0010} << 32;
  machine.cpu.lstar = kEntry;
  machine.cpu.sfmask = 0x47700;
  machine.cpu.set_flags(0x40202 | rflags::kCarry);
  ASSERT_TRUE(machine.run({0x0f, 0x05}).ok());
  EXPECT_EQ(machine.cpu.rip, kEntry);
  EXPECT_EQ(machine.cpu.gpr[kRcx], FlatMachine::kCodeAt + 2);
  EXPECT_EQ(machine.cpu.gpr[kR11], 0x40203U);
  EXPECT_EQ(machine.cpu.flags(), 3U);
  EXPECT_EQ(machine.cpu.cpl, 0);
  EXPECT_EQ(machine.cpu.segments[kCs].selector, 0x10);
  EXPECT_EQ(machine.cpu.segments[kSs].selector, 0x18);
  EXPECT_TRUE(machine.cpu.in_64bit());
  ASSERT_TRUE(machine.run({0x48, 0x0f, 0x07}).ok());
  EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt + 2);
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.segments[kCs].selector, 0x33);
  EXPECT_EQ(machine.cpu.segments[kSs].selector, 0x2b);
  EXPECT_EQ(machine.cpu.flags(), 0x40203U);
}

TEST(FastSystemCall, SysretThatSetsTheTrapFlagTrapsBeforeTheFirstInstruction) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.star = std::uint64_t{0x0023} << 48;
  machine.cpu.gpr[kRcx] = 0x12345;
  machine.cpu.gpr[kR11] = rflags::kTrap;
  const Outcome outcome = machine.run({0x48, 0x0f, 0x07});
  ASSERT_TRUE(outcome.is(Vector::Debug));
  EXPECT_EQ(outcome.fault->dr6_bits, 1U << 14);
  EXPECT_EQ(machine.cpu.rip, 0x12345U);
  EXPECT_EQ(machine.cpu.cpl, 3);
}

TEST(FastSystemCall, CompatibilityModeUsesCstar) {
  FlatMachine machine(Mode::Compatibility32, 3);
  machine.cpu.star = std::uint64_t{0x0023} << 48 | std::uint64_t{0x0010} << 32;
  machine.cpu.cstar = kEntry + 0x40;
  ASSERT_TRUE(machine.run({0x0f, 0x05}).ok());
  EXPECT_EQ(machine.cpu.rip, kEntry + 0x40);
  ASSERT_TRUE(machine.run({0x0f, 0x07}).ok());
  EXPECT_FALSE(machine.cpu.in_64bit());
  EXPECT_EQ(machine.cpu.segments[kCs].selector, 0x23);
}

TEST(FastSystemCall, Faults) {
  FlatMachine user(Mode::Long64, 3);
  EXPECT_TRUE(user.run_checked({0x48, 0x0f, 0x07}).is(Vector::GeneralProtection, 0));
  EXPECT_TRUE(user.run_checked({0x0f, 0x34}).is(Vector::InvalidOpcode));  // sysenter in long mode
  user.cpu.efer &= ~efer::kSyscall;
  EXPECT_TRUE(user.run_checked({0x0f, 0x05}).is(Vector::InvalidOpcode));
}

TEST(FastSystemCall, SysretToNonCanonicalAddressLandsInUserMode) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.star = std::uint64_t{0x0023} << 48;
  machine.cpu.gpr[kRcx] = 0x800000000000;
  ASSERT_TRUE(machine.run({0x48, 0x0f, 0x07}).ok());
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.rip, 0x800000000000U);
}

TEST(FastSystemCall, Sysenter) {
  FlatMachine machine(Mode::Protected32, 3);
  EXPECT_TRUE(machine.run_checked({0x0f, 0x34}).is(Vector::GeneralProtection, 0));
  machine.cpu.sysenter_cs = 0x18;
  machine.cpu.sysenter_esp = 0x9000;
  machine.cpu.sysenter_eip = 0x55000;
  ASSERT_TRUE(machine.run({0x0f, 0x34}).ok());
  EXPECT_EQ(machine.cpu.cpl, 0);
  EXPECT_EQ(machine.cpu.rip, 0x55000U);
  EXPECT_EQ(machine.cpu.gpr[kRsp], 0x9000U);
  machine.cpu.gpr[kRdx] = 0x1111;
  machine.cpu.gpr[kRcx] = 0x2222;
  ASSERT_TRUE(machine.run({0x0f, 0x35}).ok());
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.segments[kCs].selector, 0x2b);
  EXPECT_EQ(machine.cpu.rip, 0x1111U);
}

}  // namespace
}  // namespace vm_platform::soft
