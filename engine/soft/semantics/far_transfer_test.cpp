#include <gtest/gtest.h>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kAt = FlatMachine::kData;
const std::initializer_list<std::uint8_t> kJmpMemory = {0xff, 0x2b}, kCallMemory = {0xff, 0x1b}, kLret = {0xcb},
                                          kLretq = {0x48, 0xcb};

/// A machine with m16:32 at [rbx].
struct FarMachine : FlatMachine {
  FarMachine(Mode mode, unsigned cpl, std::uint16_t selector, std::uint32_t offset = 0x5678) : FlatMachine(mode, cpl) {
    cpu.gpr[kRbx] = kAt;
    put(kAt, offset);
    put(kAt + 4, selector);
  }
};

TEST(FarTransfers, LretqReloadsCode) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRsp] -= 16;
  machine.put<std::uint64_t>(machine.cpu.gpr[kRsp], 0x123456);
  machine.put<std::uint64_t>(machine.cpu.gpr[kRsp] + 8, kCode64);
  ASSERT_TRUE(machine.run(kLretq).ok());
  EXPECT_EQ(machine.cpu.rip, 0x123456U);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop);
}

TEST(FarTransfers, JumpBetweenModes) {
  FarMachine machine(Mode::Long64, 0, kCode32);
  ASSERT_TRUE(machine.run(kJmpMemory).ok());
  EXPECT_FALSE(machine.cpu.in_64bit());
  EXPECT_EQ(machine.cpu.rip, 0x5678U);
  ASSERT_TRUE(machine.run({0xea, 0x00, 0x00, 0x05, 0x00, kCode64, 0x00}).ok());
  EXPECT_TRUE(machine.cpu.in_64bit());
  EXPECT_EQ(machine.cpu.rip, 0x50000U);
}

TEST(FarTransfers, DirectFaults) {
  struct Case {
    const char* name;
    unsigned cpl;
    std::uint16_t selector;
    Vector vector;
    std::uint32_t code;
  };
  const Case cases[] = {
      {"null", 0, 0, Vector::GeneralProtection, 0},
      {"beyond the GDT", 0, 0x7f8, Vector::GeneralProtection, 0x7f8},
      {"data", 0, kData0, Vector::GeneralProtection, kData0},
      {"absent", 0, kAbsentCode, Vector::SegmentNotPresent, kAbsentCode},
      {"more privileged", 3, kCode64, Vector::GeneralProtection, kCode64},
      {"less privileged", 0, kUserCode64, Vector::GeneralProtection, kUserCode64},
      {"RPL above CPL", 0, kCode64 | 3, Vector::GeneralProtection, kCode64},
      {"TSS in long mode", 0, kTaskState, Vector::GeneralProtection, kTaskState},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FarMachine machine(Mode::Long64, test.cpl, test.selector);
    EXPECT_TRUE(machine.run_checked(kJmpMemory).is(test.vector, test.code));
    EXPECT_TRUE(machine.run_checked(kCallMemory).is(test.vector, test.code));
  }
}

TEST(FarTransfers, ConformingCodeKeepsThePrivilege) {
  FarMachine machine(Mode::Long64, 3, kConforming64);
  ASSERT_TRUE(machine.run(kJmpMemory).ok());
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.segments[kCs].selector, kConforming64 | 3);
}

TEST(FarTransfers, CallAndReturn) {
  FarMachine machine(Mode::Protected32, 0, kCode32, 0x60000);
  ASSERT_TRUE(machine.run(kCallMemory).ok());
  EXPECT_EQ(machine.cpu.rip, 0x60000U);
  EXPECT_EQ(machine.get<std::uint32_t>(FlatMachine::kStackTop - 8), FlatMachine::kCodeAt + 2);
  EXPECT_EQ(machine.get<std::uint16_t>(FlatMachine::kStackTop - 4), kCode32);
  ASSERT_TRUE(machine.run({0xca, 0x08, 0x00}).ok());  // retf 8
  EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt + 2);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop + 8);
}

TEST(FarTransfers, ReturnToUserMode) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRsp] -= 32;
  const std::uint64_t frame[] = {0x1111, kUserCode64 | 3, 0x7fff0000, kUserData | 3};
  for (std::size_t i = 0; i < 4; ++i) machine.put(machine.cpu.gpr[kRsp] + 8 * i, frame[i]);
  ASSERT_TRUE(machine.run(kLretq).ok());
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.gpr[kRsp], 0x7fff0000U);
  EXPECT_NE(machine.cpu.segments[kDs].attributes & Segment::kUnusable, 0);
  FlatMachine user(Mode::Long64, 3);  // never inwards
  user.put<std::uint64_t>(FlatMachine::kStackTop + 8, kCode64);
  EXPECT_TRUE(user.run_checked(kLretq).is(Vector::GeneralProtection, kCode64));
}

TEST(FarTransfers, CallGateToInnerPrivilege) {
  FarMachine machine(Mode::Protected32, 3, kGate | 3);
  machine.set_descriptor(kGate, 0x0005ec0200000000ULL | std::uint64_t{kCode32} << 16 | 0x1234);  // 2 parameters
  machine.put<std::uint32_t>(FlatMachine::kStackTop, 0xaaaa);
  machine.put<std::uint32_t>(FlatMachine::kStackTop + 4, 0xbbbb);
  EXPECT_TRUE(machine.run_checked(kJmpMemory).is(Vector::GeneralProtection, kCode32)) << "JMP never changes privilege";
  ASSERT_TRUE(machine.run(kCallMemory).ok());
  EXPECT_EQ(machine.cpu.cpl, 0);
  EXPECT_EQ(machine.cpu.rip, 0x51234U);
  const std::uint32_t expected[] = {FlatMachine::kCodeAt + 2, kUserCode32 | 3, 0xaaaa, 0xbbbb,
                                    FlatMachine::kStackTop,   kUserData | 3};
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStack0 - sizeof expected);
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(machine.get<std::uint32_t>(machine.cpu.gpr[kRsp] + 4 * i), expected[i]) << i;
  }
  ASSERT_TRUE(machine.run({0xca, 0x08, 0x00}).ok());
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop + 8);
}

TEST(FarTransfers, CallGateOfLongMode) {
  FarMachine machine(Mode::Long64, 3, kGate | 3);
  machine.set_descriptor(kGate, 0x0005ec0000000000ULL | std::uint64_t{kCode64} << 16 | 0x1234);
  machine.put<std::uint64_t>(FlatMachine::kGdt + kGate + 8, 0xffff8000);
  ASSERT_TRUE(machine.run(kCallMemory).ok());
  EXPECT_EQ(machine.cpu.rip, 0xffff800000051234U);
  EXPECT_EQ(machine.cpu.cpl, 0);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStack0 - 32);
  EXPECT_EQ(machine.get<std::uint64_t>(FlatMachine::kStack0 - 8), kUserData | 3U);
  EXPECT_EQ(machine.cpu.segments[kSs].selector, 0);
  FarMachine refused(Mode::Long64, 3, kGate | 3);
  refused.set_descriptor(kGate, 0x00058c0000000000ULL | std::uint64_t{kCode64} << 16);  // DPL 0
  refused.put<std::uint64_t>(FlatMachine::kGdt + kGate + 8, 0);
  EXPECT_TRUE(refused.run_checked(kCallMemory).is(Vector::GeneralProtection, kGate));
}

TEST(FarTransfers, RealMode) {
  FlatMachine machine(Mode::Real);
  ASSERT_TRUE(machine.run({0x9a, 0x34, 0x12, 0x00, 0x20}).ok());  // call 2000:1234
  EXPECT_EQ(machine.cpu.segments[kCs].base, 0x20000U);
  EXPECT_EQ(machine.cpu.rip, 0x1234U);
  ASSERT_TRUE(machine.run(kLret).ok());
  EXPECT_EQ(machine.cpu.rip, 0x8005U);
  EXPECT_EQ(machine.cpu.segments[kCs].base, 0U);
  EXPECT_TRUE(machine.run_checked({0x66, 0xea, 0, 0, 1, 0, 0, 0}).is(Vector::GeneralProtection, 0)) << "limit";
}

TEST(FarTransfers, EnteringProtectedMode) {
  FlatMachine machine(Mode::Real);
  machine.cpu.cr0 |= cr0::kProtection;
  ASSERT_TRUE(machine.run({0x66, 0xea, 0x00, 0x00, 0x01, 0x00, kCode32, 0x00}).ok());
  EXPECT_EQ(machine.cpu.segments[kCs].limit, 0xffffffffU);
  EXPECT_EQ(machine.cpu.rip, 0x10000U);
}

/// A 32-bit TSS at kTss2 for a task in user mode.
void prepare_second_task(FlatMachine& machine) {
  const auto field = [&](std::size_t offset, std::uint32_t value) { machine.put(FlatMachine::kTss2 + offset, value); };
  field(28, 0x7000);  // CR3
  field(32, 0x61000);
  field(36, 0x202);
  for (std::uint32_t i = 0; i < 8; ++i) field(40 + 4 * i, 0x1000 + i);
  field(40 + 16, 0x28000);  // ESP
  for (std::uint32_t i = 0; i < 6; ++i) field(72 + 4 * i, kUserData | 3);
  field(76, kUserCode32 | 3);
}

TEST(FarTransfers, TaskSwitchAndReturn) {
  FarMachine machine(Mode::Protected32, 0, kSecondTask);
  machine.cpu.gpr[kRax] = kTaskState;
  ASSERT_TRUE(machine.run({0x0f, 0x00, 0xd8}).ok());  // ltr
  prepare_second_task(machine);
  const std::uint64_t next = machine.cpu.rip + 2;
  ASSERT_TRUE(machine.run(kCallMemory).ok());
  EXPECT_EQ(machine.cpu.rip, 0x61000U);
  EXPECT_EQ(machine.cpu.cpl, 3);
  EXPECT_EQ(machine.cpu.cr3, 0x7000U);
  EXPECT_EQ(machine.cpu.gpr[kRsp], 0x28000U);
  EXPECT_EQ(machine.cpu.gpr[kRdi], 0x1007U);
  EXPECT_NE(machine.cpu.cr0 & cr0::kTaskSwitched, 0U);
  EXPECT_NE(machine.cpu.system_flags & rflags::kNestedTask, 0U);
  EXPECT_EQ(machine.get<std::uint16_t>(FlatMachine::kTss2), kTaskState) << "link";
  EXPECT_EQ(machine.get<std::uint32_t>(FlatMachine::kTss + 32), next);
  EXPECT_EQ(machine.get<std::uint8_t>(FlatMachine::kGdt + kSecondTask + 5) & 2, 2) << "busy";
  EXPECT_EQ(machine.get<std::uint8_t>(FlatMachine::kGdt + kTaskState + 5) & 2, 2) << "and so is the one it returns to";
  ASSERT_TRUE(machine.run({0xcf}).ok());
  EXPECT_EQ(machine.cpu.rip, next);
  EXPECT_EQ(machine.cpu.cpl, 0);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop);
  EXPECT_EQ(machine.get<std::uint8_t>(FlatMachine::kGdt + kSecondTask + 5) & 2, 0);
}

TEST(FarTransfers, TaskSwitchFaults) {
  FarMachine machine(Mode::Protected32, 0, kTaskState);
  machine.cpu.gpr[kRax] = kTaskState;
  ASSERT_TRUE(machine.run({0x0f, 0x00, 0xd8}).ok());
  EXPECT_TRUE(machine.run_checked(kJmpMemory).is(Vector::GeneralProtection, kTaskState)) << "busy";
  machine.put<std::uint16_t>(kAt + 4, kSecondTask);
  machine.set_descriptor(kSecondTask, 0x0000890000000066 | FlatMachine::kTss2 << 16);
  EXPECT_TRUE(machine.run_checked(kJmpMemory).is(Vector::InvalidTss, kSecondTask)) << "too small";
  machine.set_descriptor(kSecondTask, 0x0000090000000067 | FlatMachine::kTss2 << 16);
  EXPECT_TRUE(machine.run_checked(kJmpMemory).is(Vector::SegmentNotPresent, kSecondTask));
  machine.set_descriptor(kSecondTask, 0x0000890000000067 | FlatMachine::kTss2 << 16);
  prepare_second_task(machine);
  machine.cpu.tr.selector = 0x7f8;  // as after LGDT with a smaller limit
  EXPECT_TRUE(machine.run_checked(kJmpMemory).is(Vector::InvalidTss, 0x7f8));
}

TEST(FarTransfers, TaskSwitchLoadsNoReservedFlags) {
  FarMachine machine(Mode::Protected32, 0, kSecondTask);
  machine.cpu.gpr[kRax] = kTaskState;
  ASSERT_TRUE(machine.run({0x0f, 0x00, 0xd8}).ok());
  prepare_second_task(machine);
  machine.put<std::uint32_t>(FlatMachine::kTss2 + 36, 0xfffdffff);  // all but VM
  ASSERT_TRUE(machine.run(kJmpMemory).ok());
  EXPECT_EQ(machine.cpu.flags(), 0x3c7fd7U);
}

TEST(FarTransfers, TaskGateDeliversTheErrorCode) {
  FlatMachine machine(Mode::Protected32);
  machine.cpu.gpr[kRax] = kTaskState;
  ASSERT_TRUE(machine.run({0x0f, 0x00, 0xd8}).ok());
  prepare_second_task(machine);
  machine.set_gate(13, kSecondTask, 0, 5);
  deliver_exception(machine.cpu, {Vector::GeneralProtection, 0x1230});
  EXPECT_EQ(machine.cpu.rip, 0x61000U);
  EXPECT_EQ(machine.cpu.gpr[kRsp], 0x28000U - 4);
  EXPECT_EQ(machine.get<std::uint32_t>(0x28000 - 4), 0x1230U);
}

}  // namespace
}  // namespace vm_platform::soft
