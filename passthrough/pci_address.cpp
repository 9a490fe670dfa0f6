#include <array>
#include <vm_platform/pci.hpp>

#include "passthrough/text.hpp"

namespace vm_platform {

Result<PciAddress> PciAddress::parse(std::string_view text) {
  const auto bad = [&] {
    return fail(VmError(ErrorCode::InvalidArgument, "read PCI address", "'" + std::string(text) + "'",
                        "not domain:bus:device.function")
                    .with_hint("write it as in 0000:3b:00.0 or 3b:00.0; `vmp pci list` shows them"));
  };
  const auto field = [](std::string_view part, std::size_t min, std::size_t max,
                        std::uint32_t limit) -> std::optional<std::uint32_t> {
    if (part.size() < min || part.size() > max || part.starts_with("0x")) return std::nullopt;
    const auto value = text::number<std::uint32_t>(part, 16);
    return value && *value <= limit ? value : std::nullopt;
  };
  std::string_view rest = text;
  PciAddress address;
  if (const auto first = text.find(':'); first != std::string_view::npos && first != text.rfind(':')) {
    const auto domain = field(text::take(rest, ':'), 4, 8, 0xffffffff);
    if (!domain) return bad();
    address.domain = *domain;
  }
  if (rest.find(':') == std::string_view::npos) return bad();
  const auto bus = field(text::take(rest, ':'), 1, 2, 0xff);
  if (rest.find('.') == std::string_view::npos) return bad();
  const auto device = field(text::take(rest, '.'), 1, 2, 0x1f);
  const auto function = field(rest, 1, 1, 7);
  if (!bus || !device || !function) return bad();
  address.bus = static_cast<std::uint8_t>(*bus);
  address.device = static_cast<std::uint8_t>(*device);
  address.function = static_cast<std::uint8_t>(*function);
  return address;
}

std::string PciAddress::to_string() const {
  std::array<char, 17> text;  // "00000000:00:00.00" at most, filled from its end: a scan writes thousands of these
  char* first = text.data() + text.size();
  const auto put = [&first](std::uint32_t value, int digits) {
    for (; digits > 0 || value != 0; --digits, value >>= 4) *--first = "0123456789abcdef"[value & 0xf];
  };
  put(function, 1);
  *--first = '.';
  put(device, 2);
  *--first = ':';
  put(bus, 2);
  *--first = ':';
  put(domain, 4);
  return {first, text.data() + text.size()};
}

}  // namespace vm_platform
