#include "engine/soft/semantics/msr.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <ctime>

#include "engine/soft/semantics/flat_machine.hpp"
#include "engine/soft/semantics/kvm_clock.hpp"

namespace vm_platform::soft {
namespace {

Outcome wrmsr(FlatMachine& machine, std::uint32_t index, std::uint64_t value) {
  machine.cpu.gpr[kRcx] = index;
  machine.cpu.gpr[kRax] = value & 0xffffffff;
  machine.cpu.gpr[kRdx] = value >> 32;
  return machine.run_checked({0x0f, 0x30});
}
std::optional<std::uint64_t> rdmsr(FlatMachine& machine, std::uint32_t index) {
  machine.cpu.gpr[kRcx] = index;
  const Outcome outcome = machine.run_checked({0x0f, 0x32});
  if (outcome.ok()) return machine.cpu.gpr[kRdx] << 32 | machine.cpu.gpr[kRax];
  EXPECT_TRUE(outcome.is(Vector::GeneralProtection, 0));
  return std::nullopt;
}

TEST(Msr, Storage) {
  FlatMachine machine(Mode::Long64);
  const std::pair<std::uint32_t, std::uint64_t> cases[] = {
      {0xc0000081, 0x0023001000000000},
      {0xc0000082, 0xffffffff81000000},
      {0xc0000083, 0xffffffff81000040},
      {0xc0000084, 0x47700},
      {0xc0000100, 0x7fff12345678},
      {0xc0000101, 0xffff888000000000},
      {0xc0000102, 0xffff888000000000},
      {0xc0000103, 0x80000001},
      {0x174, 0x10},
      {0x175, 0xfffffe0000003000},
      {0x176, 0xffffffff82000000},
      {0x277, 0x0407050600070106},
      {0x2ff, 0xc00},
      {0x200, 0xc0000000},
      {0x20f, 0x3fffc0000800},
      {0x250, 0x0606060606060606},
      {0x26f, 0x0505050505050505},
      {0x1a0, 1},
      {0xc0010010, 0x160600},
      {0xc001001f, 1ULL << 46},
      {0xc0010015, 1 << 24},
      {0xc0011029, 3},
      {0x6e0, 0x1234567890},
      {0x830, 0xfd},
  };
  for (const auto& [index, value] : cases) {
    EXPECT_TRUE(wrmsr(machine, index, value).ok()) << std::hex << index;
    EXPECT_EQ(rdmsr(machine, index), value) << std::hex << index;
  }
}

TEST(Msr, Faults) {
  FlatMachine machine(Mode::Long64);
  const std::pair<std::uint32_t, std::uint64_t> writes[] = {
      {0xc0000082, 0x800000000000},  // non-canonical
      {0xc0000100, 0x800000000000},
      {0xc0000102, 1ULL << 63},
      {0xc0000080, 0x1000},          // EFER: SVME
      {0xc0000080, efer::kSyscall},  // LME cleared while paging is on
      {0x277, 2},                    // no such memory type
      {0x2ff, 0xc02},                // nor here
      {0x2ff, 0xd06},                // reserved
      {0x200, 3},
      {0x20e, 0x100106},
      {0x20e, 1ULL << 46 | 6},  // beyond the physical addresses there are
      {0x201, 0x400},
      {0x20f, 1ULL << 46 | 0x800},
      {0x250, 0x0606060602060606},
      {0x26f, 0x1e06060606060606},  // AMD's routing bits, which SYSCFG hides
      {0xfe, 0},                    // read-only
      {0x802, 0},
      {0xda0, 0},  // XSS: not offered
      {0x48, 0},   // SPEC_CTRL: not offered
      {0x12345678, 0},
  };
  for (const auto& [index, value] : writes) {
    EXPECT_TRUE(wrmsr(machine, index, value).is(Vector::GeneralProtection, 0)) << std::hex << index;
  }
  for (const std::uint32_t index : {0x48U, 0xdaU, 0x10aU, 0x12345678U, 0xc0000105U}) {
    EXPECT_EQ(rdmsr(machine, index), std::nullopt) << std::hex << index;
  }
}

TEST(Msr, EferKeepsLongModeActive) {
  FlatMachine machine(Mode::Long64);
  const std::uint64_t value = efer::kSyscall | efer::kLongModeEnable | efer::kNoExecute | efer::kAutoIbrs;
  ASSERT_TRUE(wrmsr(machine, 0xc0000080, value).ok());
  EXPECT_EQ(machine.cpu.efer, value | efer::kLongModeActive);
}

TEST(Msr, TimeStampCounter) {
  FlatMachine machine(Mode::Long64);
  ASSERT_TRUE(wrmsr(machine, 0x3b, 1'000'000'000'000).ok());
  EXPECT_EQ(rdmsr(machine, 0x3b), 1'000'000'000'000U);
  const std::uint64_t now = *rdmsr(machine, 0x10);
  EXPECT_GT(now, 1'000'000'000'000U);
  ASSERT_TRUE(wrmsr(machine, 0x10, 5000).ok());
  EXPECT_LT(*rdmsr(machine, 0x10), 1'000'000'000U);
  // The adjustment says how far the counter was moved from the machine's.
  EXPECT_NEAR(static_cast<double>(static_cast<std::int64_t>(*rdmsr(machine, 0x3b))),
              -static_cast<double>(machine.environment.tsc.now()), 1e9);
}

TEST(Msr, DeadlineFollowsTheAdjustment) {
  FlatMachine machine(Mode::Long64);
  ASSERT_TRUE(wrmsr(machine, 0x3b, 1000).ok());
  ASSERT_TRUE(wrmsr(machine, 0x6e0, 5000).ok());
  EXPECT_EQ(machine.controller.msrs[0x6e0], 4000U);
  EXPECT_EQ(rdmsr(machine, 0x6e0), 5000U);
  ASSERT_TRUE(wrmsr(machine, 0x6e0, 0).ok());
  EXPECT_EQ(machine.controller.msrs[0x6e0], 0U) << "disarmed";
}

TEST(Msr, StateListIsReadable) {
  FlatMachine machine(Mode::Long64);
  for (const std::uint32_t index : state_msrs()) EXPECT_NO_THROW(read_msr(machine.cpu, index)) << std::hex << index;
}

TEST(Msr, KvmClockScaleIsExact) {
  for (const std::uint64_t hz : {32'768ULL, 999'999'999ULL, 1'000'000'000ULL, 1'000'000'001ULL, 2'445'123'456ULL,
                                 3'999'999'999ULL, 4'000'000'000ULL, 8'123'456'789ULL}) {
    const TscScale scale = tsc_scale(hz);
    EXPECT_GE(scale.multiplier, 0x80000000U);
    const double factor = std::ldexp(static_cast<double>(scale.multiplier), scale.shift - 32);
    EXPECT_NEAR(factor * static_cast<double>(hz) / 1e9, 1.0, 1.2e-10 * 2) << hz;  // half a unit of 2^-32 and rounding
  }
}

TEST(Msr, KvmClockPage) {
  FlatMachine machine(Mode::Long64);
  ASSERT_TRUE(wrmsr(machine, 0x4b564d01, FlatMachine::kData | 1).ok());
  EXPECT_EQ(machine.get<std::uint32_t>(FlatMachine::kData), 2U) << "version";
  EXPECT_EQ(machine.get<std::uint8_t>(FlatMachine::kData + 29), 1) << "stable";
  const auto timestamp = machine.get<std::uint64_t>(FlatMachine::kData + 8);
  const auto base = machine.get<std::uint64_t>(FlatMachine::kData + 16);
  const auto multiplier = machine.get<std::uint32_t>(FlatMachine::kData + 24);
  const auto shift = machine.get<std::int8_t>(FlatMachine::kData + 28);
  const std::uint64_t ticks = guest_tsc(machine.cpu);
  const double factor = std::ldexp(multiplier, shift - 32);
  const double ns = static_cast<double>(base) + static_cast<double>(ticks - timestamp) * factor;
  EXPECT_NEAR(ns, static_cast<double>(ticks) / 2.445123456, 10.0);
  // Moving the counter does not move the time.
  ASSERT_TRUE(wrmsr(machine, 0x3b, 1ULL << 50).ok());
  EXPECT_EQ(machine.get<std::uint64_t>(FlatMachine::kData + 8), 1ULL << 50);
  EXPECT_EQ(machine.get<std::uint32_t>(FlatMachine::kData), 4U);
  EXPECT_TRUE(wrmsr(machine, 0x4b564d01, 0xfffffff0001).is(Vector::GeneralProtection, 0)) << "not RAM";
}

TEST(Msr, KvmWallClock) {
  FlatMachine machine(Mode::Long64);
  ASSERT_TRUE(wrmsr(machine, 0x4b564d00, FlatMachine::kData).ok());
  const double at_start =
      machine.get<std::uint32_t>(FlatMachine::kData + 4) + machine.get<std::uint32_t>(FlatMachine::kData + 8) * 1e-9;
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const double expected = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  const double since = static_cast<double>(machine.environment.tsc.now()) / 2.445123456e9;
  EXPECT_NEAR(at_start + since, expected, 0.5);
}

}  // namespace
}  // namespace vm_platform::soft
