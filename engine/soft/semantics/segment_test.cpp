#include <gtest/gtest.h>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

struct Load {
  const char* name;
  unsigned cpl;
  std::uint16_t selector;
  Vector vector;
  std::uint32_t code;
};

TEST(Segments, LoadingDataFaults) {
  const Load cases[] = {
      {"beyond the GDT", 0, 0x7f8, Vector::GeneralProtection, 0x7f8},
      {"no LDT", 0, 0x0c, Vector::GeneralProtection, 0x0c},
      {"more privileged", 3, kData0, Vector::GeneralProtection, kData0},
      {"RPL below DPL", 0, kData0 | 3, Vector::GeneralProtection, kData0},
      {"absent", 0, kAbsentData, Vector::SegmentNotPresent, kAbsentData},
      {"a TSS", 0, kTaskState, Vector::GeneralProtection, kTaskState},
  };
  for (const Load& test : cases) {
    SCOPED_TRACE(test.name);
    FlatMachine machine(Mode::Long64, test.cpl);
    machine.cpu.gpr[kRax] = test.selector;
    EXPECT_TRUE(machine.run_checked({0x8e, 0xd8}).is(test.vector, test.code));  // mov ds, eax
  }
}

TEST(Segments, LoadingStackFaults) {
  const Load cases[] = {
      {"read-only", 0, kReadOnly, Vector::GeneralProtection, kReadOnly},
      {"other privilege", 0, kUserData | 3, Vector::GeneralProtection, kUserData},
      {"absent", 0, kAbsentData, Vector::StackFault, kAbsentData},
      {"null with CPL 3", 3, 3, Vector::GeneralProtection, 0},
  };
  for (const Load& test : cases) {
    SCOPED_TRACE(test.name);
    FlatMachine machine(Mode::Long64, test.cpl);
    machine.cpu.gpr[kRax] = test.selector;
    EXPECT_TRUE(machine.run_checked({0x8e, 0xd0}).is(test.vector, test.code));  // mov ss, eax
  }
}

TEST(Segments, LoadingSetsAccessedAndShadow) {
  FlatMachine machine(Mode::Long64);
  machine.set_descriptor(kData0, 0x00cf92000000ffff);
  machine.cpu.gpr[kRax] = kData0;
  ASSERT_TRUE(machine.run({0x8e, 0xd0}).ok());
  EXPECT_EQ(machine.get<std::uint8_t>(FlatMachine::kGdt + kData0 + 5), 0x93);
  EXPECT_TRUE(machine.cpu.interrupt_shadow);
  EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt + 2);
}

TEST(Segments, NullSelectorClearsBase) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.segments[kFs].base = 0x1234;
  machine.cpu.gpr[kRax] = 0;
  ASSERT_TRUE(machine.run({0x8e, 0xe0}).ok());
  EXPECT_EQ(machine.cpu.segments[kFs].base, 0U);
}

TEST(Segments, StoreIsAsWideAsTheRegister) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRax] = ~0ULL;
  ASSERT_TRUE(machine.run({0x8c, 0xd8}).ok());  // mov eax, ds
  EXPECT_EQ(machine.cpu.gpr[kRax], kData0);
  machine.cpu.gpr[kRbx] = FlatMachine::kData;
  machine.put(FlatMachine::kData, ~0ULL);
  ASSERT_TRUE(machine.run({0x8c, 0x1b}).ok());  // mov [rbx], ds
  EXPECT_EQ(machine.get<std::uint64_t>(FlatMachine::kData), 0xffffffffffff0000 | kData0);
}

TEST(Segments, PushPop) {
  FlatMachine machine(Mode::Long64);
  ASSERT_TRUE(machine.run({0x0f, 0xa0}).ok());  // push fs
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop - 8);
  EXPECT_EQ(machine.get<std::uint64_t>(FlatMachine::kStackTop - 8), kData0);
  ASSERT_TRUE(machine.run({0x0f, 0xa9}).ok());  // pop gs
  EXPECT_EQ(machine.cpu.segments[kGs].selector, kData0);
  EXPECT_EQ(machine.cpu.gpr[kRsp], FlatMachine::kStackTop);
  machine.put<std::uint64_t>(FlatMachine::kStackTop, 0x7f8);
  EXPECT_TRUE(machine.run_checked({0x0f, 0xa9}).is(Vector::GeneralProtection, 0x7f8));
}

TEST(Segments, FarPointerLoads) {
  FlatMachine machine(Mode::Protected32);
  machine.cpu.gpr[kRbx] = FlatMachine::kData;
  machine.put<std::uint32_t>(FlatMachine::kData, 0x89abcdef);
  machine.put<std::uint16_t>(FlatMachine::kData + 4, kUserData);
  ASSERT_TRUE(machine.run({0xc4, 0x03}).ok());  // les eax, [ebx]
  EXPECT_EQ(machine.cpu.gpr[kRax], 0x89abcdefU);
  EXPECT_EQ(machine.cpu.segments[kEs].selector, kUserData);
  machine.put<std::uint16_t>(FlatMachine::kData + 4, kAbsentData);
  EXPECT_TRUE(machine.run_checked({0x0f, 0xb2, 0x03}).is(Vector::StackFault, kAbsentData));  // lss
}

TEST(Segments, SwapgsAndBases) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.kernel_gs_base = 0xffff888000000000;
  machine.cpu.segments[kGs].base = 0x1000;
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0xf8}).ok());
  EXPECT_EQ(machine.cpu.segments[kGs].base, 0xffff888000000000);
  EXPECT_EQ(machine.cpu.kernel_gs_base, 0x1000U);
  EXPECT_TRUE(machine.run_checked({0xf3, 0x48, 0x0f, 0xae, 0xc0}).is(Vector::InvalidOpcode));  // CR4.FSGSBASE clear
  machine.cpu.cr4 |= cr4::kFsgsbase;
  machine.cpu.gpr[kRax] = 0x800000000000;
  EXPECT_TRUE(machine.run_checked({0xf3, 0x48, 0x0f, 0xae, 0xd0}).is(Vector::GeneralProtection, 0));  // wrfsbase rax
  machine.cpu.gpr[kRax] = 0xffff800000000000;
  ASSERT_TRUE(machine.run({0xf3, 0x48, 0x0f, 0xae, 0xd0}).ok());
  ASSERT_TRUE(machine.run({0xf3, 0x48, 0x0f, 0xae, 0xc3}).ok());  // rdfsbase rbx
  EXPECT_EQ(machine.cpu.gpr[kRbx], 0xffff800000000000);
  FlatMachine user(Mode::Long64, 3);
  EXPECT_TRUE(user.run_checked({0x0f, 0x01, 0xf8}).is(Vector::GeneralProtection, 0));
}

TEST(Segments, LinearAddress) {
  struct Case {
    const char* name;
    Mode mode;
    SegmentRegister segment;
    std::uint64_t base;
    std::uint32_t limit;
    std::uint16_t attributes;
    std::uint64_t offset;
    std::size_t size;
    bool write;
    std::optional<Vector> fault;
    std::uint64_t linear;
  };
  constexpr std::uint16_t kFlat = 0xc093, kDown = 0xc097, kDown16 = 0x0097, kExecuteOnly = 0xc099, kReadable = 0xc09b;
  const Vector gp = Vector::GeneralProtection, ss = Vector::StackFault;
  const Case cases[] = {
      {"last byte", Mode::Protected32, kDs, 0x1000, 0xff, kFlat, 0xfc, 4, false, {}, 0x10fc},
      {"past the limit", Mode::Protected32, kDs, 0x1000, 0xff, kFlat, 0xfd, 4, false, gp, 0},
      {"stack past the limit", Mode::Protected32, kSs, 0x1000, 0xff, kFlat, 0xfd, 4, false, ss, 0},
      {"expand-down below", Mode::Protected32, kDs, 0, 0xfff, kDown, 0xfff, 1, false, gp, 0},
      {"expand-down above", Mode::Protected32, kDs, 0, 0xfff, kDown, 0x1000, 4, true, {}, 0x1000},
      {"expand-down 16-bit top", Mode::Protected32, kDs, 0, 0xfff, kDown16, 0xfffd, 4, true, gp, 0},
      {"write to code", Mode::Protected32, kCs, 0, 0xffffffff, kReadable, 0, 1, true, gp, 0},
      {"read execute-only", Mode::Protected32, kCs, 0, 0xffffffff, kExecuteOnly, 0, 1, false, gp, 0},
      {"unusable", Mode::Protected32, kDs, 0, 0xffffffff, Segment::kUnusable, 0, 1, false, gp, 0},
      {"wraps at 4 GiB", Mode::Protected32, kDs, 0xfffff000, 0xffffffff, kFlat, 0x2000, 1, false, {}, 0x1000},
      {"real mode past 64 KiB", Mode::Real, kDs, 0x100, 0xffff, 0x93, 0xffff, 2, false, gp, 0},
      {"64-bit ignores DS", Mode::Long64, kDs, 0x1000, 0, Segment::kUnusable, 0x5000, 8, true, {}, 0x5000},
      {"64-bit FS base", Mode::Long64, kFs, 0x1000, 0, Segment::kUnusable, 0x5000, 8, true, {}, 0x6000},
      {"non-canonical", Mode::Long64, kDs, 0, 0, kFlat, 0x800000000000, 1, false, gp, 0},
      {"non-canonical stack", Mode::Long64, kSs, 0, 0, kFlat, 0x7ffffffffff9, 8, false, ss, 0},
      {"canonical top", Mode::Long64, kDs, 0, 0, kFlat, 0x7ffffffffff8, 8, false, {}, 0x7ffffffffff8},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FlatMachine machine(test.mode);
    Segment& segment = machine.cpu.segments[test.segment];
    segment = {test.base, test.limit, 8,
               test.mode == Mode::Long64 && test.segment == kCs ? segment.attributes : test.attributes};
    std::optional<Vector> fault;
    std::uint64_t linear = 0;
    try {
      linear = linear_address(machine.cpu, test.segment, test.offset, test.size, test.write);
    } catch (const GuestFault& raised) {
      fault = raised.vector;
      EXPECT_EQ(raised.error_code, 0U);
    }
    EXPECT_EQ(fault, test.fault);
    EXPECT_EQ(linear, test.linear);
  }
}

}  // namespace
}  // namespace vm_platform::soft
