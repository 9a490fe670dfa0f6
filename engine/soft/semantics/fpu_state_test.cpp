#include <gtest/gtest.h>

#include <random>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kAt = FlatMachine::kData;
const std::initializer_list<std::uint8_t> kFxsave = {0x48, 0x0f, 0xae, 0x03}, kFxrstor = {0x48, 0x0f, 0xae, 0x0b},
                                          kXsave = {0x48, 0x0f, 0xae, 0x23}, kXrstor = {0x48, 0x0f, 0xae, 0x2b},
                                          kLdmxcsr = {0x0f, 0xae, 0x13}, kStmxcsr = {0x0f, 0xae, 0x1b},
                                          kFnsave = {0xdd, 0x33}, kFrstor = {0xdd, 0x23}, kFnstenv = {0xd9, 0x33},
                                          kFldenv = {0xd9, 0x23};

/// A machine whose registers hold a pattern, with host-like pointers in the image.
struct FpuMachine : FlatMachine {
  explicit FpuMachine(Mode mode = Mode::Long64) : FlatMachine(mode) {
    std::mt19937 random(11);
    for (std::size_t i = 32; i < 416; ++i) cpu.xsave[i] = static_cast<std::uint8_t>(random());
    for (std::size_t i = 576; i < 832; ++i) cpu.xsave[i] = static_cast<std::uint8_t>(random());
    for (std::size_t i = 0; i < 8; ++i) std::memset(cpu.xsave + 32 + 16 * i + 10, 0, 6);
    set(0, 0x037f);
    set(2, 0x1000);  // top 2
    cpu.xsave[4] = 0x5a;
    std::memset(cpu.xsave + 6, 0xee, 18);  // FOP, FIP, FDP of the host
    cpu.gpr[kRbx] = kAt;
    cpu.gpr[kRax] = 7;
    cpu.gpr[kRdx] = 0;
  }
  void set(std::size_t offset, std::uint16_t value) { std::memcpy(cpu.xsave + offset, &value, 2); }
  std::uint16_t word(std::size_t offset) const {
    std::uint16_t value;
    std::memcpy(&value, cpu.xsave + offset, 2);
    return value;
  }
};

TEST(FpuState, NoPointersOfTheHost) {
  const std::pair<std::initializer_list<std::uint8_t>, std::pair<std::size_t, std::size_t>> cases[] = {
      {kFxsave, {6, 24}}, {kXsave, {6, 24}}, {kFnstenv, {12, 26}}, {kFnsave, {12, 26}}};
  for (const auto& [bytes, range] : cases) {
    FpuMachine machine;
    std::memset(machine.ram() + kAt, 0xcc, 1024);
    ASSERT_TRUE(machine.run(bytes).ok());
    for (std::size_t i = range.first; i < range.second; ++i) EXPECT_EQ(machine.get<std::uint8_t>(kAt + i), 0) << i;
  }
}

TEST(FpuState, FxsaveRoundTrip) {
  FpuMachine machine;
  std::memset(machine.ram() + kAt, 0xcc, 1024);
  ASSERT_TRUE(machine.run(kFxsave).ok());
  EXPECT_EQ(machine.get<std::uint8_t>(kAt + 464), 0xcc) << "software's bytes stay";
  EXPECT_EQ(machine.get<std::uint32_t>(kAt + 28), 0xffffU);
  EXPECT_EQ(0, std::memcmp(machine.ram() + kAt + 160, machine.cpu.xsave + 160, 256));
  FpuMachine other;
  std::memset(other.cpu.xsave + 32, 0, 384);
  std::memcpy(other.ram() + kAt, machine.ram() + kAt, 512);
  ASSERT_TRUE(other.run(kFxrstor).ok());
  EXPECT_EQ(0, std::memcmp(other.cpu.xsave + 32, machine.cpu.xsave + 32, 384));
  EXPECT_EQ(other.cpu.xsave[4], 0x5a);
}

TEST(FpuState, OnlyEightRegistersOutside64BitMode) {
  FpuMachine machine(Mode::Protected32);
  std::memset(machine.ram() + kAt, 0xcc, 1024);
  ASSERT_TRUE(machine.run({0x0f, 0xae, 0x03}).ok());
  EXPECT_EQ(0, std::memcmp(machine.ram() + kAt + 160, machine.cpu.xsave + 160, 128));
  EXPECT_EQ(machine.get<std::uint8_t>(kAt + 160 + 128), 0xcc);
}

TEST(FpuState, XsaveComponents) {
  FpuMachine machine;
  std::memset(machine.ram() + kAt, 0, 1024);
  machine.cpu.gpr[kRax] = 4;
  ASSERT_TRUE(machine.run(kXsave).ok());
  EXPECT_EQ(machine.get<std::uint64_t>(kAt + 512), 4U);
  EXPECT_EQ(machine.get<std::uint64_t>(kAt + 160), 0U) << "XMM was not asked for";
  EXPECT_EQ(machine.get<std::uint32_t>(kAt + 24), 0x1f80U) << "MXCSR goes with AVX too";
  EXPECT_EQ(0, std::memcmp(machine.ram() + kAt + 576, machine.cpu.xsave + 576, 256));
  machine.cpu.gpr[kRax] = 3;
  ASSERT_TRUE(machine.run(kXsave).ok());
  EXPECT_EQ(machine.get<std::uint64_t>(kAt + 512), 7U);
}

TEST(FpuState, XrstorInitializesWhatIsNotThere) {
  FpuMachine machine;
  std::memset(machine.ram() + kAt, 0, 1024);
  machine.put<std::uint32_t>(kAt + 24, 0x1fa0);
  machine.put<std::uint64_t>(kAt + 512, 2);
  machine.put<std::uint64_t>(kAt + 160, 0x1122334455667788);
  ASSERT_TRUE(machine.run(kXrstor).ok());
  EXPECT_EQ(machine.word(0), 0x37f);
  EXPECT_EQ(machine.cpu.xsave[4], 0) << "empty";
  EXPECT_EQ(machine.word(24), 0x1fa0);
  EXPECT_EQ(machine.cpu.xsave[160], 0x88);
  EXPECT_EQ(machine.cpu.xsave[576], 0);
}

TEST(FpuState, Faults) {
  struct Case {
    const char* name;
    std::initializer_list<std::uint8_t> bytes;
    std::uint64_t cr0_bits, misalign;
    Vector vector;
    std::optional<std::uint32_t> code;
  };
  const Case cases[] = {
      {"FXSAVE TS", kFxsave, cr0::kTaskSwitched, 0, Vector::DeviceNotAvailable, {}},
      {"FXSAVE EM", kFxsave, cr0::kEmulation, 0, Vector::DeviceNotAvailable, {}},
      {"FXSAVE alignment", kFxsave, 0, 8, Vector::GeneralProtection, 0},
      {"FXRSTOR alignment", kFxrstor, 0, 8, Vector::GeneralProtection, 0},
      {"XSAVE TS", kXsave, cr0::kTaskSwitched, 0, Vector::DeviceNotAvailable, {}},
      {"XSAVE alignment", kXsave, 0, 16, Vector::GeneralProtection, 0},
      {"XRSTOR alignment", kXrstor, 0, 16, Vector::GeneralProtection, 0},
      {"LDMXCSR EM", kLdmxcsr, cr0::kEmulation, 0, Vector::InvalidOpcode, {}},
      {"STMXCSR TS", kStmxcsr, cr0::kTaskSwitched, 0, Vector::DeviceNotAvailable, {}},
      {"FNSAVE TS", kFnsave, cr0::kTaskSwitched, 0, Vector::DeviceNotAvailable, {}},
      {"FLDENV EM", kFldenv, cr0::kEmulation, 0, Vector::DeviceNotAvailable, {}},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    FpuMachine machine;
    machine.cpu.cr0 |= test.cr0_bits;
    machine.cpu.gpr[kRbx] += test.misalign;
    EXPECT_TRUE(machine.run_checked(test.bytes).is(test.vector, test.code));
  }
}

TEST(FpuState, XrstorHeaderChecks) {
  const std::pair<std::size_t, std::uint64_t> cases[] = {{512, 8},          {512, 1ULL << 63}, {520, 1},
                                                         {520, 1ULL << 63}, {528, 1},          {24, 0x10000}};
  for (const auto& [offset, value] : cases) {
    FpuMachine machine;
    std::memset(machine.ram() + kAt, 0, 1024);
    machine.put(kAt + offset, value);
    EXPECT_TRUE(machine.run_checked(kXrstor).is(Vector::GeneralProtection, 0)) << offset;
  }
  FpuMachine machine;
  std::memset(machine.ram() + kAt, 0, 1024);
  machine.put<std::uint32_t>(kAt, 0x10000);
  EXPECT_TRUE(machine.run_checked(kLdmxcsr).is(Vector::GeneralProtection, 0));
  machine.cpu.cr4 &= ~cr4::kOsxsave;
  EXPECT_TRUE(machine.run_checked(kXrstor).is(Vector::InvalidOpcode));
}

TEST(FpuState, PageCrossingFaultChangesNothing) {
  for (const auto& bytes : {kFxsave, kXsave, kFnsave}) {
    FpuMachine machine;
    machine.cpu.gpr[kRbx] = kAt + 0x1000 - 64;
    machine.read_only.insert((kAt + 0x1000) >> 12);
    EXPECT_TRUE(machine.run_checked(bytes).is(Vector::PageFault, 3));
  }
}

TEST(FpuState, EnvironmentTagsAgainstTheHost) {
  // The host saves the same registers in both formats; the tags of one must follow from the other.
  alignas(16) std::uint8_t saved[512];
  std::uint8_t environment[28];
  const double values[] = {1.5, 0.0, 1e-310, INFINITY, -0.0};
  __asm__ volatile("fninit");
  for (const double& value : values) __asm__ volatile("fldl %0" ::"m"(value));
  __asm__ volatile("fldz; fstp %%st(0); fxsave %0; fnstenv %1; fninit" : "=m"(saved), "=m"(environment));
  FpuMachine machine;
  std::memcpy(machine.cpu.xsave, saved, 160);
  ASSERT_TRUE(machine.run(kFnstenv).ok());
  EXPECT_EQ(0, std::memcmp(environment, machine.ram() + kAt, 12));
  EXPECT_EQ(machine.word(0), 0x37f) << "all exceptions masked";
}

TEST(FpuState, FnsaveAndFrstor) {
  FpuMachine machine;
  std::uint8_t before[128];
  std::memcpy(before, machine.cpu.xsave + 32, sizeof before);
  ASSERT_TRUE(machine.run(kFnsave).ok());
  EXPECT_EQ(machine.word(0), 0x37f);
  EXPECT_EQ(machine.word(2), 0);
  EXPECT_EQ(machine.cpu.xsave[4], 0);
  ASSERT_TRUE(machine.run(kFrstor).ok());
  EXPECT_EQ(machine.word(2), 0x1000);
  EXPECT_EQ(machine.cpu.xsave[4], 0x5a);
  EXPECT_EQ(0, std::memcmp(before, machine.cpu.xsave + 32, sizeof before));
}

TEST(FpuState, LoadingAnUnmaskedExceptionMakesItPending) {
  FpuMachine machine;
  std::memset(machine.ram() + kAt, 0, 28);
  machine.put<std::uint16_t>(kAt, 0x037e);      // invalid operation not masked
  machine.put<std::uint16_t>(kAt + 4, 0x0001);  // and raised
  machine.put<std::uint16_t>(kAt + 8, 0xffff);
  ASSERT_TRUE(machine.run(kFldenv).ok());
  EXPECT_EQ(machine.word(2), 0x8081);
  EXPECT_TRUE(machine.run_checked(kFldenv).is(Vector::X87Error));
}

}  // namespace
}  // namespace vm_platform::soft
