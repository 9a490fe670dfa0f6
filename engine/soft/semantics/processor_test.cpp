#include <gtest/gtest.h>

#include "engine/soft/semantics/dispatch.hpp"
#include "engine/soft/semantics/flat_machine.hpp"
#include "engine/soft/semantics/msr.hpp"

namespace vm_platform::soft {
namespace {

TEST(Processor, TimeStampCounter) {
  FlatMachine machine(Mode::Long64, 3);
  const std::uint64_t before = guest_tsc(machine.cpu);
  machine.cpu.tsc_aux = 0x1002;
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0xf9}).ok());  // rdtscp
  const std::uint64_t read = machine.cpu.gpr[kRdx] << 32 | machine.cpu.gpr[kRax];
  EXPECT_GE(read, before);
  EXPECT_LE(read, guest_tsc(machine.cpu));
  EXPECT_EQ(machine.cpu.gpr[kRcx], 0x1002U);
  machine.cpu.cr4 |= cr4::kTsd;
  EXPECT_TRUE(machine.run_checked({0x0f, 0x31}).is(Vector::GeneralProtection, 0));
  machine.cpu.cpl = 0;
  EXPECT_TRUE(machine.run({0x0f, 0x31}).ok());
  ASSERT_TRUE(machine.run({0xf3, 0x0f, 0xc7, 0xf8}).ok());  // rdpid rax
  EXPECT_EQ(machine.cpu.gpr[kRax], 0x1002U);
}

TEST(Processor, Halt) {
  FlatMachine machine(Mode::Long64);
  ASSERT_TRUE(machine.run({0xf4}).ok());
  EXPECT_TRUE(machine.cpu.halted);
  EXPECT_EQ(machine.cpu.rip, FlatMachine::kCodeAt + 1);
}

TEST(Processor, RandomNumbers) {
  FlatMachine machine(Mode::Long64);
  if ((cpuid(machine.cpu, 1, 0).ecx & (1U << 30)) == 0) GTEST_SKIP() << "the host has no RDRAND";
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 8; ++i) {
    machine.cpu.gpr[kRax] = ~0ULL;
    ASSERT_TRUE(machine.run({0x0f, 0xc7, 0xf0}).ok());  // rdrand eax
    EXPECT_EQ(machine.cpu.gpr[kRax] >> 32, 0U);
    if ((machine.cpu.arithmetic_flags & rflags::kCarry) != 0) seen.insert(machine.cpu.gpr[kRax]);
  }
  EXPECT_GT(seen.size(), 4U);
}

TEST(Processor, Undefined) {
  const std::initializer_list<std::uint8_t> cases[] = {{0x0f, 0x0b},
                                                       {0x0f, 0xb9, 0xc0},
                                                       {0x0f, 0xff, 0xc0},
                                                       {0x0f, 0x01, 0xc8} /* monitor */,
                                                       {0x0f, 0x01, 0xc9} /* mwait */,
                                                       {0x0f, 0x01, 0xd8} /* vmrun */,
                                                       {0x0f, 0x01, 0xee} /* rdpkru */};
  for (const auto& bytes : cases) {
    FlatMachine machine(Mode::Long64);
    EXPECT_TRUE(machine.run_checked(bytes).is(Vector::InvalidOpcode)) << int{std::data(bytes)[2 % bytes.size()]};
  }
}

TEST(Processor, PerformanceCountersAreNotThere) {
  FlatMachine machine(Mode::Long64);
  EXPECT_TRUE(machine.run_checked({0x0f, 0x33}).is(Vector::GeneralProtection, 0));
}

TEST(Processor, UnknownHypercall) {
  FlatMachine machine(Mode::Long64);
  ASSERT_TRUE(machine.run({0x0f, 0x01, 0xd9}).ok());
  EXPECT_EQ(static_cast<std::int64_t>(machine.cpu.gpr[kRax]), -1000);
}

TEST(Processor, ResetState) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.lstar = 1;
  machine.cpu.init_reset();
  EXPECT_EQ(machine.cpu.lstar, 1U) << "INIT keeps MSRs";
  EXPECT_TRUE(machine.cpu.real_mode());
  machine.cpu.reset();
  EXPECT_EQ(machine.cpu.lstar, 0U);
  EXPECT_EQ(machine.cpu.segments[kCs].base + machine.cpu.rip, 0xfffffff0U);
  EXPECT_EQ(machine.cpu.cr0, 0x60000010U);
  EXPECT_EQ(machine.cpu.flags(), 2U);
  EXPECT_EQ(machine.cpu.gpr[kRdx], cpuid(machine.cpu, 1, 0).eax);
  EXPECT_EQ(machine.cpu.idtr.limit, 0xffff);
}

TEST(Ports, InAndOut) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRax] = ~0ULL;
  machine.cpu.gpr[kRdx] = 0x503;
  ASSERT_TRUE(machine.run({0xec}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRax], ~0ULL << 8 | 0x11);
  ASSERT_TRUE(machine.run({0xed}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRax], 0x12U) << "32-bit results clear the upper half";
  ASSERT_TRUE(machine.run({0xef}).ok());
  EXPECT_EQ(machine.device.writes, (std::vector<EchoDevice::Write>{{0x503, 4, 0x12}}));
  ASSERT_TRUE(machine.run({0xe4, 0x80}).ok());
  EXPECT_EQ(machine.cpu.gpr[kRax], 0xffU) << "nobody there";
}

TEST(Ports, PermissionBitmap) {
  FlatMachine machine(Mode::Long64, 3);
  machine.cpu.gpr[kRdx] = 0x507;
  EXPECT_TRUE(machine.run_checked({0xec}).is(Vector::GeneralProtection, 0)) << "no bitmap";
  machine.cpu.tr.limit = 0x68 + 0xa1;
  for (unsigned i = 0; i < 0xa2; ++i) machine.put<std::uint8_t>(FlatMachine::kTss + 0x68 + i, 0xff);
  machine.put<std::uint8_t>(FlatMachine::kTss + 0x68 + 0xa0, 0x7f);  // 507h only
  EXPECT_TRUE(machine.run_checked({0xec}).ok());
  EXPECT_TRUE(machine.run_checked({0x66, 0xed}).is(Vector::GeneralProtection, 0)) << "507h and 508h";
  machine.cpu.gpr[kRdx] = 0x506;
  EXPECT_TRUE(machine.run_checked({0xec}).is(Vector::GeneralProtection, 0));
  machine.cpu.gpr[kRdx] = 0x507;
  machine.cpu.tr.limit = 0x68 + 0xa0;
  EXPECT_TRUE(machine.run_checked({0xec}).is(Vector::GeneralProtection, 0)) << "the bitmap's last byte is missing";
  machine.cpu.system_flags |= rflags::kIoplMask;
  EXPECT_TRUE(machine.run_checked({0xec}).ok());
}

TEST(Groups, EachMnemonicHasOneRow) {
  std::map<ZydisMnemonic, std::string_view> seen;
  for (const Group& group : groups()) {
    EXPECT_FALSE(group.rows.empty());
    for (const Row& row : group.rows) {
      const auto [place, fresh] = seen.try_emplace(row.mnemonic, group.name);
      EXPECT_TRUE(fresh) << ZydisMnemonicGetString(row.mnemonic) << " in " << place->second << " and " << group.name;
      EXPECT_TRUE(is_described(row.mnemonic));
    }
  }
}

TEST(Groups, NamedTestsExist) {
  const auto& unit = *testing::UnitTest::GetInstance();
  std::set<std::string> suites;
  for (int i = 0; i < unit.total_test_suite_count(); ++i) suites.insert(unit.GetTestSuite(i)->name());
  for (const Group& group : groups()) EXPECT_TRUE(suites.contains(std::string(group.test))) << group.test;
}

TEST(Groups, FormsOfSharedMnemonics) {
  FlatMachine machine(Mode::Long64);
  // movsd xmm0, xmm1; mov eax, ebx; push rax; call rax; ret: the translator's own
  const std::initializer_list<std::uint8_t> cases[] = {
      {0xf2, 0x0f, 0x10, 0xc1}, {0x89, 0xd8}, {0x50}, {0xff, 0xd0}, {0xc3}};
  for (const auto& bytes : cases) {
    const auto instruction = decode(std::data(bytes), bytes.size(), 0, CodeSize::Bits64);
    ASSERT_TRUE(instruction);
    EXPECT_FALSE(is_described(*instruction));
    EXPECT_TRUE(machine.run_checked(bytes).is(Vector::InvalidOpcode));
  }
}

}  // namespace
}  // namespace vm_platform::soft
