#include <gtest/gtest.h>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kAt = FlatMachine::kData;

TEST(Legacy, PushaPopa) {
  FlatMachine machine(Mode::Protected32);
  for (unsigned i = 0; i < 8; ++i) {
    if (i != kRsp) machine.cpu.gpr[i] = 0x11111111 * (i + 1);
  }
  const CpuContext before = machine.cpu;
  ASSERT_TRUE(machine.run({0x60}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop - 32);
  EXPECT_EQ(machine.get<std::uint32_t>(FlatMachine::kStackTop - 20), FlatMachine::kStackTop);
  for (unsigned i = 0; i < 8; ++i) {
    if (i != kRsp) machine.cpu.gpr[i] = 0;
  }
  ASSERT_TRUE(machine.run({0x61}).ok());
  EXPECT_TRUE(std::equal(std::begin(before.gpr), std::end(before.gpr), machine.cpu.gpr));
  machine.absent.insert((FlatMachine::kStackTop - 1) >> 12);
  machine.cpu.gpr[kRsp] = FlatMachine::kStackTop - 0x1000 + 8;
  EXPECT_TRUE(machine.run_checked({0x60}).is(Vector::PageFault, 2)) << "in the middle";
}

/// The adjustments for every AL and flag, against their definition (Intel SDM vol. 2).
TEST(Legacy, DecimalAdjustments) {
  for (unsigned al = 0; al < 256; ++al) {
    for (unsigned flags = 0; flags < 4; ++flags) {
      const bool carry = (flags & 1) != 0, adjust = (flags & 2) != 0;
      for (const bool subtract : {false, true}) {
        FlatMachine* machine = nullptr;
        static FlatMachine reused(Mode::Protected32);
        machine = &reused;
        machine->cpu.gpr[kRax] = 0xabcd0000 | al;
        machine->cpu.arithmetic_flags = (carry ? rflags::kCarry : 0) | (adjust ? rflags::kAdjust : 0);
        ASSERT_TRUE(subtract ? machine->run({0x2f}).ok() : machine->run({0x27}).ok());
        unsigned value = al;
        bool carry_out = false, adjust_out = false;
        if ((al & 0xf) > 9 || adjust) {
          const int step = static_cast<int>(al) + (subtract ? -6 : 6);
          carry_out = carry || step < 0 || step > 255;
          value = static_cast<unsigned>(step) & 0xff;
          adjust_out = true;
        }
        if (al > 0x99 || carry) {
          value = (subtract ? value - 0x60 : value + 0x60) & 0xff;
          carry_out = true;
        } else if (!subtract) {
          carry_out = false;
        }
        ASSERT_EQ(machine->cpu.gpr[kRax], 0xabcd0000U | value) << al << ' ' << flags << subtract;
        ASSERT_EQ((machine->cpu.arithmetic_flags & rflags::kCarry) != 0, carry_out) << al << ' ' << flags << subtract;
        ASSERT_EQ((machine->cpu.arithmetic_flags & rflags::kAdjust) != 0, adjust_out);
        ASSERT_EQ((machine->cpu.arithmetic_flags & rflags::kZero) != 0, value == 0);
      }
    }
  }
}

TEST(Legacy, AsciiAdjustments) {
  FlatMachine machine(Mode::Protected32);
  machine.cpu.gpr[kRax] = 0x020f;
  ASSERT_TRUE(machine.run({0x37}).ok());  // aaa
  EXPECT_EQ(machine.cpu.gpr[kRax], 0x0305U);
  EXPECT_EQ(machine.cpu.arithmetic_flags & (rflags::kCarry | rflags::kAdjust), rflags::kCarry | rflags::kAdjust);
  machine.cpu.arithmetic_flags = 0;
  machine.cpu.gpr[kRax] = 0x0209;
  ASSERT_TRUE(machine.run({0x37}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRax], 0x0209U);
  machine.cpu.gpr[kRax] = 0x020f;
  ASSERT_TRUE(machine.run({0x3f}).ok());  // aas
  EXPECT_EQ(machine.cpu.gpr[kRax], 0x0109U);
  machine.cpu.gpr[kRax] = 97;
  ASSERT_TRUE(machine.run({0xd4, 0x0a}).ok());  // aam
  EXPECT_EQ(machine.cpu.gpr[kRax], 0x0907U);
  ASSERT_TRUE(machine.run({0xd5, 0x0a}).ok());  // aad
  EXPECT_EQ(machine.cpu.gpr[kRax], 97U);
  EXPECT_TRUE(machine.run_checked({0xd4, 0x00}).is(Vector::DivideError));
}

TEST(Legacy, BoundAndArpl) {
  FlatMachine machine(Mode::Protected32);
  machine.cpu.gpr[kRbx] = kAt;
  machine.put<std::int32_t>(kAt, -5);
  machine.put<std::int32_t>(kAt + 4, 5);
  machine.cpu.gpr[kRax] = static_cast<std::uint32_t>(-5);
  EXPECT_TRUE(machine.run({0x62, 0x03}).ok());
  machine.cpu.gpr[kRax] = 6;
  EXPECT_TRUE(machine.run_checked({0x62, 0x03}).is(Vector::BoundRange));
  machine.cpu.gpr[kRax] = 0x10;
  machine.cpu.gpr[kRcx] = 0x23;
  ASSERT_TRUE(machine.run({0x63, 0xc8}).ok());  // arpl ax, cx
  EXPECT_EQ(machine.cpu.gpr[kRax], 0x13U);
  EXPECT_NE(machine.cpu.arithmetic_flags & rflags::kZero, 0U);
  ASSERT_TRUE(machine.run({0x63, 0xc8}).ok());
  EXPECT_EQ(machine.cpu.arithmetic_flags & rflags::kZero, 0U);
  FlatMachine real(Mode::Real);
  EXPECT_TRUE(real.run_checked({0x63, 0xc8}).is(Vector::InvalidOpcode));
}

TEST(Legacy, SalcAndXlat) {
  FlatMachine machine(Mode::Protected32);
  machine.cpu.arithmetic_flags = rflags::kCarry;
  ASSERT_TRUE(machine.run({0xd6}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRax], 0xffU);
  FlatMachine wide(Mode::Long64);
  wide.cpu.gpr[kRbx] = kAt;
  wide.cpu.gpr[kRax] = 0xffff05;
  wide.put<std::uint8_t>(kAt + 5, 0x77);
  ASSERT_TRUE(wide.run({0xd7}).ok());
  EXPECT_EQ(wide.cpu.gpr[kRax], 0xffff77U);
}

TEST(Legacy, Enter) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRbp] = kAt + 0x100;
  machine.put<std::uint64_t>(kAt + 0x100 - 8, 0xaaaa);
  ASSERT_TRUE(machine.run({0xc8, 0x20, 0x00, 0x02}).ok());  // enter 32, 2
  const std::uint64_t frame = FlatMachine::kStackTop - 8;
  EXPECT_EQ(machine.cpu.gpr[kRbp], frame);
  EXPECT_EQ(machine.cpu.gpr[kRsp], frame - 16 - 32);
  EXPECT_EQ(machine.get<std::uint64_t>(frame), kAt + 0x100);
  EXPECT_EQ(machine.get<std::uint64_t>(frame - 8), 0xaaaaU);
  EXPECT_EQ(machine.get<std::uint64_t>(frame - 16), frame);
  machine.absent.insert((FlatMachine::kStackTop - 0x5000) >> 12);
}

TEST(Legacy, EnterThatFaultsHasPushed) {
  struct Case {
    std::uint8_t level;
    unsigned pushed;  ///< Words in memory when the locals turn out to have no room.
  };
  for (const auto& [level, pushed] : {Case{0, 1}, Case{1, 2}, Case{3, 4}}) {
    FlatMachine machine(Mode::Long64);
    machine.cpu.gpr[kRbp] = kAt + 0x100;
    for (unsigned i = 1; i <= 4; ++i) machine.put<std::uint64_t>(kAt + 0x100 - 8 * i, 0xaaa0 + i);
    machine.absent.insert((FlatMachine::kStackTop - 0x5000) >> 12);
    EXPECT_TRUE(machine.run({0xc8, 0x80, 0x4f, level}).is(Vector::PageFault, 2));
    const std::uint64_t frame = FlatMachine::kStackTop - 8;
    for (unsigned i = 0; i < 5; ++i) {
      const std::uint64_t expected = i >= pushed ? 0 : i == 0 ? kAt + 0x100 : i == pushed - 1 ? frame : 0xaaa0 + i;
      EXPECT_EQ(machine.get<std::uint64_t>(frame - 8 * i), expected) << "level " << int{level} << " word " << i;
    }
    EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop);
    EXPECT_EQ(machine.cpu.gpr[kRbp], kAt + 0x100);
    EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt);
  }
}

}  // namespace
}  // namespace vm_platform::soft
