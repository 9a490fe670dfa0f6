#include "engine/soft/links.hpp"

#include <gtest/gtest.h>

#include <vm_platform/memory.hpp>

#include "engine/soft/translator.hpp"

namespace vm_platform::soft {
namespace {

TEST(Links, WhatTheyRememberIsLimited) {
  const MappedMemory tables = MappedMemory::create_private(kCpuMappingBytes).value();
  constexpr std::uint64_t kUnlinked = 0x1234;
  Links links(tables.data(), kUnlinked);
  links.add_slots(0, 16);
  Block block;
  block.rip = 0x5000;
  const Mode mode;
  // Two return addresses that share a place in the cache, a slot that is set again and again, in global pages or not.
  for (const bool global : {false, true}) {
    for (std::size_t i = 0; i < 3 * Links::kMaxRemembered; ++i) {
      links.set_jump(0x5000 + (i % 2 << 16), mode, 0x1000 + i, block, global);
      links.set_slot(3, 0x2000 + i, block, global);
      ASSERT_LE(links.remembered(), Links::kMaxRemembered + 2);
    }
  }
  // And what leads somewhere is forgotten when it must be.
  links.set_jump(0x5000, mode, 0x1000, block, true);
  EXPECT_EQ(links.find_jump(0x5000, mode), 0x1000u);
  links.drop_page(0x5000);
  EXPECT_EQ(links.find_jump(0x5000, mode), 0u);
  links.drop_all();
  EXPECT_EQ(links.remembered(), 0u);
}

}  // namespace
}  // namespace vm_platform::soft
