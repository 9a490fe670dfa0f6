#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <cerrno>
#include <cstring>
#include <functional>
#include <vm_platform/pci_device.hpp>

#include "passthrough/pci_fill.hpp"
#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

constexpr const char* kDevices = "bus/pci/devices";

/// Identity and driver from the uevent file: one read instead of six.
void fill_from_uevent(PciDeviceInfo& info, std::string_view uevent) {
  while (!uevent.empty()) {
    std::string_view line = text::take(uevent, '\n');
    const std::string_view key = text::take(line, '=');
    if (key == "DRIVER") {
      info.driver = line;
    } else if (key == "PCI_CLASS") {
      info.class_code = text::number<std::uint32_t>(line, 16).value_or(0);
    } else if (key == "PCI_ID" || key == "PCI_SUBSYS_ID") {
      const auto vendor = text::number<std::uint16_t>(text::take(line, ':'), 16);
      const auto device = text::number<std::uint16_t>(line, 16);
      if (!vendor || !device) continue;
      (key == "PCI_ID" ? info.vendor : info.subsystem_vendor) = *vendor;
      (key == "PCI_ID" ? info.device : info.subsystem_device) = *device;
    }
  }
}

/// `../../../devices/pci0000:00/0000:00:1c.0/0000:01:00.0`: the path below the root, and the bridge above.
void fill_from_link(PciDeviceInfo& info, std::string_view target) {
  while (target.starts_with("../")) target.remove_prefix(3);
  info.device_path = target;
  std::string_view above = target.substr(0, std::min(target.rfind('/'), target.size()));
  if (const auto slash = above.rfind('/'); slash != std::string_view::npos) above.remove_prefix(slash + 1);
  if (const auto parent = PciAddress::parse(above)) info.parent = *parent;
}

/// False where the function is not there (any more). A list asks for three things of each function: opening its folder
/// first would be a third more system calls.
bool fill_basic(PciDeviceInfo& info, const KernelDirectory& devices, const std::string& name) {
  std::string path = name + '/';
  const auto attribute_path = [&, folder = path.size()](const char* attribute) {
    path.resize(folder);
    return (path += attribute).c_str();
  };
  std::array<char, 4096> buffer;
  const long length = devices.read_bytes(attribute_path("uevent"), buffer.data(), buffer.size());
  if (length > 0) fill_from_uevent(info, {buffer.data(), static_cast<std::size_t>(length)});
  const auto number = [&](const char* attribute) -> std::optional<std::uint32_t> {
    const auto text = devices.read(attribute_path(attribute));
    return text ? text::number<std::uint32_t>(text::trim(*text), 16) : std::nullopt;
  };
  if (info.vendor == 0xffff) {  // a copied tree may have no uevent files
    const auto vendor = number("vendor"), id = number("device"), class_code = number("class");
    if (!vendor || !id) return false;
    info.vendor = static_cast<std::uint16_t>(*vendor);
    info.device = static_cast<std::uint16_t>(*id);
    info.class_code = class_code.value_or(0);
    info.subsystem_vendor = static_cast<std::uint16_t>(number("subsystem_vendor").value_or(0));
    info.subsystem_device = static_cast<std::uint16_t>(number("subsystem_device").value_or(0));
    if (const auto driver = devices.link(attribute_path("driver")))
      info.driver = driver->substr(driver->rfind('/') + 1);
  }
  if (const auto group = devices.link(attribute_path("iommu_group")))
    info.iommu_group = text::number<int>(std::string_view(*group).substr(group->rfind('/') + 1));
  if (const auto target = devices.link(name.c_str())) fill_from_link(info, *target);
  return true;
}

/// What configuration space tells beyond identity, from its bytes 8 to 15: that many are enough for a list, and each
/// read of four costs a round to the device.
void fill_from_header(PciDeviceInfo& info, std::span<const std::uint8_t, 8> from_8) {
  info.revision = from_8[0];
  info.header_type = from_8[6] & 0x7f;
  info.multifunction = (from_8[6] & 0x80) != 0;
}

void fill_header(PciDeviceInfo& info, const KernelDirectory& devices, const std::string& name) {
  std::array<std::uint8_t, 8> from_8;
  if (devices.read_bytes((name + "/config").c_str(), from_8.data(), from_8.size(), 8) == 8)
    fill_from_header(info, from_8);
}

/// Bytes that the decoder of a capability looks at (PCI Express Base Specification 6.0, 7.5.2, 7.5.3, 7.7, 7.9); 0
/// where that depends on its content.
std::size_t decoded_length(PciCapId id) {
  switch (id) {
    case PciCapId::PowerManagement: return 8;
    case PciCapId::Msi: return 24;
    case PciCapId::Msix: return 12;
    case PciCapId::Express: return 60;
    case PciCapId::Vendor: return 4;  // its length is all that is known of it
    default: return 0;
  }
}

/// Reads what there is to decode in configuration space, and no more: each read of four bytes is a round to the device,
/// and hypervisors and slow buses make these rounds what a scan spends its time on.
class ConfigReader {
 public:
  explicit ConfigReader(Descriptor file) : file_(std::move(file)) {}

  ConfigSpace read() {
    const bool extended = read(kConventional, 4);
    if (read_header()) {
      read_capabilities();
      if (extended) read_extended();
    }
    return ConfigSpace({bytes_.data(), length_});
  }

 private:
  static constexpr std::size_t kConventional = 256, kHeader = 64;

  bool read(std::size_t offset, std::size_t size) {
    const ssize_t got = ::pread(file_.get(), bytes_.data() + offset, size, static_cast<off_t>(offset));
    if (got > 0) length_ = std::max(length_, offset + static_cast<std::size_t>(got));
    return got == static_cast<ssize_t>(size);
  }

  /// Of an ordinary function not the BARs and IDs in its middle, which sysfs tells without asking the device.
  bool read_header() {
    if (!read(0, 16)) return false;
    if ((bytes_[0x0e] & 0x7f) != 0) return read(16, kHeader - 16);
    return read(0x34, 4) && read(0x3c, 4);
  }

  void read_capabilities() {
    if ((bytes_[0x0e] & 0x7f) == 2) {  // CardBus: the list begins elsewhere
      read(kHeader, kConventional - kHeader);
      return;
    }
    if ((bytes_[0x06] & 0x10) == 0) return;
    std::size_t offset = bytes_[0x34] & 0xfcU, known_from = kConventional;
    for (int count = 0; offset >= kHeader && count < 48; ++count) {
      if (offset < known_from) {
        if (!read(offset, 4)) return;
        const std::size_t room = std::min(known_from, kConventional) - offset;
        std::size_t length = decoded_length(static_cast<PciCapId>(bytes_[offset]));
        if (length == 0) {
          known_from = offset;
          length = room;
        }
        if (std::min(length, room) > 4) read(offset + 4, std::min(length, room) - 4);
      }
      offset = bytes_[offset + 1] & 0xfcU;
    }
  }

  void read_extended() {
    constexpr std::size_t kLongest = 0x100;  // of those whose content does not say how many parts they have
    std::bitset<ConfigSpace::kMaxSize / 4> seen, whole;
    for (std::size_t offset = kConventional; offset >= kConventional && !seen.test(offset / 4);) {
      std::uint32_t header = 0;
      std::memcpy(&header, &bytes_[offset], sizeof(header));
      if (header == 0 || header == 0xffffffff) break;
      seen.set(offset / 4);
      const std::size_t next = header >> 20 & 0xffcU;
      if (next > offset && next - offset <= kLongest) {  // as most are: its rest and the next one's header at once
        if (!read(offset + 4, next - offset)) break;
        whole.set(offset / 4);
      } else if (next >= kConventional && !read(next, 4)) {
        break;
      }
      offset = next;
    }
    // The others from behind their headers to where the next one in the space begins.
    for (std::size_t start = kConventional / 4, next = 0; start < seen.size(); start = next) {
      for (next = start + 1; next < seen.size() && !seen.test(next);) ++next;
      if (!seen.test(start) || whole.test(start)) continue;
      std::uint16_t id = 0;
      std::memcpy(&id, &bytes_[4 * start], sizeof(id));
      const auto kind = static_cast<PciExtCapId>(id);
      const bool any_length = kind == PciExtCapId::RootComplexLink || kind == PciExtCapId::Ide ||
                              kind == PciExtCapId::Vendor || kind == PciExtCapId::DesignatedVendor;
      const std::size_t end = any_length ? 4 * next : std::min(4 * next, 4 * start + kLongest);
      if (end > 4 * start + 4) read(4 * start + 4, end - 4 * start - 4);
    }
  }

  Descriptor file_;
  std::array<std::uint8_t, ConfigSpace::kMaxSize> bytes_ = {};
  std::size_t length_ = 0;
};

/// sysfs `resource`: a line "start end flags" for each BAR, the ROM, then (with SR-IOV) the VF BARs.
void fill_bars(PciDeviceInfo& info, std::string_view resource) {
  constexpr std::uint64_t kIo = 0x100, kPrefetch = 0x2000, k64Bit = 0x100000;
  std::uint8_t limit = 7;
  if (info.sriov_total != 0) limit = 13;
  if (info.header_type == 1) limit = 2;  // lines 7 and on are the bridge's windows
  for (std::uint8_t line = 0; !resource.empty(); ++line) {
    const auto parts = text::words(text::take(resource, '\n'));
    if (parts.size() != 3 || (line >= limit && line != 6) || line >= 13) continue;
    const auto start = text::number(parts[0], 16), end = text::number(parts[1], 16), flags = text::number(parts[2], 16);
    if (!start || !end || !flags || *flags == 0 || *end < *start || (*end == 0 && *start == 0)) continue;
    info.bars.push_back(
        {line, (*flags & kIo) != 0, (*flags & k64Bit) != 0, (*flags & kPrefetch) != 0, *start, *end - *start + 1});
  }
}

/// Names in a device's own folder, looked for in it instead of by system calls that fail.
class Present {
 public:
  explicit Present(std::vector<std::string> names) : names_(std::move(names)) { std::ranges::sort(names_); }
  [[nodiscard]] bool has(std::string_view name) const { return std::ranges::binary_search(names_, name); }

 private:
  std::vector<std::string> names_;
};

/// What a driver made of the device: entries of the class folders below it, such as net/eth0.
std::vector<std::string> class_children(const Present& present, const KernelDirectory& device) {
  constexpr const char* kClasses[] = {"net",
                                      "nvme",
                                      "drm",
                                      "sound",
                                      "accel",
                                      "infiniband",
                                      "scsi_host",
                                      "block",
                                      "usb",
                                      "tty",
                                      "mdev_supported_types",
                                      "ptp",
                                      "dma",
                                      "graphics"};
  std::vector<std::string> children;
  for (const char* name : kClasses) {
    if (!present.has(name)) continue;
    const auto below = device.below(name);
    auto names = below ? below->list() : std::vector<std::string>{};
    std::ranges::sort(names);
    for (const std::string& child : names) children.push_back(std::string(name) + "/" + child);
  }
  return children;
}

void fill_full(PciDeviceInfo& info, const KernelDirectory& device) {
  const Present present(device.list());
  const auto read = [&](const char* attribute) {
    return present.has(attribute) ? device.read(attribute) : std::nullopt;
  };
  const auto number = [&](const char* attribute) -> std::optional<long long> {
    const auto text = read(attribute);
    return text ? text::number<long long>(text::trim(*text)) : std::nullopt;
  };
  info.config = ConfigReader(device.open_file("config")).read();
  if (info.config.contains(8, 8)) fill_from_header(info, info.config.bytes().subspan<8, 8>());
  info.capabilities = walk_capabilities(info.config);
  info.serial_number = decode_serial_number(info.config, info.capabilities);
  info.sriov_total = static_cast<std::uint16_t>(number("sriov_totalvfs").value_or(0));
  info.sriov_num = static_cast<std::uint16_t>(number("sriov_numvfs").value_or(0));
  if (const auto resource = read("resource")) fill_bars(info, *resource);
  info.numa_node = static_cast<int>(number("numa_node").value_or(-1));
  info.irq = static_cast<int>(number("irq").value_or(0));
  info.boot_vga = number("boot_vga").value_or(0) == 1;
  if (const auto text = read("driver_override"); text && *text != "(null)") info.driver_override = *text;
  if (const auto text = read("reset_method"))
    for (const std::string_view method : text::words(*text)) info.reset_methods.emplace_back(method);
  if (const auto text = read("label"); text && !text->empty()) info.label = *text;
  if (const auto index = number("acpi_index")) info.acpi_index = static_cast<std::uint32_t>(*index);
  if (const auto text = read("power_state"); text && *text != "unknown") info.power_state = *text;
  const auto address_of = [&](const char* link) -> std::optional<PciAddress> {
    const auto target = device.link(link);
    if (!target) return std::nullopt;
    const auto address = PciAddress::parse(std::string_view(*target).substr(target->rfind('/') + 1));
    return address ? std::optional(*address) : std::nullopt;
  };
  if (present.has("physfn")) info.physical_function = address_of("physfn");
  for (unsigned i = 0; i < info.sriov_num; ++i)
    if (const auto vf = address_of(fmt::format("virtfn{}", i).c_str())) info.virtual_functions.push_back(*vf);
  if (!info.driver.empty()) info.children = class_children(present, device);
}

/// Nothing where the function is not there (any more).
std::optional<PciDeviceInfo> read_function(const KernelDirectory& devices, PciAddress address, PciScanDetail detail) {
  const std::string name = address.to_string();
  std::optional<PciDeviceInfo> info(std::in_place);
  info->address = address;
  if (!fill_basic(*info, devices, name)) return std::nullopt;
  if (detail == PciScanDetail::Basic) {
    fill_header(*info, devices, name);
    return info;
  }
  const auto device = devices.below(name.c_str());
  if (!device) return std::nullopt;
  fill_full(*info, *device);
  return info;
}

}  // namespace

Result<void> visit_pci(const std::function<void(PciDeviceInfo)>& visit, const std::filesystem::path& sysfs,
                       PciScanDetail detail) {
  const auto devices = KernelDirectory::open(sysfs / kDevices);
  if (!devices) {
    if (devices.error().os_error() == ENOENT) {
      return fail(VmError(ErrorCode::Unsupported, "scan PCI", (sysfs / kDevices).string(), "no PCI bus")
                      .with_hint("mount sysfs at /sys, or run on a host with PCI"));
    }
    return fail(devices.error());
  }
  std::vector<PciAddress> addresses;
  for (const std::string& name : devices->list())
    if (const auto address = PciAddress::parse(name)) addresses.push_back(*address);
  std::ranges::sort(addresses);
  for (const PciAddress address : addresses)
    if (auto info = read_function(*devices, address, detail)) visit(std::move(*info));
  return {};
}

Result<std::vector<PciDeviceInfo>> scan_pci(const std::filesystem::path& sysfs, PciScanDetail detail) {
  std::vector<PciDeviceInfo> found;
  const auto visited = visit_pci([&](PciDeviceInfo info) { found.push_back(std::move(info)); }, sysfs, detail);
  if (!visited) return fail(visited.error());
  return found;
}

Result<PciDeviceInfo> read_pci_device(PciAddress address, const std::filesystem::path& sysfs) {
  const auto devices = KernelDirectory::open(sysfs / kDevices);
  auto info = devices ? read_function(*devices, address, PciScanDetail::Full) : std::nullopt;
  if (info) return std::move(*info);
  return fail(VmError(ErrorCode::NotFound, "read PCI device", address.to_string(), "no such device")
                  .with_hint("`vmp pci list` shows those that are there"));
}

void fill_from_config(PciDeviceInfo& info) {
  const ConfigSpace& config = info.config;
  info.vendor = config.u16(0);
  info.device = config.u16(2);
  info.revision = config.u8(8);
  info.class_code = config.u32(8) >> 8;
  info.header_type = config.u8(0x0e) & 0x7f;
  info.multifunction = (config.u8(0x0e) & 0x80) != 0;
  info.capabilities = walk_capabilities(config);
  info.serial_number = decode_serial_number(config, info.capabilities);
  if (const auto sriov = decode_sriov(config, info.capabilities)) {
    info.sriov_total = sriov->total_vfs;
    info.sriov_num = sriov->num_vfs;
  }
  std::size_t bars = 0;
  if (info.header_type == 0) {
    bars = 6;
    info.subsystem_vendor = config.u16(0x2c);
    info.subsystem_device = config.u16(0x2e);
  } else {
    if (info.header_type == 1) bars = 2;
    if (const auto* subsystem = info.capabilities.find(PciCapId::BridgeSubsystem)) {
      info.subsystem_vendor = config.u16(subsystem->offset + 4U);
      info.subsystem_device = config.u16(subsystem->offset + 6U);
    }
  }
  for (std::size_t i = 0; i < bars; ++i) {
    const std::uint32_t low = config.u32(0x10 + 4 * i);
    if (low == 0 || low == 0xffffffff) continue;
    PciBar bar;
    bar.index = static_cast<std::uint8_t>(i);
    bar.io = (low & 1) != 0;
    bar.is_64bit = !bar.io && (low & 6) == 4;
    bar.prefetchable = !bar.io && (low & 8) != 0;
    bar.base = bar.io ? low & ~3U : low & ~15U;
    if (bar.is_64bit && i + 1 < bars) bar.base |= static_cast<std::uint64_t>(config.u32(0x14 + 4 * i)) << 32, ++i;
    info.bars.push_back(bar);
  }
  const std::uint32_t rom = info.header_type <= 1 ? config.u32(info.header_type == 0 ? 0x30 : 0x38) : 0;
  if (rom != 0 && rom != 0xffffffff) info.bars.push_back({6, false, false, false, rom & ~0x7ffU, 0});
}

}  // namespace vm_platform
