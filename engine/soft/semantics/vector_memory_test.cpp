#include <gtest/gtest.h>

#include "engine/soft/semantics/flat_machine.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kAt = FlatMachine::kData;

void set_vector(FlatMachine& machine, unsigned number, const std::array<std::uint32_t, 8>& value) {
  std::memcpy(machine.cpu.xsave + 160 + 16 * number, value.data(), 16);
  std::memcpy(machine.cpu.xsave + 576 + 16 * number, value.data() + 4, 16);
}
std::array<std::uint32_t, 8> vector_of(const FlatMachine& machine, unsigned number) {
  std::array<std::uint32_t, 8> value;
  std::memcpy(value.data(), machine.cpu.xsave + 160 + 16 * number, 16);
  std::memcpy(value.data() + 4, machine.cpu.xsave + 576 + 16 * number, 16);
  return value;
}
using Words = std::array<std::uint32_t, 8>;

TEST(VectorMemory, MaskedLoadSkipsAbsentMemory) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRbx] = kAt + 0x1000 - 16;
  machine.absent.insert((kAt + 0x1000) >> 12);
  for (unsigned i = 0; i < 4; ++i) machine.put<std::uint32_t>(kAt + 0x1000 - 16 + 4 * i, i + 1);
  set_vector(machine, 1, {~0U, 0, ~0U, 0x80000000, 0x7fffffff, 0, 0, 0});
  set_vector(machine, 0, {9, 9, 9, 9, 9, 9, 9, 9});
  ASSERT_TRUE(machine.run({0xc4, 0xe2, 0x75, 0x2c, 0x03}).ok());  // vmaskmovps ymm0, ymm1, [rbx]
  EXPECT_EQ(vector_of(machine, 0), (Words{1, 0, 3, 4, 0, 0, 0, 0}));
  set_vector(machine, 1, {0, 0, 0, 0, ~0U, 0, 0, 0});
  EXPECT_TRUE(machine.run_checked({0xc4, 0xe2, 0x75, 0x2c, 0x03}).is(Vector::PageFault, 0));
}

TEST(VectorMemory, MaskedStoreIsAllOrNothing) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRbx] = kAt + 0x1000 - 16;
  machine.read_only.insert((kAt + 0x1000) >> 12);
  set_vector(machine, 1, {~0U, 0, 0, 0, 0, 0, 0, ~0U});
  set_vector(machine, 2, {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_TRUE(
      machine.run_checked({0xc4, 0xe2, 0x75, 0x2e, 0x13}).is(Vector::PageFault, 3));  // vmaskmovps [rbx], ymm1, ymm2
  set_vector(machine, 1, {~0U, 0, ~0U, 0, 0, 0, 0, 0});
  ASSERT_TRUE(machine.run({0xc4, 0xe2, 0x75, 0x2e, 0x13}).ok());
  EXPECT_EQ(machine.get<std::uint64_t>(kAt + 0x1000 - 16), 1U);
  EXPECT_EQ(machine.get<std::uint64_t>(kAt + 0x1000 - 8), 3U);
}

TEST(VectorMemory, GatherAndItsRestart) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRbx] = kAt + 0x800;
  for (unsigned i = 0; i < 0x400; ++i) machine.put<std::uint32_t>(kAt + 4 * i, i);
  set_vector(machine, 2, {0, 1, static_cast<std::uint32_t>(-4), 0x1000, 5, 6, 7, 8});
  set_vector(machine, 1, {~0U, ~0U, ~0U, ~0U, 0, ~0U, 0, ~0U});
  set_vector(machine, 0, {99, 99, 99, 99, 99, 99, 99, 99});
  machine.absent.insert((kAt + 0x4800) >> 12);
  // vgatherdps ymm0, [rbx + ymm2*4], ymm1
  const Outcome outcome = machine.run({0xc4, 0xe2, 0x75, 0x92, 0x04, 0x93});
  ASSERT_TRUE(outcome.is(Vector::PageFault, 0));
  EXPECT_EQ(outcome.fault->address, kAt + 0x4800);
  EXPECT_EQ(vector_of(machine, 0), (Words{0x200, 0x201, 0x1fc, 99, 99, 99, 99, 99}));
  EXPECT_EQ(vector_of(machine, 1), (Words{0, 0, 0, ~0U, 0, ~0U, 0, ~0U}));
  machine.absent.clear();
  machine.put<std::uint32_t>(kAt + 0x4800, 77);
  ASSERT_TRUE(machine.run({0xc4, 0xe2, 0x75, 0x92, 0x04, 0x93}).ok());
  EXPECT_EQ(vector_of(machine, 0), (Words{0x200, 0x201, 0x1fc, 77, 99, 0x206, 99, 0x208}));
  EXPECT_EQ(vector_of(machine, 1), Words{});
}

TEST(VectorMemory, GatherThatFaultsKeepsTheMasksItDidNotReach) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRbx] = kAt;
  machine.absent.insert((kAt + 0x4000) >> 12);
  set_vector(machine, 2, {0, 1, 0x1000, 2, 3, 4, 5, 6});
  set_vector(machine, 1, {0x80000001, 0x7fffffff, 0x80000003, 0x12345678, 0x9abcdef0, 5, 6, 0xf0000007});
  EXPECT_TRUE(machine.run({0xc4, 0xe2, 0x75, 0x92, 0x04, 0x93}).is(Vector::PageFault, 0));
  EXPECT_EQ(vector_of(machine, 1), (Words{0, 0, 0x80000003, 0x12345678, 0x9abcdef0, 5, 6, 0xf0000007}));
}

TEST(VectorMemory, GatherWithQuadwordIndices) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRbx] = kAt;
  machine.put<std::uint32_t>(kAt + 8, 11);
  machine.put<std::uint32_t>(kAt + 16, 22);
  set_vector(machine, 2, {8, 0, 16, 0, 1, 1, 1, 1});
  set_vector(machine, 1, {~0U, ~0U, ~0U, ~0U, 5, 5, 5, 5});
  set_vector(machine, 0, {9, 9, 9, 9, 9, 9, 9, 9});
  ASSERT_TRUE(machine.run({0xc4, 0xe2, 0x71, 0x91, 0x04, 0x13}).ok());  // vpgatherqd xmm0, [rbx + xmm2], xmm1
  EXPECT_EQ(vector_of(machine, 0), (Words{11, 22, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(vector_of(machine, 1), Words{});
}

TEST(VectorMemory, ByteMask) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRdi] = kAt;
  machine.put(kAt, ~0ULL);
  set_vector(machine, 0, {0x03020100, 0x07060504, 0, 0, 0, 0, 0, 0});
  set_vector(machine, 1, {0x80008000, 0x000000ff, 0, 0, 0, 0, 0, 0});
  ASSERT_TRUE(machine.run({0x66, 0x0f, 0xf7, 0xc1}).ok());  // maskmovdqu xmm0, xmm1
  EXPECT_EQ(machine.get<std::uint64_t>(kAt), 0xffffff0403ff01ffU);
}

TEST(VectorMemory, Availability) {
  FlatMachine machine(Mode::Long64);
  machine.cpu.gpr[kRbx] = kAt;
  machine.cpu.cr0 |= cr0::kTaskSwitched;
  EXPECT_TRUE(machine.run_checked({0xc4, 0xe2, 0x75, 0x2c, 0x03}).is(Vector::DeviceNotAvailable));
  machine.cpu.xcr0 = 3;
  EXPECT_TRUE(machine.run_checked({0xc4, 0xe2, 0x75, 0x2c, 0x03}).is(Vector::InvalidOpcode));
}

}  // namespace
}  // namespace vm_platform::soft
