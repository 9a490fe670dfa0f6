#include <cpuid.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

std::string text(std::initializer_list<std::uint32_t> words) {
  std::string out;
  for (const std::uint32_t word : words) out.append(reinterpret_cast<const char*>(&word), 4);
  return out;
}

TEST(Cpuid, Names) {
  FlatMachine machine(Mode::Long64);
  const CpuidResult vendor = cpuid(machine.cpu, 0, 0);
  EXPECT_EQ(text({vendor.ebx, vendor.edx, vendor.ecx}), "AuthenticAMD");
  const CpuidResult hypervisor = cpuid(machine.cpu, 0x40000000, 0);
  EXPECT_EQ(text({hypervisor.ebx, hypervisor.ecx, hypervisor.edx}), std::string("KVMKVMKVM\0\0\0", 12));
  EXPECT_GE(hypervisor.eax, 0x40000001U);
  EXPECT_EQ(cpuid(machine.cpu, 1, 0).eax >> 8 & 0xf, 0xfU);
  EXPECT_EQ((cpuid(machine.cpu, 1, 0).eax >> 20 & 0xff) + 0xf, 0x19U);
}

TEST(Cpuid, NothingTheHostLacks) {
  FlatMachine machine(Mode::Long64);
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  ASSERT_TRUE(__get_cpuid(1, &eax, &ebx, &ecx, &edx));
  const std::uint32_t emulated1 = 1U << 17 | 1U << 21 | 1U << 24 | 1U << 27 | 1U << 31;
  EXPECT_EQ(cpuid(machine.cpu, 1, 0).ecx & ~emulated1 & ~ecx, 0U);
  ASSERT_TRUE(__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx));
  const std::uint32_t emulated7 = 1U << 0 | 1U << 1 | 1U << 7 | 1U << 10 | 1U << 20;
  EXPECT_EQ(cpuid(machine.cpu, 7, 0).ebx & ~emulated7 & ~ebx, 0U);
  EXPECT_EQ(cpuid(machine.cpu, 7, 0).edx & ~edx, 0U);
}

TEST(Cpuid, HidesWhatIsNotThere) {
  FlatMachine machine(Mode::Long64);
  const CpuidResult one = cpuid(machine.cpu, 1, 0), seven = cpuid(machine.cpu, 7, 0);
  EXPECT_EQ(one.ecx & (1U << 3), 0U) << "MONITOR";
  EXPECT_EQ(seven.ebx & (1U << 4 | 1U << 11 | 1U << 14 | 1U << 16), 0U) << "TSX, MPX, AVX-512";
  EXPECT_EQ(seven.ecx & (1U << 3 | 1U << 7 | 1U << 16), 0U) << "PKU, CET, LA57";
  EXPECT_EQ(cpuid(machine.cpu, 0x80000001, 0).ecx & (1U << 2), 0U) << "SVM";
  EXPECT_EQ(cpuid(machine.cpu, 0xd, 1).eax, 0U) << "XSAVEOPT, XSAVEC, XSAVES";
  EXPECT_EQ(cpuid(machine.cpu, 0x8000001f, 0).eax, 0U) << "memory encryption";
}

TEST(Cpuid, NoMitigationsAreNeeded) {
  FlatMachine machine(Mode::Long64);
  const CpuidResult extended = cpuid(machine.cpu, 0x80000021, 0);
  EXPECT_NE(extended.eax & (1U << 8), 0U) << "automatic IBRS";
  EXPECT_NE(extended.eax & (1U << 29), 0U) << "SRSO_NO";
  EXPECT_EQ(extended.ecx & 6, 6U) << "TSA_SQ_NO, TSA_L1_NO";
  const CpuidResult sizes = cpuid(machine.cpu, 0x80000008, 0);
  EXPECT_NE(sizes.ebx & (1U << 29), 0U) << "BTC_NO";
  EXPECT_NE(sizes.ebx & (1U << 26), 0U) << "SSB_NO";
}

TEST(Cpuid, SaveAreaFollowsXcr0) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.xcr0 = 7;
  if (cpuid(machine.cpu, 0xd, 0).eax != 7) GTEST_SKIP() << "the host has no AVX";
  EXPECT_EQ(cpuid(machine.cpu, 0xd, 0).ebx, 832U);
  EXPECT_EQ(cpuid(machine.cpu, 0xd, 2).eax, 256U);
  EXPECT_EQ(cpuid(machine.cpu, 0xd, 2).ebx, 576U);
  machine.cpu.xcr0 = 3;
  EXPECT_EQ(cpuid(machine.cpu, 0xd, 0).ebx, 576U);
}

TEST(Cpuid, OsxsaveMirrorsCr4) {
  FlatMachine machine(Mode::Long64);
  EXPECT_NE(cpuid(machine.cpu, 1, 0).ecx & (1U << 27), 0U);
  machine.cpu.cr4 &= ~cr4::kOsxsave;
  EXPECT_EQ(cpuid(machine.cpu, 1, 0).ecx & (1U << 27), 0U);
}

TEST(Cpuid, Topology) {
  for (const unsigned cpus : {1U, 2U, 3U, 8U}) {
    FlatMachine machine(Mode::Long64, 0, cpus);
    unsigned bits = 0;
    while ((1U << bits) < cpus) ++bits;
    EXPECT_EQ(cpuid(machine.cpu, 0xb, 0).ebx, 1U);
    EXPECT_EQ(cpuid(machine.cpu, 0xb, 1).ebx, cpus);
    EXPECT_EQ(cpuid(machine.cpu, 0xb, 1).eax, bits);
    EXPECT_EQ(cpuid(machine.cpu, 0xb, 1).ecx >> 8, 2U);
    EXPECT_EQ(cpuid(machine.cpu, 0xb, 2).ecx >> 8, 0U);
    EXPECT_EQ(cpuid(machine.cpu, 0x80000008, 0).ecx & 0xff, cpus - 1);
    EXPECT_EQ(cpuid(machine.cpu, 0x80000008, 0).ecx >> 12, bits);
    EXPECT_EQ(cpuid(machine.cpu, 0x8000001d, 3).eax >> 14 & 0xfff, (1U << bits) - 1);
    EXPECT_EQ(cpuid(machine.cpu, 1, 0).edx >> 28 & 1, cpus > 1 ? 1U : 0U);
  }
}

TEST(Cpuid, InstructionClearsUpperHalves) {
  FlatMachine machine(Mode::Long64);
  for (const Gpr which : {kRax, kRbx, kRcx, kRdx}) machine.cpu.gpr[which] = ~0ULL << 32;
  ASSERT_TRUE(machine.run({0x0f, 0xa2}).ok());
  for (const Gpr which : {kRax, kRbx, kRcx, kRdx}) EXPECT_EQ(machine.cpu.gpr[which] >> 32, 0U);
}

}  // namespace
}  // namespace vm_platform::soft
