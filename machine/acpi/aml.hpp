// Writes ACPI Machine Language: just the terms that our DSDT needs.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace vm_platform::aml {

using Bytes = std::vector<std::uint8_t>;

/// ACPI 6.4, chapter 20. Each function returns the encoding of one term; terms nest by `+`.
Bytes operator+(Bytes left, const Bytes& right);

Bytes integer(std::uint64_t value);
Bytes string(std::string_view text);
/// A name of up to four characters in each segment: `_HID`, `\_SB`, `^PCI0`.
Bytes name_string(std::string_view name);
/// `PNP0501` as the compressed EISA ID of 19.3.4.
Bytes eisa_id(std::string_view id);

Bytes name(std::string_view name, const Bytes& value);
Bytes scope(std::string_view name, const Bytes& body);
Bytes device(std::string_view name, const Bytes& body);
Bytes method(std::string_view name, unsigned arguments, const Bytes& body);
Bytes package(const std::vector<Bytes>& elements);
Bytes return_value(const Bytes& value);
Bytes store(const Bytes& from, const Bytes& to);
Bytes argument(unsigned index);
Bytes if_then(const Bytes& condition, const Bytes& body);

/// Resource descriptors (6.4) and their list.
Bytes resources(const Bytes& descriptors);
Bytes io(std::uint16_t first, std::uint8_t length);
Bytes irq(unsigned number);
Bytes fixed_memory(std::uint32_t base, std::uint32_t length);
Bytes bus_range(std::uint16_t first, std::uint16_t last);
Bytes io_window(std::uint16_t first, std::uint16_t last);
Bytes memory_window(std::uint32_t first, std::uint32_t last);
Bytes memory_window64(std::uint64_t first, std::uint64_t last);

}  // namespace vm_platform::aml
