// Registers of the capabilities that decisions rest on, as typed values.
#include <algorithm>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

std::optional<PciExpressInfo> decode_express(const ConfigSpace& config, const PciCapabilities& capabilities) {
  const auto* found = capabilities.find(PciCapId::Express);
  if (found == nullptr || !config.contains(found->offset, 0x14)) return std::nullopt;
  const std::size_t base = found->offset;
  const std::uint16_t flags = config.u16(base + 2), control = config.u16(base + 8), status = config.u16(base + 0x12);
  const std::uint32_t device = config.u32(base + 4), link = config.u32(base + 0x0c);
  PciExpressInfo info;
  info.port = static_cast<PciExpressInfo::Port>(flags >> 4 & 15);
  info.slot_implemented = (flags & 1 << 8) != 0;
  info.function_level_reset = (device & 1U << 28) != 0;
  info.max_payload_supported = static_cast<std::uint16_t>(128U << (device & 7));
  info.max_payload = static_cast<std::uint16_t>(128U << (control >> 5 & 7));
  const bool has_link =
      info.port != PciExpressInfo::Port::IntegratedEndpoint && info.port != PciExpressInfo::Port::EventCollector;
  if (has_link) {
    info.max_link_speed = static_cast<std::uint8_t>(link & 15);
    info.max_link_width = static_cast<std::uint8_t>(link >> 4 & 63);
    info.link_speed = static_cast<std::uint8_t>(status & 15);
    info.link_width = static_cast<std::uint8_t>(status >> 4 & 63);
  }
  return info;
}

std::optional<PciMsiInfo> decode_msi(const ConfigSpace& config, const PciCapabilities& capabilities) {
  const auto* found = capabilities.find(PciCapId::Msi);
  if (found == nullptr || !config.contains(found->offset, 4)) return std::nullopt;
  const std::uint16_t control = config.u16(found->offset + 2U);
  PciMsiInfo info;
  info.enabled = (control & 1) != 0;
  // Encodings 6 and 7 are reserved: read them as the largest that exists.
  info.vectors = static_cast<std::uint8_t>(1U << std::min(control >> 1 & 7, 5));
  info.enabled_vectors = static_cast<std::uint8_t>(1U << std::min(control >> 4 & 7, 5));
  info.address64 = (control & 1 << 7) != 0;
  info.maskable = (control & 1 << 8) != 0;
  return info;
}

std::optional<PciMsixInfo> decode_msix(const ConfigSpace& config, const PciCapabilities& capabilities) {
  const auto* found = capabilities.find(PciCapId::Msix);
  if (found == nullptr || !config.contains(found->offset, 12)) return std::nullopt;
  const std::uint16_t control = config.u16(found->offset + 2U);
  const std::uint32_t table = config.u32(found->offset + 4U), pba = config.u32(found->offset + 8U);
  PciMsixInfo info;
  info.enabled = (control & 1 << 15) != 0;
  info.masked = (control & 1 << 14) != 0;
  info.vectors = static_cast<std::uint16_t>((control & 0x7ff) + 1);
  info.table_bar = static_cast<std::uint8_t>(table & 7);
  info.table_offset = table & ~7U;
  info.pba_bar = static_cast<std::uint8_t>(pba & 7);
  info.pba_offset = pba & ~7U;
  return info;
}

std::optional<PciSriovInfo> decode_sriov(const ConfigSpace& config, const PciCapabilities& capabilities) {
  const auto* found = capabilities.find(PciExtCapId::Sriov);
  if (found == nullptr || !config.contains(found->offset, 0x40)) return std::nullopt;
  const std::size_t base = found->offset;
  const std::uint16_t control = config.u16(base + 8);
  PciSriovInfo info;
  info.enabled = (control & 1) != 0;
  info.memory_enabled = (control & 1 << 3) != 0;
  info.ari_hierarchy = (control & 1 << 4) != 0;
  info.initial_vfs = config.u16(base + 0x0c);
  info.total_vfs = config.u16(base + 0x0e);
  info.num_vfs = config.u16(base + 0x10);
  info.offset = config.u16(base + 0x14);
  info.stride = config.u16(base + 0x16);
  info.device_id = config.u16(base + 0x1a);
  info.supported_page_sizes = config.u32(base + 0x1c);
  info.page_size = config.u32(base + 0x20);
  return info;
}

std::optional<PciAcsInfo> decode_acs(const ConfigSpace& config, const PciCapabilities& capabilities) {
  const auto* found = capabilities.find(PciExtCapId::Acs);
  if (found == nullptr || !config.contains(found->offset, 8)) return std::nullopt;
  return PciAcsInfo{config.u16(found->offset + 4U), config.u16(found->offset + 6U)};
}

std::optional<std::uint64_t> decode_serial_number(const ConfigSpace& config, const PciCapabilities& capabilities) {
  const auto* found = capabilities.find(PciExtCapId::SerialNumber);
  if (found == nullptr || !config.contains(found->offset, 12)) return std::nullopt;
  const std::uint64_t serial = config.u64(found->offset + 4U);
  // All zeros or ones is what cards without a programmed number give.
  if (serial == 0 || serial == UINT64_MAX) return std::nullopt;
  return serial;
}

std::vector<PciResizableBar> decode_resizable_bars(const ConfigSpace& config, const PciCapabilities& capabilities,
                                                   PciExtCapId id) {
  std::vector<PciResizableBar> bars;
  const auto* found = capabilities.find(id);
  if (found == nullptr || !config.contains(found->offset, 12)) return bars;
  const unsigned count = std::min(config.u32(found->offset + 8U) >> 5 & 7, 6U);
  for (unsigned i = 0; i < count; ++i) {
    const std::size_t entry = found->offset + 4U + i * 8U;
    if (!config.contains(entry, 8)) break;
    const std::uint32_t capability = config.u32(entry), control = config.u32(entry + 4);
    PciResizableBar bar;
    bar.bar = static_cast<std::uint8_t>(control & 7);
    // Bits 31:4 of the capability are 1 MiB to 128 TiB, bits 31:16 of the control continue to 8 EiB.
    bar.sizes = static_cast<std::uint64_t>(capability >> 4) | static_cast<std::uint64_t>(control >> 16) << 28;
    const unsigned size = control >> 8 & 63;
    bar.current = size + 20 < 64 ? 1ULL << (size + 20) : 0;
    bars.push_back(bar);
  }
  return bars;
}

std::string_view link_speed_name(std::uint8_t code) {
  constexpr std::string_view kSpeeds[] = {"", "2.5 GT/s", "5 GT/s", "8 GT/s", "16 GT/s", "32 GT/s", "64 GT/s"};
  return code < std::size(kSpeeds) ? kSpeeds[code] : std::string_view{};
}

}  // namespace vm_platform
