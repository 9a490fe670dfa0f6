#include <algorithm>
#include <bitset>
#include <cstring>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

ConfigSpace::ConfigSpace(std::span<const std::uint8_t> bytes)
    : bytes_(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(std::min(bytes.size(), kMaxSize))) {}

namespace {
template <typename T>
T load(std::span<const std::uint8_t> bytes, std::size_t offset) {
  T value = static_cast<T>(~T{0});
  if (offset <= bytes.size() && sizeof(T) <= bytes.size() - offset)
    std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}
}  // namespace

std::uint8_t ConfigSpace::u8(std::size_t offset) const noexcept { return load<std::uint8_t>(bytes_, offset); }
std::uint16_t ConfigSpace::u16(std::size_t offset) const noexcept { return load<std::uint16_t>(bytes_, offset); }
std::uint32_t ConfigSpace::u32(std::size_t offset) const noexcept { return load<std::uint32_t>(bytes_, offset); }
std::uint64_t ConfigSpace::u64(std::size_t offset) const noexcept { return load<std::uint64_t>(bytes_, offset); }

const PciCapability* PciCapabilities::find(PciCapId id) const {
  const auto found = std::ranges::find_if(list, [&](const PciCapability& capability) { return capability.is(id); });
  return found == list.end() ? nullptr : &*found;
}

const PciCapability* PciCapabilities::find(PciExtCapId id) const {
  const auto found = std::ranges::find_if(list, [&](const PciCapability& capability) { return capability.is(id); });
  return found == list.end() ? nullptr : &*found;
}

namespace {

std::string at(std::size_t offset) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text = "0x";
  for (int shift = offset > 0xff ? 8 : 4; shift >= 0; shift -= 4) text += kDigits[offset >> shift & 15];
  return text;
}

void walk_conventional(const ConfigSpace& config, PciCapabilities& found) {
  constexpr std::size_t kStatus = 0x06, kHeaderType = 0x0e;
  if (!config.contains(kHeaderType, 1) || (config.u16(kStatus) & 0x10) == 0) return;
  // CardBus bridges keep the pointer elsewhere (PC Card Standard); types 0 and 1 agree.
  std::size_t pointer_at = 0x34;
  if ((config.u8(kHeaderType) & 0x7f) == 2) pointer_at = 0x14;
  if (!config.contains(pointer_at, 1)) return;
  std::bitset<256> seen;
  std::size_t offset = config.u8(pointer_at) & 0xfcU;
  while (offset != 0) {
    if (offset < 0x40) {
      found.anomalies.push_back("capability pointer " + at(offset) + " points into the header");
      return;
    }
    if (!config.contains(offset, 2)) {
      if (config.size() > 64)
        found.anomalies.push_back("capability pointer " + at(offset) + " points past what was read");
      return;
    }
    if (seen.test(offset)) {
      found.anomalies.push_back("capability list has a cycle at " + at(offset));
      return;
    }
    seen.set(offset);
    const std::uint8_t id = config.u8(offset);
    if (id == 0xff) {
      found.anomalies.push_back("capability at " + at(offset) + " reads as all ones");
      return;
    }
    found.list.push_back({id, static_cast<std::uint16_t>(offset), 0, false});
    offset = config.u8(offset + 1) & 0xfcU;
  }
}

void walk_extended(const ConfigSpace& config, PciCapabilities& found) {
  // Bridges from PCI-X to PCIe alias the first 256 bytes here; such a list is garbage that has to be survived, and a
  // function without PCI Express (or PCI-X 2.0) has no such list at all.
  if (!config.contains(0x100, 4)) return;
  if (found.find(PciCapId::Express) == nullptr && found.find(PciCapId::PciX) == nullptr) return;
  std::bitset<ConfigSpace::kMaxSize / 4> seen;
  std::size_t offset = 0x100;
  while (offset != 0) {
    if (offset < 0x100) {
      found.anomalies.push_back("extended capability pointer " + at(offset) + " points below 0x100");
      return;
    }
    if (!config.contains(offset, 4)) {
      found.anomalies.push_back("extended capability pointer " + at(offset) + " points past what was read");
      return;
    }
    if (seen.test(offset / 4)) {
      found.anomalies.push_back("extended capability list has a cycle at " + at(offset));
      return;
    }
    seen.set(offset / 4);
    const std::uint32_t header = config.u32(offset);
    if (header == 0xffffffff) {
      found.anomalies.push_back("extended capability at " + at(offset) + " reads as all ones");
      return;
    }
    const auto id = static_cast<std::uint16_t>(header & 0xffff);
    const std::size_t next = header >> 20 & 0xffcU;
    // ID 0 with no version is a placeholder: the first entry of a function that has none, or one hidden by firmware.
    if (header == 0) return;
    if (id != 0) {
      found.list.push_back(
          {id, static_cast<std::uint16_t>(offset), static_cast<std::uint8_t>(header >> 16 & 15), true});
    }
    offset = next;
  }
}

struct NamedId {
  std::uint16_t id;
  std::string_view name;
};

constexpr NamedId kNames[] = {
    {0x01, "Power Management"},
    {0x02, "AGP"},
    {0x03, "Vital Product Data"},
    {0x04, "Slot ID"},
    {0x05, "MSI"},
    {0x06, "CompactPCI hot-swap"},
    {0x07, "PCI-X"},
    {0x08, "HyperTransport"},
    {0x09, "Vendor Specific"},
    {0x0a, "Debug port"},
    {0x0b, "CompactPCI central resource control"},
    {0x0c, "Hot-plug capable"},
    {0x0d, "Bridge Subsystem"},
    {0x0e, "AGP3"},
    {0x0f, "Secure device"},
    {0x10, "Express"},
    {0x11, "MSI-X"},
    {0x12, "SATA HBA"},
    {0x13, "PCI Advanced Features"},
    {0x14, "Enhanced Allocation"},
    {0x15, "Flattening Portal Bridge"},
};

constexpr NamedId kExtendedNames[] = {
    {0x01, "Advanced Error Reporting"},
    {0x02, "Virtual Channel"},
    {0x03, "Device Serial Number"},
    {0x04, "Power Budgeting"},
    {0x05, "Root Complex Link"},
    {0x06, "Root Complex Internal Link"},
    {0x07, "Root Complex Event Collector"},
    {0x08, "Multi-Function Virtual Channel"},
    {0x09, "Virtual Channel"},
    {0x0a, "Root Complex Register Block"},
    {0x0b, "Vendor Specific Information"},
    {0x0c, "Configuration Access Correlation"},
    {0x0d, "Access Control Services"},
    {0x0e, "Alternative Routing-ID Interpretation (ARI)"},
    {0x0f, "Address Translation Service (ATS)"},
    {0x10, "Single Root I/O Virtualization (SR-IOV)"},
    {0x11, "Multi-Root I/O Virtualization"},
    {0x12, "Multicast"},
    {0x13, "Page Request Interface (PRI)"},
    {0x14, "Reserved for AMD"},
    {0x15, "Physical Resizable BAR"},
    {0x16, "Dynamic Power Allocation"},
    {0x17, "Transaction Processing Hints"},
    {0x18, "Latency Tolerance Reporting"},
    {0x19, "Secondary PCI Express"},
    {0x1a, "Protocol Multiplexing"},
    {0x1b, "Process Address Space ID (PASID)"},
    {0x1c, "LN Requester"},
    {0x1d, "Downstream Port Containment"},
    {0x1e, "L1 PM Substates"},
    {0x1f, "Precision Time Measurement"},
    {0x20, "PCI Express over M-PHY"},
    {0x21, "FRS Queueing"},
    {0x22, "Readiness Time Reporting"},
    {0x23, "Designated Vendor-Specific"},
    {0x24, "Virtual Resizable BAR"},
    {0x25, "Data Link Feature"},
    {0x26, "Physical Layer 16.0 GT/s"},
    {0x27, "Lane Margining at the Receiver"},
    {0x28, "Hierarchy ID"},
    {0x29, "Native PCIe Enclosure Management"},
    {0x2a, "Physical Layer 32.0 GT/s"},
    {0x2b, "Alternate Protocol"},
    {0x2c, "System Firmware Intermediary"},
    {0x2d, "Shadow Functions"},
    {0x2e, "Data Object Exchange"},
    {0x2f, "Device 3"},
    {0x30, "Integrity & Data Encryption"},
    {0x31, "Physical Layer 64.0 GT/s"},
    {0x32, "Flit Logging"},
    {0x33, "Flit Performance Measurement"},
    {0x34, "Flit Error Injection"},
};

}  // namespace

PciCapabilities walk_capabilities(const ConfigSpace& config) {
  PciCapabilities found;
  walk_conventional(config, found);
  walk_extended(config, found);
  return found;
}

std::string capability_name(const PciCapability& capability) {
  const std::span<const NamedId> names =
      capability.extended ? std::span<const NamedId>(kExtendedNames) : std::span<const NamedId>(kNames);
  for (const NamedId& named : names)
    if (named.id == capability.id) return std::string(named.name);
  return "unknown (" + at(capability.id) + ")";
}

}  // namespace vm_platform
