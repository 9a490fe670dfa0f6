// Capabilities of the buses before PCI Express: PCI-X 2.0a, HyperTransport 3.10, AGP 3.0, and small ones of PCI 3.0.
#include <array>

#include "passthrough/capability_reader.hpp"

namespace vm_platform {
namespace {

using Reader = CapabilityReader;

std::string slot_text(std::uint32_t status) {
  return fmt::format("{:02x}:{:02x}.{}", status >> 8 & 0xff, status >> 3 & 0x1f, status & 7);
}

void pci_x(Reader& r, const PciCapability&) {
  constexpr std::string_view kStatus[] = {"64-bit", "133MHz", "split-completion-discarded",
                                          "unexpected-split-completion"};
  if ((r.config.u8(0x0e) & 0x7f) == 1) {
    constexpr std::array kClocks = {"conventional", "66 MHz", "100 MHz", "133 MHz"};
    const std::uint16_t secondary = r.u16(2);
    r.bits("secondary status", secondary, kStatus);
    r.add("secondary clock", "{}", kClocks[secondary >> 6 & 3]);
    r.add("function", "{}", slot_text(r.u32(4)));
    r.bits("status", r.u32(4) >> 16, kStatus);
    return;
  }
  const std::uint16_t command = r.u16(2);
  const std::uint32_t status = r.u32(4);
  constexpr std::array kSplits = {1, 2, 3, 4, 8, 12, 16, 32};
  r.flag("parity error recovery", (command & 1) != 0);
  r.flag("relaxed ordering", (command & 2) != 0);
  r.add("max read", "{} of {} bytes", 512U << (command >> 2 & 3), 512U << (status >> 21 & 3));
  r.add("outstanding splits", "{} of {}", kSplits[command >> 4 & 7], kSplits[status >> 23 & 7]);
  r.add("function", "{}", slot_text(status));
  r.bits("status", status >> 16, kStatus);
  r.flag("266 MHz", (status & 1U << 30) != 0);
  r.flag("533 MHz", (status & 1U << 31) != 0);
}

void hypertransport(Reader& r, const PciCapability&) {
  const std::uint16_t command = r.u16(2);
  if (command >> 13 == 0) {
    r.add("kind", "slave or primary interface");
    r.add("base unit", "{}", command & 0x1f);
    r.add("units", "{}", command >> 5 & 0x1f);
    r.flag("master host", (command & 0x400) != 0);
    return;
  }
  if (command >> 13 == 1) {
    r.add("kind", "host or secondary interface");
    r.flag("double ended", (command & 2) != 0);
    r.add("device", "{}", command >> 2 & 0x1f);
    return;
  }
  constexpr std::array<std::string_view, 11> kKinds = {"interrupt discovery and configuration",
                                                       "revision ID",
                                                       "unit ID clumping",
                                                       "extended configuration space",
                                                       "address mapping",
                                                       "MSI mapping",
                                                       "direct route",
                                                       "VC set",
                                                       "retry mode",
                                                       "x86 encoding",
                                                       "Gen3"};
  const unsigned kind = command >> 11;
  r.add("kind", "{}", kind >= 16 && kind - 16 < kKinds.size() ? kKinds[kind - 16] : "switch or reserved");
  if (kind == 0x15) {
    r.flag("enabled", (command & 1) != 0);
    r.flag("fixed", (command & 2) != 0);
    if ((command & 2) == 0 && r.config.contains(r.base + 4, 8)) r.add("address", "{:#x}", r.u64(4));
  }
  if (kind == 0x11) r.add("revision", "{}.{}", command >> 5 & 7, command & 0x1f);
}

void agp(Reader& r, const PciCapability&) {
  const std::uint32_t status = r.u32(4), command = r.u32(8);
  const bool agp3 = (status & 8) != 0;
  const auto rates = [&](std::uint32_t bits) {
    std::string text;
    for (unsigned bit = 0; bit < 3; ++bit)
      if ((bits >> bit & 1) != 0) text += fmt::format("{}{}x", text.empty() ? "" : " ", (agp3 ? 4U : 1U) << bit);
    return text.empty() ? std::string("none") : text;
  };
  r.add("version", "{}.{}", r.u8(2) >> 4, r.u8(2) & 15);
  r.add("rates", "{}", rates(status & 7));
  r.add("request queue", "{}", (status >> 24) + 1);
  r.flag("sideband addressing", (status & 0x200) != 0);
  r.flag("fast writes", (status & 0x10) != 0);
  r.flag("enabled", (command & 0x100) != 0);
  r.add("rate", "{}", rates(command & 7));
}

void slot_id(Reader& r, const PciCapability&) {
  r.add("expansion slots", "{}", r.u8(2) & 0x1f);
  r.flag("first in chassis", (r.u8(2) & 0x20) != 0);
  r.add("chassis", "{}", r.u8(3));
}

void debug_port(Reader& r, const PciCapability&) {
  r.add("port", "BAR {} + {:#x}", (r.u16(2) >> 13) - 1, r.u16(2) & 0x1fff);
}

void sata(Reader& r, const PciCapability&) {
  r.add("version", "{}.{}", r.u16(2) >> 4 & 15, r.u16(2) & 15);
  const std::uint32_t place = r.u32(4) & 15;
  if (place == 15)
    r.add("index and data", "in configuration space");
  else if (place >= 4 && place <= 9)
    r.add("index and data", "BAR {} + {:#x}", place - 4, (r.u32(4) >> 4 & 0xfffff) * 4);
}

void enhanced_allocation(Reader& r, const PciCapability&) {
  const unsigned count = r.u8(2) & 0x3fU;
  r.add("entries", "{}", count);
  std::size_t at = (r.config.u8(0x0e) & 0x7f) == 1 ? 8 : 4;  // bridges say their bus numbers first
  for (unsigned i = 0; i < count && r.config.contains(r.base + at, 4); ++i) {
    const std::uint32_t head = r.u32(at);
    r.add(fmt::format("entry {}", i), "BAR equivalent {}, {}", head >> 4 & 15,
          (head & 1U << 31) != 0 ? "enabled" : "disabled");
    at += 4 + (head & 7) * 4U;
  }
}

constexpr CapabilityDecoder kDecoders[] = {
    {0x02, 12, agp}, {0x04, 4, slot_id},    {0x07, 8, pci_x}, {0x08, 4, hypertransport},
    {0x0e, 12, agp}, {0x0a, 4, debug_port}, {0x12, 8, sata},  {0x14, 4, enhanced_allocation},
};

}  // namespace

std::span<const CapabilityDecoder> legacy_decoders() { return kDecoders; }

}  // namespace vm_platform
