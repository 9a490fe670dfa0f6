#include <gtest/gtest.h>

#include "engine/soft/semantics/breakpoints.hpp"
#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

const std::initializer_list<std::uint8_t> kMovCr0 = {0x0f, 0x22, 0xc0}, kMovCr3 = {0x0f, 0x22, 0xd8},
                                          kMovCr4 = {0x0f, 0x22, 0xe0}, kMovCr8 = {0x44, 0x0f, 0x22, 0xc0};

struct Write {
  const char* name;
  std::initializer_list<std::uint8_t> bytes;
  std::uint64_t value;
  bool good;
};

TEST(Control, WritesInLongMode) {
  const Write cases[] = {
      {"CR0 high bits", kMovCr0, 1ULL << 32 | 0x80000011, false},
      {"CR0 paging without protection", kMovCr0, 0x80000010, false},
      {"CR0 NW without CD", kMovCr0, 0xa0000011, false},
      {"CR0 paging off in 64-bit code", kMovCr0, 0x11, false},
      {"CR0 as Linux has it", kMovCr0, 0x80050033, true},
      {"CR3 beyond the physical width", kMovCr3, 1ULL << 46, false},
      {"CR3 bit 63 without PCID", kMovCr3, 1ULL << 63 | 0x1000, false},
      {"CR3", kMovCr3, 0x1018, true},
      {"CR4 without PAE", kMovCr4, cr4::kPge, false},
      {"CR4 LA57", kMovCr4, cr4::kPae | cr4::kLa57, false},
      {"CR4 VMXE", kMovCr4, cr4::kPae | 1 << 13, false},
      {"CR4 PKE", kMovCr4, cr4::kPae | 1 << 22, false},
      {"CR4 as Linux has it", kMovCr4,
       cr4::kPae | cr4::kPge | cr4::kPse | cr4::kSmep | cr4::kSmap | cr4::kUmip | cr4::kOsxsave | cr4::kOsfxsr |
           cr4::kOsxmmexcpt | cr4::kPcide | cr4::kFsgsbase,
       true},
      {"CR8 beyond 15", kMovCr8, 16, false},
      {"CR8", kMovCr8, 9, true},
  };
  for (const Write& test : cases) {
    SCOPED_TRACE(test.name);
    FlatMachine machine(Mode::Long64);
    machine.cpu.gpr[kRax] = test.value;
    const Outcome outcome = machine.run_checked(test.bytes);
    EXPECT_EQ(outcome.ok(), test.good);
    if (!test.good) {
      EXPECT_TRUE(outcome.is(Vector::GeneralProtection, 0));
    }
  }
}

TEST(Control, PcidKeepsTranslationsOnRequest) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.cr4 |= cr4::kPcide;
  machine.cpu.gpr[kRax] = 1ULL << 63 | 0x5007;
  ASSERT_TRUE(machine.run(kMovCr3).ok());
  EXPECT_EQ(machine.cpu.cr3, 0x5007U);
  EXPECT_EQ(machine.address_spaces, 1U);
  // PCIDs may only be turned on while the current one is 0.
  machine.cpu.cr4 &= ~cr4::kPcide;
  machine.cpu.gpr[kRax] = machine.cpu.cr4 | cr4::kPcide;
  EXPECT_TRUE(machine.run_checked(kMovCr4).is(Vector::GeneralProtection, 0));
}

TEST(Control, EnteringAndLeavingLongMode) {
  FlatMachine machine(Mode::Protected32);
  machine.cpu.cr0 &= ~cr0::kPaging;
  machine.cpu.efer = efer::kLongModeEnable;
  machine.cpu.gpr[kRax] = machine.cpu.cr0 | cr0::kPaging;
  machine.cpu.cr4 &= ~cr4::kPae;
  EXPECT_TRUE(machine.run_checked(kMovCr0).is(Vector::GeneralProtection, 0));
  machine.cpu.cr4 |= cr4::kPae;
  ASSERT_TRUE(machine.run(kMovCr0).ok());
  EXPECT_TRUE(machine.cpu.long_mode());
  EXPECT_FALSE(machine.cpu.in_64bit());
  EXPECT_EQ(machine.full_flushes, 2U) << "once at reset, once now";
  machine.cpu.gpr[kRax] = machine.cpu.cr0 & ~cr0::kPaging;
  ASSERT_TRUE(machine.run(kMovCr0).ok());
  EXPECT_FALSE(machine.cpu.long_mode());
}

TEST(Control, UserModeMayNot) {
  const std::initializer_list<std::uint8_t> cases[] = {
      kMovCr0,      {0x0f, 0x20, 0xc0}, {0x0f, 0x21, 0xc0}, {0x0f, 0x06}, {0x0f, 0x01, 0x38}, {0x0f, 0x09},
      {0x0f, 0x08}, {0x0f, 0x01, 0xf0}, {0x0f, 0x01, 0xd1}, {0xf4},       {0x0f, 0x30},       {0x0f, 0x32},
  };
  for (const auto& bytes : cases) {
    FlatMachine machine(Mode::Long64, 3);
    EXPECT_TRUE(machine.run_checked(bytes).is(Vector::GeneralProtection, 0)) << int{std::data(bytes)[1]};
  }
}

TEST(Control, DebugRegisters) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRax] = 0xffffffff;
  ASSERT_TRUE(machine.run({0x0f, 0x23, 0xf0}).ok());  // mov dr6, rax
  EXPECT_EQ(machine.cpu.dr6, 0xffffefffU);
  machine.cpu.gpr[kRax] = 1ULL << 32;
  EXPECT_TRUE(machine.run_checked({0x0f, 0x23, 0xf8}).is(Vector::GeneralProtection, 0));  // mov dr7, rax
  ASSERT_TRUE(machine.run({0x0f, 0x21, 0xe3}).ok());                                      // mov rbx, dr4 is DR6
  EXPECT_EQ(machine.cpu.gpr[kRbx], machine.cpu.dr6);
  machine.cpu.cr4 |= cr4::kDe;
  EXPECT_TRUE(machine.run_checked({0x0f, 0x21, 0xe3}).is(Vector::InvalidOpcode));
  machine.cpu.dr7 |= 1 << 13;
  const Outcome outcome = machine.run_checked({0x0f, 0x21, 0xc3});
  EXPECT_TRUE(outcome.is(Vector::Debug));
  EXPECT_EQ(outcome.fault->dr6_bits, 1U << 13);
}

TEST(Control, Breakpoints) {
  FlatMachine machine(Mode::Long64);
  Cpu& cpu = machine.cpu;
  EXPECT_FALSE(has_breakpoints(cpu));
  cpu.debug_address[0] = 0x1000, cpu.debug_address[1] = 0x2004, cpu.debug_address[2] = 0x3008,
  cpu.debug_address[3] = 0x80;
  // 0: execution, 1: writes of 4 bytes, 2: reads and writes of 8 bytes, 3: port, 1 byte
  cpu.dr7 = 0x400 | 0x55 | 0x0ULL << 16 | 0xdULL << 20 | 0xbULL << 24 | 0x2ULL << 28;
  EXPECT_EQ(instruction_breakpoints(cpu, 0x1000), 1U);
  EXPECT_EQ(instruction_breakpoints(cpu, 0x0fff), 0U);
  EXPECT_EQ(data_breakpoints(cpu, 0x1000, 8, true), 0U);
  EXPECT_EQ(data_breakpoints(cpu, 0x2007, 1, true), 2U);
  EXPECT_EQ(data_breakpoints(cpu, 0x2007, 1, false), 0U);
  EXPECT_EQ(data_breakpoints(cpu, 0x2001, 4, true), 2U) << "reaches into it";
  EXPECT_EQ(data_breakpoints(cpu, 0x2000, 4, true), 0U);
  EXPECT_EQ(data_breakpoints(cpu, 0x2008, 4, true), 0U);
  EXPECT_EQ(data_breakpoints(cpu, 0x300f, 1, false), 4U);
  EXPECT_EQ(data_breakpoints(cpu, 0x2000, 0x2000, true), 6U);
  EXPECT_EQ(port_breakpoints(cpu, 0x80, 1), 0U) << "without CR4.DE";
  cpu.cr4 |= cr4::kDe;
  EXPECT_EQ(port_breakpoints(cpu, 0x7e, 4), 8U);
  cpu.dr7 = 0x400 | 0xfULL << 20;
  EXPECT_FALSE(has_breakpoints(cpu)) << "conditions alone enable nothing";
  EXPECT_EQ(data_breakpoints(cpu, 0x2004, 4, true), 0U);
}

TEST(Control, Invlpg) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRax] = 0xffff888000123456;
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0x38}).ok());
  EXPECT_EQ(machine.flushed_pages, std::vector<std::uint64_t>{0xffff888000123456});
}

TEST(Control, Invpcid) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRbx] = FlatMachine::kData;
  machine.put<std::uint64_t>(FlatMachine::kData, 0);
  machine.put<std::uint64_t>(FlatMachine::kData + 8, 0x7000);
  machine.cpu.gpr[kRax] = 0;
  const std::initializer_list<std::uint8_t> invpcid = {0x66, 0x0f, 0x38, 0x82, 0x03};
  ASSERT_TRUE(machine.run(invpcid).ok());
  EXPECT_EQ(machine.flushed_pages, std::vector<std::uint64_t>{0x7000});
  machine.cpu.gpr[kRax] = 4;
  EXPECT_TRUE(machine.run_checked(invpcid).is(Vector::GeneralProtection, 0));
  machine.cpu.gpr[kRax] = 0;
  machine.put<std::uint64_t>(FlatMachine::kData, 5);  // a PCID while they are off
  EXPECT_TRUE(machine.run_checked(invpcid).is(Vector::GeneralProtection, 0));
}

TEST(Control, Xcr0) {
  FlatMachine machine(Mode::Long64);
  const std::initializer_list<std::uint8_t> xsetbv = {0x0f, 0x01, 0xd1};
  machine.cpu.gpr[kRcx] = machine.cpu.gpr[kRdx] = 0;
  for (const std::uint64_t bad : {0ULL, 2ULL, 5ULL, 0xe7ULL, 0x207ULL}) {
    machine.cpu.gpr[kRax] = bad;
    EXPECT_TRUE(machine.run_checked(xsetbv).is(Vector::GeneralProtection, 0)) << bad;
  }
  machine.cpu.gpr[kRax] = 3;
  ASSERT_TRUE(machine.run(xsetbv).ok());
  EXPECT_EQ(machine.cpu.xcr0, 3U);
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0xd0}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRax], 3U);
  machine.cpu.cr4 &= ~cr4::kOsxsave;
  EXPECT_TRUE(machine.run_checked({0x0f, 0x01, 0xd0}).is(Vector::InvalidOpcode));
}

TEST(Control, MachineStatusWord) {
  FlatMachine machine(Mode::Real);
  machine.cpu.gpr[kRax] = 1;
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0xf0}).ok());  // lmsw ax
  EXPECT_FALSE(machine.cpu.real_mode());
  machine.cpu.gpr[kRax] = 8;
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0xf0}).ok());
  EXPECT_EQ(machine.cpu.cr0 & 0xf, 9U) << "PE stays";
  ASSERT_TRUE(machine.run({0x0f, 0x06}).ok());  // clts
  EXPECT_EQ(machine.cpu.cr0 & 0xf, 1U);
}

}  // namespace
}  // namespace vm_platform::soft
