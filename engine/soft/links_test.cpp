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
  const auto* slots = reinterpret_cast<const std::uint64_t*>(tables.data() + kSlotsOffset);
  Block block;
  block.rip = 0x5000;
  const Mode mode;
  // Two return addresses that share a place in the cache, in global pages or not, and then one more link.
  for (std::uint32_t slot = 0; slot < 6; ++slot) {
    const bool global = slot % 2 != 0;
    for (std::uint64_t i = 0; links.remembered() < Links::kMaxRemembered; ++i)
      links.set_jump(0x5000 + (i % 2 << 16), mode, 0x1000 + i, block, global);
    links.set_slot(slot, 0x2000, block, global);
    EXPECT_EQ(links.remembered(), 1u) << "all others were dropped to make room";
    EXPECT_EQ(links.find_jump(0x5000, mode) | links.find_jump(0x15000, mode), 0u);
    EXPECT_EQ(slots[slot], 0x2000u);
    links.drop_all();
    EXPECT_EQ(slots[slot], kUnlinked) << "the one that did not fit is remembered all the same";
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
