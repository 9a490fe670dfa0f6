// How capabilities are told to people: a reader of registers that collects named fields, and the decoders by their
// lists.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#include <vm_platform/pci_device.hpp>

namespace vm_platform {

/// Offsets count from the start of the capability. What is not there reads as ones.
struct CapabilityReader {
  const ConfigSpace& config;
  std::size_t base;
  std::vector<PciField> fields;

  [[nodiscard]] std::uint8_t u8(std::size_t offset) const { return config.u8(base + offset); }
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

struct CapabilityDecoder {
  std::uint16_t id;
  std::uint8_t bytes;  ///< What must be there for the decoder to make sense.
  void (*decode)(CapabilityReader&, const PciCapability&);
};

/// Those of buses that PCI Express succeeded, and of conventional lists besides PCI Express itself.
[[nodiscard]] std::span<const CapabilityDecoder> legacy_decoders();
/// Extended capabilities about links, lanes and traffic.
[[nodiscard]] std::span<const CapabilityDecoder> link_decoders();

}  // namespace vm_platform
