// Capabilities as fields for people: one small function per capability, found through one table.
#include <fmt/format.h>

#include <iterator>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {
namespace {

using Fields = std::vector<PciField>;

struct Reader {
  const ConfigSpace& config;
  std::size_t base;
  Fields fields;

  [[nodiscard]] std::uint16_t u16(std::size_t offset) const { return config.u16(base + offset); }
  [[nodiscard]] std::uint32_t u32(std::size_t offset) const { return config.u32(base + offset); }
  [[nodiscard]] std::uint64_t u64(std::size_t offset) const { return config.u64(base + offset); }
  template <typename... Args>
  void add(std::string name, fmt::format_string<Args...> format, Args&&... args) {
    fields.push_back({std::move(name), fmt::format(format, std::forward<Args>(args)...)});
  }
  void flag(std::string name, bool value) { fields.push_back({std::move(name), value ? "yes" : "no"}); }
  /// Names of the bits set in `value`, lowest first.
  template <std::size_t N>
  void bits(std::string name, std::uint32_t value, const std::string_view (&names)[N]) {
    std::string text;
    for (std::size_t i = 0; i < N; ++i) {
      if ((value >> i & 1) == 0 || names[i].empty()) continue;
      if (!text.empty()) text += ' ';
      text += names[i];
    }
    fields.push_back({std::move(name), text.empty() ? "none" : text});
  }
};

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

std::string size_text(std::uint64_t bytes) {
  constexpr std::string_view kUnits[] = {"", "K", "M", "G", "T", "P", "E"};
  std::size_t unit = 0;
  while (bytes >= 1024 && bytes % 1024 == 0 && unit + 1 < std::size(kUnits)) bytes /= 1024, ++unit;
  return fmt::format("{}{}", bytes, kUnits[unit]);
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

void designated_vendor(Reader& r, const PciCapability&) {
  r.add("vendor", "{:04x}", r.u16(4));
  r.add("ID", "{:04x}", r.u16(8));
  r.add("revision", "{}", r.u16(6) & 15);
  r.add("length", "{:#x}", r.u16(6) >> 4);
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

struct Decoder {
  std::uint16_t id;
  bool extended;
  std::uint8_t bytes;  ///< What must be there for the decoder to make sense.
  void (*decode)(Reader&, const PciCapability&);
};

constexpr Decoder kDecoders[] = {
    {0x01, false, 6, power_management},
    {0x03, false, 4, vpd},
    {0x05, false, 10, msi},
    {0x09, false, 3, vendor},
    {0x0d, false, 8, bridge_subsystem},
    {0x10, false, 0x14, express},
    {0x11, false, 12, msix},
    {0x13, false, 4, advanced_features},
    {0x01, true, 0x18, aer},
    {0x03, true, 12, serial_number},
    {0x0b, true, 8, vendor_extended},
    {0x0d, true, 8, acs},
    {0x0e, true, 8, ari},
    {0x0f, true, 8, ats},
    {0x10, true, 0x40, sriov},
    {0x13, true, 16, page_request},
    {0x15, true, 12, resizable_bar},
    {0x18, true, 8, ltr},
    {0x1b, true, 8, pasid},
    {0x1d, true, 12, dpc},
    {0x1e, true, 12, l1_substates},
    {0x1f, true, 12, precision_time},
    {0x23, true, 10, designated_vendor},
    {0x24, true, 12, resizable_bar},
    {0x2e, true, 0x14, doe},
};

}  // namespace

std::vector<PciField> describe_capability(const ConfigSpace& config, const PciCapability& capability) {
  for (const Decoder& decoder : kDecoders) {
    if (decoder.id != capability.id || decoder.extended != capability.extended) continue;
    if (!config.contains(capability.offset, decoder.bytes)) return {};
    Reader reader{config, capability.offset, {}};
    decoder.decode(reader, capability);
    return std::move(reader.fields);
  }
  return {};
}

}  // namespace vm_platform
