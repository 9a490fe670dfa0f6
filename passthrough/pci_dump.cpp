// PCI functions from text: hex dumps of lspci, and the udev database.
#include <algorithm>
#include <map>
#include <vm_platform/pci_device.hpp>

#include "passthrough/pci_fill.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

/// "1a0: 00 ff …": the offset and up to 16 bytes; nothing for other lines.
struct HexLine {
  std::size_t offset;
  std::vector<std::uint8_t> bytes;
};

std::optional<HexLine> hex_line(std::string_view line) {
  const auto colon = line.find(':');
  if (colon == std::string_view::npos || colon < 2 || colon > 3 || line.size() < colon + 4 || line[colon + 1] != ' ')
    return std::nullopt;
  const auto offset = text::number<std::size_t>(line.substr(0, colon), 16);
  if (!offset || *offset % 16 != 0) return std::nullopt;
  HexLine parsed{*offset, {}};
  for (const std::string_view word : text::words(line.substr(colon + 1))) {
    const auto byte = text::number<std::uint8_t>(word, 16);
    if (word.size() != 2 || !byte || parsed.bytes.size() == 16) return std::nullopt;
    parsed.bytes.push_back(*byte);
  }
  return parsed;
}

/// A function's own line starts with its address; lines of verbose output are indented.
std::optional<PciAddress> address_line(std::string_view line) {
  if (line.empty() || line.front() == '\t' || line.front() == ' ') return std::nullopt;
  const auto address = PciAddress::parse(line.substr(0, line.find(' ')));
  return address ? std::optional(*address) : std::nullopt;
}

/// The bridge above each function, from the bus numbers that bridges hold (in configuration space at 0x19).
void connect(std::vector<PciDeviceInfo>& functions) {
  std::map<std::pair<std::uint32_t, std::uint8_t>, PciAddress> bridge_of_bus;
  for (const PciDeviceInfo& function : functions)
    if (function.header_type == 1 && function.config.u8(0x19) != 0)
      bridge_of_bus.emplace(std::pair(function.address.domain, function.config.u8(0x19)), function.address);
  for (PciDeviceInfo& function : functions) {
    const auto bridge = bridge_of_bus.find({function.address.domain, function.address.bus});
    if (bridge != bridge_of_bus.end() && bridge->second != function.address) function.parent = bridge->second;
  }
}

std::unexpected<VmError> nothing_found(const char* what) {
  return fail(VmError(ErrorCode::Corrupt, "read PCI dump", {}, std::string("no ") + what + " in it")
                  .with_hint("make one with `lspci -D -xxxx` as root, or with `udevadm info --export-db`"));
}

}  // namespace

Result<std::vector<PciDeviceInfo>> parse_lspci_dump(std::string_view text) {
  std::vector<PciDeviceInfo> functions;
  std::vector<std::uint8_t> bytes;
  std::optional<PciAddress> current;
  const auto finish = [&] {
    if (current && bytes.size() >= 64) {
      PciDeviceInfo info;
      info.address = *current;
      info.config = ConfigSpace(bytes);
      fill_from_config(info);
      functions.push_back(std::move(info));
    }
    current.reset();
    bytes.clear();
  };
  std::size_t number = 0;
  while (!text.empty()) {
    std::string_view line = text::take(text, '\n');
    if (line.ends_with('\r')) line.remove_suffix(1);
    ++number;
    if (const auto address = address_line(line)) {
      finish();
      current = *address;
    } else if (const auto hex = hex_line(line); hex && current) {
      if (hex->offset != bytes.size() || bytes.size() + hex->bytes.size() > ConfigSpace::kMaxSize) {
        return fail(ErrorCode::Corrupt, "read PCI dump", "line " + std::to_string(number),
                    "the bytes of " + current->to_string() + " do not continue where the line before ended");
      }
      bytes.insert(bytes.end(), hex->bytes.begin(), hex->bytes.end());
    }
  }
  finish();
  if (functions.empty()) return nothing_found("function with a hex dump");
  std::ranges::sort(functions, {}, &PciDeviceInfo::address);
  connect(functions);
  return functions;
}

Result<std::vector<PciDeviceInfo>> parse_udev_database(std::string_view text) {
  std::vector<PciDeviceInfo> functions;
  std::vector<std::string> others;  // device paths of everything that is not PCI, to find children among them
  while (!text.empty()) {
    std::string_view record = text.substr(0, text.find("\n\n"));
    text.remove_prefix(std::min(text.size(), record.size() + 2));
    PciDeviceInfo info;
    bool is_pci = false, has_address = false;
    std::string path, subsystem;
    while (!record.empty()) {
      std::string_view line = text::take(record, '\n');
      if (line.starts_with("P: ")) path = line.substr(3);
      if (!line.starts_with("E: ")) continue;
      line.remove_prefix(3);
      const std::string_view key = text::take(line, '=');
      if (key == "SUBSYSTEM") subsystem = line;
      if (key == "DRIVER") info.driver = line;
      if (key == "PCI_CLASS") info.class_code = text::number<std::uint32_t>(line, 16).value_or(0);
      if (key == "PCI_SLOT_NAME") {
        if (const auto address = PciAddress::parse(line)) info.address = *address, has_address = true;
      }
      if (key == "PCI_ID" || key == "PCI_SUBSYS_ID") {
        const auto vendor = text::number<std::uint16_t>(text::take(line, ':'), 16);
        const auto device = text::number<std::uint16_t>(line, 16);
        (key == "PCI_ID" ? info.vendor : info.subsystem_vendor) = vendor.value_or(0xffff);
        (key == "PCI_ID" ? info.device : info.subsystem_device) = device.value_or(0xffff);
        is_pci = true;
      }
    }
    while (path.starts_with('/')) path.erase(0, 1);
    if (subsystem != "pci" || !is_pci || !has_address) {
      others.push_back(path);
      continue;
    }
    if (info.class_code >> 16 == 0x06 && (info.class_code >> 8 & 0xff) != 0) info.header_type = 1;
    info.device_path = path;
    const std::string_view above = std::string_view(path).substr(0, std::min(path.rfind('/'), path.size()));
    if (const auto parent = PciAddress::parse(above.substr(above.rfind('/') + 1))) info.parent = *parent;
    functions.push_back(std::move(info));
  }
  if (functions.empty()) return nothing_found("PCI function");
  std::ranges::sort(functions, {}, &PciDeviceInfo::address);
  for (PciDeviceInfo& function : functions) {
    const std::string below = function.device_path + "/";
    for (const std::string& path : others) {
      if (!path.starts_with(below)) continue;
      const std::string child = path.substr(below.size());
      if (std::ranges::count(child, '/') == 1) function.children.push_back(child);
    }
  }
  return functions;
}

Result<std::vector<PciDeviceInfo>> parse_pci_dump(std::string_view text) {
  return text.starts_with("P: ") || text.find("\nP: /") != std::string_view::npos ? parse_udev_database(text)
                                                                                  : parse_lspci_dump(text);
}

}  // namespace vm_platform
