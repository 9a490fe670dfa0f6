// Extended capabilities about links, lanes and traffic (PCIe 6.0 sections 7.7 to 7.9).
#include <algorithm>
#include <array>

#include "passthrough/capability_reader.hpp"

namespace vm_platform {
namespace {

using Reader = CapabilityReader;

void virtual_channels(Reader& r, const PciCapability&) {
  constexpr std::array kClocks = {"100 ns", "reserved", "reserved", "reserved"};
  const unsigned extra = r.u32(4) & 7;
  r.add("channels", "{}", extra + 1);
  r.add("low priority", "{}", r.u32(4) >> 4 & 7);
  r.add("reference clock", "{}", kClocks[r.u32(4) >> 8 & 3]);
  constexpr std::string_view kArbitration[] = {"fixed", "32-phase", "64-phase", "128-phase"};
  r.bits("arbitration", r.u32(8), kArbitration);
  for (unsigned i = 0; i <= extra; ++i) {
    const std::size_t at = 0x10 + i * 0x0cU;
    if (!r.config.contains(r.base + at, 0x0c)) break;
    const std::uint32_t control = r.u32(at + 4);
    r.add(fmt::format("channel {}", i), "{}, ID {}, traffic classes {:#04x}{}",
          (control & 1U << 31) != 0 ? "enabled" : "disabled", control >> 24 & 7, control & 0xff,
          (r.u16(at + 0x0a) & 2) != 0 ? ", negotiating" : "");
  }
}

void multicast(Reader& r, const PciCapability&) {
  r.flag("enabled", (r.u16(6) & 0x8000) != 0);
  r.add("groups", "{} of {}", (r.u16(6) & 0x3f) + 1, (r.u16(4) & 0x3f) + 1);
  r.flag("ECRC regeneration", (r.u16(4) & 0x8000) != 0);
  r.add("base", "{:#x}, index at bit {}", r.u64(8) & ~0xfffULL, r.u64(8) & 0x3f);
  r.add("receive", "{:#018x}", r.u64(0x10));
  r.add("block all", "{:#018x}", r.u64(0x18));
  r.add("block untranslated", "{:#018x}", r.u64(0x20));
}

void power_budgeting(Reader& r, const PciCapability&) {
  r.add("selected", "{}", r.u8(4));
  r.flag("in the system's budget", (r.u8(0x0c) & 1) != 0);
}

void root_complex_link(Reader& r, const PciCapability&) {
  constexpr std::array kTypes = {"configuration", "egress port", "internal link"};
  const std::uint32_t description = r.u32(4);
  const unsigned type = description & 15;
  r.add("type", "{}", type < kTypes.size() ? kTypes[type] : "reserved");
  r.add("port", "{}", description >> 24);
  r.add("component", "{}", description >> 16 & 0xff);
  const unsigned links = description >> 8 & 0xff;
  r.add("links", "{}", links);
  for (unsigned i = 0; i < links; ++i) {
    const std::size_t at = 0x10 + std::size_t{0x10} * i;
    if (!r.config.contains(r.base + at, 16)) break;
    const std::uint32_t link = r.u32(at);
    r.add(fmt::format("link {}", i), "{}, port {}, component {}, at {:#x}", (link & 1) != 0 ? "valid" : "not valid",
          link >> 24, link >> 16 & 0xff, r.u64(at + 8));
  }
}

void event_collector(Reader& r, const PciCapability& capability) {
  r.add("integrated endpoints", "{:#010x}", r.u32(4));
  if (capability.version >= 2 && r.config.contains(r.base + 8, 4))
    r.add("buses", "{:02x} to {:02x}", r.u8(9), r.u8(10));
}

void dynamic_power(Reader& r, const PciCapability&) { r.add("substates", "{}", (r.u32(4) & 0x1f) + 1); }

void processing_hints(Reader& r, const PciCapability&) {
  constexpr std::string_view kModes[] = {"no-steering-tags", "interrupt-vector", "device-specific", "", "", "", "", "",
                                         "extended"};
  constexpr std::array kPlaces = {"none", "in this capability", "in the MSI-X table", "reserved"};
  r.bits("modes", r.u32(4), kModes);
  r.add("steering table", "{}", kPlaces[r.u32(4) >> 9 & 3]);
  r.add("enabled", "{}", r.u32(8) >> 8 & 3);
}

void secondary_express(Reader& r, const PciCapability&) {
  constexpr std::string_view kControl[] = {"perform-equalization", "equalization-interrupt"};
  r.bits("link control 3", r.u32(4), kControl);
  r.add("lane errors", "{:#x}", r.u32(8));
}

void data_link_feature(Reader& r, const PciCapability&) {
  r.flag("scaled flow control", (r.u32(4) & 1) != 0);
  r.flag("exchange", (r.u32(4) & 1U << 31) != 0);
  r.flag("remote known", (r.u32(8) & 1U << 31) != 0);
}

/// 16, 32 and 64 GT/s: the status register tells how equalization went.
void physical_layer(Reader& r, const PciCapability&) {
  constexpr std::string_view kStatus[] = {"complete", "phase-1", "phase-2", "phase-3", "requested"};
  r.bits("equalization", r.u32(0x0c), kStatus);
}

void lane_margining(Reader& r, const PciCapability&) {
  r.flag("needs a driver", (r.u16(4) & 1) != 0);
  r.flag("ready", (r.u16(6) & 1) != 0);
}

void device_3(Reader& r, const PciCapability&) {
  constexpr std::string_view kCapable[] = {"DMWr-completer", "DMWr-routing", "14-bit-tag-completer",
                                           "14-bit-tag-requester"};
  constexpr std::string_view kControl[] = {"DMWr-requester", "DMWr-egress-blocking", "14-bit-tag-requester", "L0p"};
  r.bits("capable", r.u32(4), kCapable);
  r.bits("control", r.u32(8), kControl);
  r.add("segment", "{}", (r.u32(0x0c) & 1U << 8) != 0 ? fmt::format("{:02x}", r.u32(0x0c) & 0xff) : "not captured");
}

void encryption(Reader& r, const PciCapability&) {
  constexpr std::string_view kCapable[] = {"link",        "selective", "flow-through",  "partial-header-encryption",
                                           "aggregation", "PCRC",      "key-management"};
  r.bits("capable", r.u32(4), kCapable);
  r.flag("flow-through", (r.u32(8) & 4) != 0);
  r.add("link streams", "{}", (r.u32(4) & 1) != 0 ? (r.u32(4) >> 13 & 7) + 1 : 0);
  r.add("selective streams", "{}", (r.u32(4) & 2) != 0 ? (r.u32(4) >> 16 & 0xff) + 1 : 0);
}

constexpr CapabilityDecoder kDecoders[] = {
    {0x02, 0x1c, virtual_channels},  {0x04, 0x10, power_budgeting},   {0x05, 0x10, root_complex_link},
    {0x07, 8, event_collector},      {0x08, 0x1c, virtual_channels},  {0x09, 0x1c, virtual_channels},
    {0x12, 0x28, multicast},         {0x16, 0x10, dynamic_power},     {0x17, 0x0c, processing_hints},
    {0x19, 0x0c, secondary_express}, {0x25, 0x0c, data_link_feature}, {0x26, 0x10, physical_layer},
    {0x27, 8, lane_margining},       {0x2a, 0x10, physical_layer},    {0x2f, 0x10, device_3},
    {0x30, 0x0c, encryption},        {0x31, 0x10, physical_layer},
};

}  // namespace

std::span<const CapabilityDecoder> link_decoders() { return kDecoders; }

}  // namespace vm_platform
