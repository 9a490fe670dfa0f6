#include <gtest/gtest.h>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

TEST(DescriptorTables, LoadAndStore) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRbx] = FlatMachine::kData;
  machine.put<std::uint16_t>(FlatMachine::kData, 0x7f);
  machine.put<std::uint64_t>(FlatMachine::kData + 2, 0xfffffe0000001000);
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0x13}).ok());  // lgdt [rbx]
  EXPECT_EQ(machine.cpu.gdtr, (DescriptorTable{0xfffffe0000001000, 0x7f}));
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0x43, 0x20}).ok());  // sgdt [rbx + 32]
  EXPECT_EQ(machine.get<std::uint64_t>(FlatMachine::kData + 34), 0xfffffe0000001000);
  machine.put<std::uint64_t>(FlatMachine::kData + 2, 0x800000000000);
  EXPECT_TRUE(machine.run_checked({0x0f, 0x01, 0x1b}).is(Vector::GeneralProtection, 0));  // lidt, non-canonical
  FlatMachine real(Mode::Real);
  real.cpu.gpr[kRbx] = 0x600;
  real.put<std::uint16_t>(0x600, 0x3ff);
  real.put<std::uint32_t>(0x602, 0xaabbccdd);
  ASSERT_TRUE(real.run({0x0f, 0x01, 0x1f}).ok());  // lidt [bx]: 24 bits of base
  EXPECT_EQ(real.cpu.idtr, (DescriptorTable{0xbbccdd, 0x3ff}));
  EXPECT_TRUE(real.run_checked({0x0f, 0x00, 0xd8}).is(Vector::InvalidOpcode));  // ltr ax
}

TEST(DescriptorTables, UserModeInstructionPrevention) {
  const std::initializer_list<std::uint8_t> cases[] = {
      {0x0f, 0x01, 0x03}, {0x0f, 0x01, 0x0b}, {0x0f, 0x00, 0xc0}, {0x0f, 0x00, 0xc8}, {0x0f, 0x01, 0xe0}};
  for (const auto& bytes : cases) {
    FlatMachine machine(Mode::Long64, 3);
    machine.cpu.gpr[kRbx] = FlatMachine::kData;
    ASSERT_TRUE(machine.run(bytes).ok());
    machine.cpu.cr4 |= cr4::kUmip;
    EXPECT_TRUE(machine.run_checked(bytes).is(Vector::GeneralProtection, 0));
  }
}

TEST(DescriptorTables, TaskRegister) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRax] = kTaskState;
  ASSERT_TRUE(machine.run({0x0f, 0x00, 0xd8}).ok());
  EXPECT_EQ(machine.cpu.tr.base, FlatMachine::kTss);
  EXPECT_EQ(machine.get<std::uint8_t>(FlatMachine::kGdt + kTaskState + 5), 0x8b) << "busy";
  EXPECT_TRUE(machine.run_checked({0x0f, 0x00, 0xd8}).is(Vector::GeneralProtection, kTaskState)) << "busy already";
  machine.cpu.gpr[kRax] = 0;
  EXPECT_TRUE(machine.run_checked({0x0f, 0x00, 0xd8}).is(Vector::GeneralProtection, 0));
  machine.set_descriptor(kTaskState, 0x0000090000000067 | FlatMachine::kTss << 16);
  machine.cpu.gpr[kRax] = kTaskState;
  EXPECT_TRUE(machine.run_checked({0x0f, 0x00, 0xd8}).is(Vector::SegmentNotPresent, kTaskState));
}

TEST(DescriptorTables, LocalTable) {
  FlatMachine machine(Mode::Long64);
  machine.set_descriptor(kLdtEntry, 0x00008200000000ff | FlatMachine::kLdt << 16, 0);
  machine.put<std::uint64_t>(FlatMachine::kGdt + kLdtEntry + 8, 0);
  machine.cpu.gpr[kRax] = kLdtEntry;
  ASSERT_TRUE(machine.run({0x0f, 0x00, 0xd0}).ok());
  EXPECT_EQ(machine.cpu.ldtr.base, FlatMachine::kLdt);
  machine.put<std::uint64_t>(FlatMachine::kLdt, 0x00cf93000000ffff);
  machine.cpu.gpr[kRax] = 4;
  ASSERT_TRUE(machine.run({0x8e, 0xd8}).ok());  // mov ds, 4: the first entry of the LDT
  EXPECT_EQ(machine.cpu.segments[kDs].selector, 4);
  machine.cpu.gpr[kRax] = kData0;
  EXPECT_TRUE(machine.run_checked({0x0f, 0x00, 0xd0}).is(Vector::GeneralProtection, kData0));
  machine.cpu.gpr[kRax] = 0;
  ASSERT_TRUE(machine.run({0x0f, 0x00, 0xd0}).ok());
  machine.cpu.gpr[kRax] = 4;
  EXPECT_TRUE(machine.run_checked({0x8e, 0xd8}).is(Vector::GeneralProtection, 4));
}

TEST(DescriptorTables, LookingAtDescriptors) {
  struct Case {
    std::uint16_t selector;
    unsigned cpl;
    bool lar, lsl, verr, verw;
  };
  const Case cases[] = {
      {0, 0, false, false, false, false},          {kCode64, 0, true, true, true, false},
      {kData0, 0, true, true, true, true},         {kData0, 3, false, false, false, false},
      {kUserData | 3, 3, true, true, true, true},  {kReadOnly, 0, true, true, true, false},
      {kTaskState, 0, true, true, false, false},   {0x7f8, 0, false, false, false, false},
      {kConforming64, 3, true, true, true, false},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.selector);
    FlatMachine machine(Mode::Long64, test.cpl);
    machine.cpu.gpr[kRax] = test.selector;
    const auto zero = [&] { return (machine.cpu.arithmetic_flags & rflags::kZero) != 0; };
    ASSERT_TRUE(machine.run({0x0f, 0x02, 0xd8}).ok());
    EXPECT_EQ(zero(), test.lar);
    ASSERT_TRUE(machine.run({0x0f, 0x03, 0xc8}).ok());
    EXPECT_EQ(zero(), test.lsl);
    ASSERT_TRUE(machine.run({0x0f, 0x00, 0xe0}).ok());
    EXPECT_EQ(zero(), test.verr);
    ASSERT_TRUE(machine.run({0x0f, 0x00, 0xe8}).ok());
    EXPECT_EQ(zero(), test.verw);
  }
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRax] = kData0;
  ASSERT_TRUE(machine.run({0x0f, 0x03, 0xc8}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRcx], 0xffffffffU);
  ASSERT_TRUE(machine.run({0x0f, 0x02, 0xd8}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRbx], 0x00cf9300U);
}

}  // namespace
}  // namespace vm_platform::soft
