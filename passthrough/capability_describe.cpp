// Capabilities as fields for people: one small function per capability, found through one table.
#include <fmt/format.h>

#include <iterator>
#include <vm_platform/pci_device.hpp>

#include "passthrough/capability_reader.hpp"

namespace vm_platform {
namespace {

using Reader = CapabilityReader;

std::string size_text(std::uint64_t bytes) {
  constexpr std::string_view kUnits[] = {"", "K", "M", "G", "T", "P", "E"};
  std::size_t unit = 0;
  while (bytes >= 1024 && bytes % 1024 == 0 && unit + 1 < std::size(kUnits)) bytes /= 1024, ++unit;
  return fmt::format("{}{}", bytes, kUnits[unit]);
}

PciCapabilities only(const PciCapability& capability) { return {{capability}, {}}; }

void power_management(Reader& r, const PciCapability&) {
  constexpr std::string_view kPme[] = {"D0", "D1", "D2", "D3hot", "D3cold"};
  const std::uint16_t capabilities = r.u16(2), control = r.u16(4);
  constexpr std::string_view kStates[] = {"D0", "D1", "D2", "D3hot"};
  r.add("version", "{}", capabilities & 7);
  r.add("state", "{}", kStates[control & 3]);
  r.flag("no soft reset", (control & 8) != 0);
  r.bits("PME from", capabilities >> 11, kPme);
  r.flag("PME enabled", (control & 0x100) != 0);
}

void vpd(Reader& r, const PciCapability&) { r.add("address", "{:#06x}", r.u16(2) & 0x7fff); }

void msi(Reader& r, const PciCapability& capability) {
  const auto info = decode_msi(r.config, only(capability));
  if (!info) return;
  r.flag("enabled", info->enabled);
  r.add("vectors", "{}/{}", info->enabled_vectors, info->vectors);
  r.flag("64-bit", info->address64);
  r.flag("maskable", info->maskable);
  const std::uint64_t address = info->address64 ? r.u64(4) : r.u32(4);
  r.add("address", "{:#x}", address);
  r.add("data", "{:#06x}", r.u16(info->address64 ? 12 : 8));
}

void msix(Reader& r, const PciCapability& capability) {
  const auto info = decode_msix(r.config, only(capability));
  if (!info) return;
  r.flag("enabled", info->enabled);
  r.flag("masked", info->masked);
  r.add("vectors", "{}", info->vectors);
  r.add("table", "BAR {} + {:#x}", info->table_bar, info->table_offset);
  r.add("pending bits", "BAR {} + {:#x}", info->pba_bar, info->pba_offset);
}

void express(Reader& r, const PciCapability& capability) {
  const auto info = decode_express(r.config, only(capability));
  if (!info) return;
  constexpr std::string_view kPorts[] = {"endpoint",
                                         "legacy endpoint",
                                         "",
                                         "",
                                         "root port",
                                         "upstream port",
                                         "downstream port",
                                         "PCIe to PCI bridge",
                                         "PCI to PCIe bridge",
                                         "integrated endpoint",
                                         "root event collector"};
  const auto port = static_cast<std::size_t>(info->port);
  r.add("version", "{}", r.u16(2) & 15);
  r.add("port", "{}", port < std::size(kPorts) && !kPorts[port].empty() ? kPorts[port] : "reserved");
  r.add("max payload", "{} of {} bytes", info->max_payload, info->max_payload_supported);
  r.flag("function-level reset", info->function_level_reset);
  if (info->max_link_width != 0) {
    r.add("link", "{} x{}", link_speed_name(info->link_speed), info->link_width);
    r.add("link capability", "{} x{}", link_speed_name(info->max_link_speed), info->max_link_width);
  }
  constexpr std::string_view kControl[] = {"correctable",
                                           "non-fatal",
                                           "fatal",
                                           "unsupported-request",
                                           "relaxed-ordering",
                                           "",
                                           "",
                                           "",
                                           "extended-tag",
                                           "phantom-functions",
                                           "aux-power",
                                           "no-snoop"};
  r.bits("device control", r.u16(8), kControl);
  constexpr std::string_view kStatus[] = {"correctable",         "non-fatal", "fatal",
                                          "unsupported-request", "aux-power", "transactions-pending"};
  r.bits("device status", r.u16(0x0a), kStatus);
  r.add("max read request", "{} bytes", 128U << (r.u16(8) >> 12 & 7));
  if (info->max_link_width != 0) {
    constexpr std::string_view kAspm[] = {"none", "L0s", "L1", "L0s L1"};
    r.add("ASPM", "{} of {}", kAspm[r.u16(0x10) & 3], kAspm[r.u32(0x0c) >> 10 & 3]);
    r.flag("clock power management", (r.u32(0x0c) & 1U << 18) != 0);
  }
  if ((r.u16(2) & 15) >= 2 && r.config.contains(r.base + 0x24, 8)) {
    constexpr std::string_view kDevice2[] = {"",
                                             "",
                                             "",
                                             "",
                                             "timeout-disable",
                                             "ARI-forwarding",
                                             "AtomicOp-routing",
                                             "AtomicOp-32",
                                             "AtomicOp-64",
                                             "AtomicOp-CAS128",
                                             "",
                                             "LTR",
                                             "",
                                             "",
                                             "",
                                             "",
                                             "10-bit-tag-completer",
                                             "10-bit-tag-requester"};
    r.bits("device capabilities 2", r.u32(0x24), kDevice2);
    constexpr std::string_view kControl2[] = {"",
                                              "",
                                              "",
                                              "",
                                              "timeout-disabled",
                                              "ARI-forwarding",
                                              "AtomicOp-requester",
                                              "AtomicOp-egress-blocking",
                                              "IDO-request",
                                              "IDO-completion",
                                              "LTR"};
    r.bits("device control 2", r.u16(0x28), kControl2);
  }
  if (info->slot_implemented && r.config.contains(r.base + 0x14, 4)) r.add("slot", "{}", r.u32(0x14) >> 19);
}

void vendor(Reader& r, const PciCapability&) { r.add("length", "{} bytes", r.config.u8(r.base + 2)); }

void bridge_subsystem(Reader& r, const PciCapability&) { r.add("subsystem", "{:04x}:{:04x}", r.u16(4), r.u16(6)); }

void advanced_features(Reader& r, const PciCapability&) {
  constexpr std::string_view kBits[] = {"transactions-pending", "function-level-reset"};
  r.bits("capable", r.config.u8(r.base + 3), kBits);
}

void aer(Reader& r, const PciCapability&) {
  constexpr std::string_view kUncorrectable[32] = {"",
                                                   "",
                                                   "",
                                                   "",
                                                   "DLP",
                                                   "SDES",
                                                   "",
                                                   "",
                                                   "",
                                                   "",
                                                   "",
                                                   "",
                                                   "TLP",
                                                   "FCP",
                                                   "CmpltTO",
                                                   "CmpltAbrt",
                                                   "UnxCmplt",
                                                   "RxOF",
                                                   "MalfTLP",
                                                   "ECRC",
                                                   "UnsupReq",
                                                   "ACSViol",
                                                   "UncorrIntErr",
                                                   "BlockedTLP",
                                                   "AtomicOpBlocked",
                                                   "TLPBlockedErr",
                                                   "PoisonTLPBlocked"};
  constexpr std::string_view kCorrectable[16] = {"RxErr",      "",         "", "", "", "",        "BadTLP",
                                                 "BadDLLP",    "Rollover", "", "", "", "Timeout", "AdvNonFatalErr",
                                                 "CorrIntErr", "HeaderOF"};
  r.bits("uncorrectable status", r.u32(4), kUncorrectable);
  r.bits("uncorrectable mask", r.u32(8), kUncorrectable);
  r.bits("uncorrectable severity", r.u32(0x0c), kUncorrectable);
  r.bits("correctable status", r.u32(0x10), kCorrectable);
  r.bits("correctable mask", r.u32(0x14), kCorrectable);
}

void serial_number(Reader& r, const PciCapability&) {
  const std::uint64_t serial = r.u64(4);
  std::string text;
  for (int shift = 56; shift >= 0; shift -= 8) {
    if (!text.empty()) text += '-';
    text += fmt::format("{:02x}", serial >> shift & 0xff);
  }
  r.fields.push_back({"number", text});
}

void acs(Reader& r, const PciCapability&) {
  constexpr std::string_view kBits[] = {"SrcValid",    "TransBlk",   "ReqRedir",   "CmpltRedir",
                                        "UpstreamFwd", "EgressCtrl", "DirectTrans"};
  r.bits("capable", r.u16(4), kBits);
  r.bits("enabled", r.u16(6), kBits);
}

void ari(Reader& r, const PciCapability&) {
  r.add("next function", "{}", r.u16(4) >> 8);
  r.flag("function groups", (r.u16(4) & 1) != 0);
}

void ats(Reader& r, const PciCapability&) {
  r.flag("enabled", (r.u16(6) & 0x8000) != 0);
  r.add("queue depth", "{}", (r.u16(4) & 0x1f) == 0 ? 32 : r.u16(4) & 0x1f);
  r.add("smallest translation unit", "{}", r.u16(6) & 0x1f);
}

void sriov(Reader& r, const PciCapability& capability) {
  const auto info = decode_sriov(r.config, only(capability));
  if (!info) return;
  r.flag("enabled", info->enabled);
  r.flag("VF memory enabled", info->memory_enabled);
  r.add("VFs", "{} of {}, initially {}", info->num_vfs, info->total_vfs, info->initial_vfs);
  r.add("VF offset", "{}", info->offset);
  r.add("VF stride", "{}", info->stride);
  r.add("VF device", "{:04x}", info->device_id);
  r.add("page size", "{:#x} of {:#x}", info->page_size, info->supported_page_sizes);
}

void page_request(Reader& r, const PciCapability&) {
  r.flag("enabled", (r.u16(4) & 1) != 0);
  r.flag("stopped", (r.u16(6) & 0x100) != 0);
  r.add("outstanding", "{} of {}", r.u32(12), r.u32(8));
}

void pasid(Reader& r, const PciCapability&) {
  r.flag("enabled", (r.u16(6) & 1) != 0);
  r.flag("execute", (r.u16(4) & 2) != 0);
  r.flag("privileged", (r.u16(4) & 4) != 0);
  r.add("width", "{} bits", r.u16(4) >> 8 & 0x1f);
}

void resizable_bar(Reader& r, const PciCapability& capability) {
  const auto kind = static_cast<PciExtCapId>(capability.id);
  for (const PciResizableBar& bar : decode_resizable_bars(r.config, only(capability), kind)) {
    std::string sizes;
    for (unsigned bit = 0; bit < 44; ++bit)
      if ((bar.sizes >> bit & 1) != 0) sizes += " " + size_text(1ULL << (bit + 20));
    r.fields.push_back({fmt::format("BAR {}", bar.bar), fmt::format("{} of{}", size_text(bar.current), sizes)});
  }
}

void ltr(Reader& r, const PciCapability&) {
  const auto nanoseconds = [](std::uint16_t value) { return (value & 0x3ffULL) << (5 * (value >> 10 & 7)); };
  r.add("max snoop latency", "{} ns", nanoseconds(r.u16(4)));
  r.add("max no-snoop latency", "{} ns", nanoseconds(r.u16(6)));
}

void vendor_extended(Reader& r, const PciCapability&) {
  r.add("ID", "{:04x}", r.u16(4));
  r.add("revision", "{}", r.u16(6) & 15);
  r.add("length", "{:#x}", r.u16(6) >> 4);
}

/// CXL 3.0, section 8.1.3: the DVSEC of a CXL device.
void cxl_device(Reader& r) {
  constexpr std::string_view kBits[] = {"cache", "io", "mem", "mem-hardware-init"};
  r.bits("CXL capable", r.u16(0x0a), kBits);
  r.bits("CXL enabled", r.u16(0x0c) & 7U, kBits);
  r.add("CXL memory ranges", "{}", r.u16(0x0a) >> 4 & 3);
  for (unsigned range = 0; range < (r.u16(0x0a) >> 4 & 3U) && range < 2; ++range) {
    const std::size_t at = 0x18 + range * 0x10;
    if (!r.config.contains(r.base + at, 16)) break;
    const auto pair = [&](std::size_t offset) {
      return static_cast<std::uint64_t>(r.u32(offset)) << 32 | (r.u32(offset + 4) & 0xf0000000U);
    };
    r.add(fmt::format("CXL range {}", range + 1), "{} at {:#x}", size_text(pair(at)), pair(at + 8));
  }
}

void designated_vendor(Reader& r, const PciCapability&) {
  constexpr std::uint16_t kCxl = 0x1e98;
  constexpr std::string_view kCxlKinds[] = {"CXL device",
                                            "",
                                            "non-CXL functions",
                                            "CXL extensions of a port",
                                            "CXL GPF of a port",
                                            "CXL GPF of a device",
                                            "",
                                            "CXL flex bus port",
                                            "CXL register locator",
                                            "CXL multi-logical device",
                                            "CXL test"};
  r.add("vendor", "{:04x}", r.u16(4));
  r.add("ID", "{:04x}", r.u16(8));
  r.add("revision", "{}", r.u16(6) & 15);
  r.add("length", "{:#x}", r.u16(6) >> 4);
  if (r.u16(4) != kCxl || r.u16(8) >= std::size(kCxlKinds) || kCxlKinds[r.u16(8)].empty()) return;
  r.add("kind", "{}", kCxlKinds[r.u16(8)]);
  if (r.u16(8) == 0 && r.config.contains(r.base, 0x38)) cxl_device(r);
}

void doe(Reader& r, const PciCapability&) {
  r.flag("interrupts", (r.u32(4) & 1) != 0);
  r.flag("busy", (r.u32(0x0c) & 1) != 0);
  r.flag("error", (r.u32(0x0c) & 4) != 0);
  r.flag("object ready", (r.u32(0x0c) & 1U << 31) != 0);
}

void dpc(Reader& r, const PciCapability&) {
  r.add("trigger", "{}", r.u16(6) & 3);
  r.flag("triggered", (r.u16(8) & 1) != 0);
  r.add("error source", "{:04x}", r.u16(0x0a));
}

void l1_substates(Reader& r, const PciCapability&) {
  constexpr std::string_view kBits[] = {"PCI-PM_L1.2", "PCI-PM_L1.1", "ASPM_L1.2", "ASPM_L1.1", "L1_PM_Substates"};
  r.bits("capable", r.u32(4), kBits);
  r.bits("enabled", r.u32(8) & 15, kBits);
}

void precision_time(Reader& r, const PciCapability&) {
  constexpr std::string_view kBits[] = {"requester", "responder", "root"};
  r.bits("capable", r.u32(4), kBits);
  r.flag("enabled", (r.u32(8) & 1) != 0);
}

constexpr CapabilityDecoder kConventional[] = {
    {0x01, 6, power_management}, {0x03, 4, vpd},        {0x05, 10, msi},  {0x09, 3, vendor},
    {0x0d, 8, bridge_subsystem}, {0x10, 0x14, express}, {0x11, 12, msix}, {0x13, 4, advanced_features},
};
constexpr CapabilityDecoder kExtended[] = {
    {0x01, 0x18, aer},
    {0x03, 12, serial_number},
    {0x0b, 8, vendor_extended},
    {0x0d, 8, acs},
    {0x0e, 8, ari},
    {0x0f, 8, ats},
    {0x10, 0x40, sriov},
    {0x13, 16, page_request},
    {0x15, 12, resizable_bar},
    {0x18, 8, ltr},
    {0x1b, 8, pasid},
    {0x1d, 12, dpc},
    {0x1e, 12, l1_substates},
    {0x1f, 12, precision_time},
    {0x23, 10, designated_vendor},
    {0x24, 12, resizable_bar},
    {0x2e, 0x14, doe},
};

}  // namespace

std::vector<PciField> describe_capability(const ConfigSpace& config, const PciCapability& capability) {
  const std::span<const CapabilityDecoder> lists[] = {
      capability.extended ? std::span<const CapabilityDecoder>(kExtended) : kConventional,
      capability.extended ? link_decoders() : legacy_decoders()};
  for (const auto list : lists) {
    for (const CapabilityDecoder& decoder : list) {
      if (decoder.id != capability.id) continue;
      if (!config.contains(capability.offset, decoder.bytes)) return {};
      CapabilityReader reader{config, capability.offset, {}};
      decoder.decode(reader, capability);
      return std::move(reader.fields);
    }
  }
  return {};
}

}  // namespace vm_platform
