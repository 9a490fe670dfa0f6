#include "machine/acpi/aml.hpp"

#include <string>

namespace vm_platform::aml {
namespace {

void put(Bytes& out, std::uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) out.push_back(static_cast<std::uint8_t>(value >> (i * 8)));
}

/// PkgLength (20.2.4) counts itself.
Bytes with_length(const Bytes& body) {
  Bytes out;
  if (body.size() + 1 <= 0x3f) {
    put(out, body.size() + 1, 1);
  } else {
    const unsigned extra = body.size() + 2 <= 0xfff ? 1 : 2;
    const std::size_t total = body.size() + 1 + extra;
    put(out, extra << 6 | (total & 0xf), 1);
    put(out, total >> 4, extra);
  }
  return std::move(out) + body;
}

Bytes large(std::uint8_t type, const Bytes& body) {
  Bytes out{type};
  put(out, body.size(), 2);
  return std::move(out) + body;
}

/// Address space descriptors (6.4.3.5): type 0 memory, 1 I/O, 2 bus numbers. Fixed at both ends, positive decode.
Bytes window(std::uint8_t type, std::uint8_t flags, std::uint64_t first, std::uint64_t last, unsigned width) {
  Bytes body{type, 0x0c, flags};
  put(body, 0, width);
  put(body, first, width);
  put(body, last, width);
  put(body, 0, width);
  put(body, last - first + 1, width);
  return large(width == 2 ? 0x88 : width == 4 ? 0x87 : 0x8a, body);
}

}  // namespace

Bytes operator+(Bytes left, const Bytes& right) {
  for (const std::uint8_t byte : right) left.push_back(byte);
  return left;
}

Bytes integer(std::uint64_t value) {
  if (value <= 1) return {static_cast<std::uint8_t>(value)};
  const unsigned size = value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
  Bytes out{static_cast<std::uint8_t>(size == 1 ? 0x0a : size == 2 ? 0x0b : size == 4 ? 0x0c : 0x0e)};
  put(out, value, size);
  return out;
}

Bytes string(std::string_view text) {
  Bytes out{0x0d};
  for (const char c : text) out.push_back(static_cast<std::uint8_t>(c));
  out.push_back(0);
  return out;
}

Bytes name_string(std::string_view name) {
  Bytes out;
  while (!name.empty() && (name.front() == '\\' || name.front() == '^')) {
    out.push_back(static_cast<std::uint8_t>(name.front()));
    name.remove_prefix(1);
  }
  if (name.empty()) out.push_back(0);
  for (std::size_t i = 0; !name.empty() && i < 4; ++i)
    out.push_back(i < name.size() ? static_cast<std::uint8_t>(name[i]) : std::uint8_t{'_'});
  return out;
}

Bytes eisa_id(std::string_view id) {
  const auto hex = [&](std::size_t at) {
    const char c = id[at];
    return static_cast<std::uint32_t>(c <= '9' ? c - '0' : c - 'A' + 10);
  };
  const auto letter = [&](std::size_t at) { return static_cast<std::uint32_t>(id[at] - '@') & 0x1f; };
  const std::uint32_t value =
      letter(0) << 26 | letter(1) << 21 | letter(2) << 16 | hex(3) << 12 | hex(4) << 8 | hex(5) << 4 | hex(6);
  return integer(__builtin_bswap32(value));
}

Bytes name(std::string_view name, const Bytes& value) { return Bytes{0x08} + name_string(name) + value; }
Bytes scope(std::string_view name, const Bytes& body) { return Bytes{0x10} + with_length(name_string(name) + body); }
Bytes device(std::string_view name, const Bytes& body) {
  return Bytes{0x5b, 0x82} + with_length(name_string(name) + body);
}
Bytes method(std::string_view name, unsigned arguments, const Bytes& body) {
  return Bytes{0x14} + with_length(name_string(name) + Bytes{static_cast<std::uint8_t>(arguments)} + body);
}
Bytes package(const std::vector<Bytes>& elements) {
  Bytes body{static_cast<std::uint8_t>(elements.size())};
  for (const Bytes& element : elements) body = std::move(body) + element;
  return Bytes{0x12} + with_length(body);
}
Bytes return_value(const Bytes& value) { return Bytes{0xa4} + value; }
Bytes store(const Bytes& from, const Bytes& to) { return Bytes{0x70} + from + to; }
Bytes argument(unsigned index) { return {static_cast<std::uint8_t>(0x68 + index)}; }
Bytes if_then(const Bytes& condition, const Bytes& body) { return Bytes{0xa0} + with_length(condition + body); }

Bytes resources(const Bytes& descriptors) {
  const Bytes body = descriptors + Bytes{0x79, 0x00};  // end tag, checksum not used
  return Bytes{0x11} + with_length(integer(body.size()) + body);
}
Bytes io(std::uint16_t first, std::uint8_t length) {
  Bytes out{0x47, 0x01};  // decodes 16 bits
  put(out, first, 2);
  put(out, first, 2);
  out.push_back(1);
  out.push_back(length);
  return out;
}
Bytes irq(unsigned number) {
  Bytes out{0x22};  // edge-triggered, active high, exclusive
  put(out, std::uint64_t{1} << number, 2);
  return out;
}
Bytes fixed_memory(std::uint32_t base, std::uint32_t length) {
  Bytes body{0x01};
  put(body, base, 4);
  put(body, length, 4);
  return large(0x86, body);
}
Bytes bus_range(std::uint16_t first, std::uint16_t last) { return window(2, 0, first, last, 2); }
Bytes io_window(std::uint16_t first, std::uint16_t last) { return window(1, 3, first, last, 2); }
Bytes memory_window(std::uint32_t first, std::uint32_t last) { return window(0, 1, first, last, 4); }
Bytes memory_window64(std::uint64_t first, std::uint64_t last) { return window(0, 1, first, last, 8); }

}  // namespace vm_platform::aml
