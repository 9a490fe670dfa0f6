#include "engine/soft/access_group.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kRip = 0x401000;

Mode kernel_mode() {
  Mode mode;
  mode.code = CodeSize::Bits64;
  mode.stack_bytes = 8;
  mode.flat = mode.kernel = true;
  return mode;
}

AccessGroup find(const std::vector<std::uint8_t>& code, const Mode& mode = kernel_mode(), std::size_t instructions = 48,
                 unsigned branches = 3) {
  InstructionWindow window(code, kRip, CodeSize::Bits64);
  return find_access_group(window, mode, instructions, branches);
}

TEST(AccessGroup, PushesGoDownward) {
  const auto group = find({0x55, 0x41, 0x57, 0x53, 0x90});  // push rbp; push r15; push rbx; nop
  EXPECT_EQ(group.instructions, 3u);
  EXPECT_EQ(group.base, unsigned{kRsp});
  EXPECT_EQ(group.low, -24);
  EXPECT_EQ(group.bytes, 24u);
  EXPECT_TRUE(group.write);
  EXPECT_EQ(group.place[0], 16);
  EXPECT_EQ(group.place[2], 0);
}

TEST(AccessGroup, AnEpilogueEndsWithItsReturn) {
  // mov rax, [rsp+8]; add rsp, 0x18; pop rbx; pop rbp; ret; push rax
  const auto group = find({0x48, 0x8b, 0x44, 0x24, 8, 0x48, 0x83, 0xc4, 0x18, 0x5b, 0x5d, 0xc3, 0x50});
  EXPECT_EQ(group.instructions, 5u);
  EXPECT_EQ(group.low, 8);
  EXPECT_EQ(group.bytes, 0x28u);
  EXPECT_FALSE(group.write);
  EXPECT_EQ(group.place[4], 0x20);
}

TEST(AccessGroup, FieldsOfOneStructure) {
  // mov rax, [rdi+8]; add ecx, edx; mov [rdi+0x10], eax; mov rdi, [rdi]; mov rsi, [rdi]
  const auto group = find({0x48, 0x8b, 0x47, 8, 0x01, 0xd1, 0x89, 0x47, 0x10, 0x48, 0x8b, 0x3f, 0x48, 0x8b, 0x37});
  EXPECT_EQ(group.instructions, 4u) << "the last one's base is another";
  EXPECT_EQ(group.low, 0);
  EXPECT_EQ(group.bytes, 0x14u);
  EXPECT_TRUE(group.write);
}

TEST(AccessGroup, GlobalVariables) {
  // mov eax, [rip+0x100]; mov ecx, [rip+0xfe]
  const auto group = find({0x8b, 0x05, 0, 1, 0, 0, 0x8b, 0x0d, 0xfe, 0, 0, 0});
  EXPECT_EQ(group.instructions, 2u);
  EXPECT_EQ(group.base, AccessGroup::kAbsolute);
  EXPECT_EQ(group.low, static_cast<std::int64_t>(kRip + 0x106));
  EXPECT_EQ(group.bytes, 8u);
}

TEST(AccessGroup, NeedsTwo) {
  EXPECT_EQ(find({0x55, 0x90, 0x90}).instructions, 0u);                    // one push
  EXPECT_EQ(find({0x90, 0x55, 0x53}).instructions, 0u);                    // does not begin with an access
  EXPECT_EQ(find({0x48, 0x8b, 0x07, 0x48, 0x8b, 0x1e}).instructions, 0u);  // [rdi], [rsi]
  EXPECT_EQ(find({0x55, 0x53}, kernel_mode(), 1).instructions, 0u);        // no room
}

TEST(AccessGroup, NotBeyondItsReach) {
  // mov rax, [rdi]; mov rcx, [rdi+0x1f9]
  EXPECT_EQ(find({0x48, 0x8b, 0x07, 0x48, 0x8b, 0x8f, 0xf8, 1, 0, 0}).instructions, 2u);
  EXPECT_EQ(find({0x48, 0x8b, 0x07, 0x48, 0x8b, 0x8f, 0xf9, 1, 0, 0}).instructions, 0u);
}

TEST(AccessGroup, NotBelowWhatADisplacementReaches) {
  // mov rax, [rsp-0x80000000]; sub rsp, 8; mov rcx, [rsp-0x80000000+disp]
  const auto pair = [](std::uint8_t disp) {
    return std::vector<std::uint8_t>{0x48, 0x8b, 0x84, 0x24, 0,    0,    0,    0x80, 0x48, 0x83,
                                     0xec, 8,    0x48, 0x8b, 0x8c, 0x24, disp, 0,    0,    0x80};
  };
  EXPECT_EQ(find(pair(0)).instructions, 0u);
  EXPECT_EQ(find(pair(8)).instructions, 3u);
}

TEST(AccessGroup, AWriteBehindABranchIsNoReasonToLookForWriting) {
  // cmp [rdi], eax; je +2; mov ecx, [rdi+4]; mov [rdi+8], eax
  const auto group = find({0x39, 0x07, 0x74, 2, 0x8b, 0x4f, 4, 0x89, 0x47, 8});
  EXPECT_EQ(group.instructions, 3u);
  EXPECT_FALSE(group.write);
  EXPECT_EQ(group.branches, 1u);
  EXPECT_EQ(find({0x39, 0x07, 0x74, 2, 0x8b, 0x4f, 4}, kernel_mode(), 48, 0).instructions, 0u) << "no branch allowed";
}

TEST(AccessGroup, LeavesOutWhatNeedsTheScratchRegisters) {
  const std::uint8_t load[] = {0x48, 0x8b, 0x07};  // mov rax, [rdi]
  const auto after = [&](std::vector<std::uint8_t> code) {
    code.insert(code.begin(), std::begin(load), std::end(load));
    code.insert(code.end(), std::begin(load), std::end(load));
    return find(code).instructions;
  };
  EXPECT_EQ(after({0x01, 0xd1}), 3u);           // add ecx, edx
  EXPECT_EQ(after({0x4d, 0x01, 0xc8}), 0u);     // add r8, r9: both in memory
  EXPECT_EQ(after({0x00, 0xe4}), 0u);           // add ah, ah
  EXPECT_EQ(after({0x48, 0x8d, 0x42, 1}), 3u);  // lea rax, [rdx+1]
  EXPECT_EQ(after({0x49, 0x8d, 0x40, 1}), 0u);  // lea rax, [r8+1]
  EXPECT_EQ(after({0x64, 0x8b, 0x07}), 0u);     // mov eax, fs:[rdi]
  EXPECT_EQ(after({0x8b, 0x04, 0x37}), 0u);     // mov eax, [rdi+rsi]
  EXPECT_EQ(after({0xfa}), 0u);                 // cli
  EXPECT_EQ(after({0x0f, 0x10, 0x07}), 0u);     // movups, which this mode does not have
  EXPECT_EQ(after({0x67, 0x8b, 0x07}), 0u);     // mov eax, [edi]
}

}  // namespace
}  // namespace vm_platform::soft
