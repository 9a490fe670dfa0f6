// Names and moments as ISO 9660 records them, turned into UTF-8 and seconds.
#pragma once

#include <string>
#include <vm_platform/iso.hpp>

#include "iso/bytes.hpp"

namespace vm_platform::iso {

/// Appends one code point as UTF-8.
void append_utf8(std::string& to, char32_t code_point);
/// Appends bytes that ought to be UTF-8; what is not valid is taken as Latin-1, so that different names stay different.
void append_as_utf8(std::string& to, std::string_view bytes);
/// Appends big-endian UTF-16; a lone surrogate becomes U+FFFD.
void append_utf16be(std::string& to, Bytes utf16);

/// A plain or enhanced file identifier without version (";1") and without the dot of an empty extension.
void append_plain_name(std::string& to, std::string_view identifier);
/// A Joliet file identifier without version.
void append_joliet_name(std::string& to, Bytes identifier);
/// A descriptor's text field without its padding.
[[nodiscard]] std::string padded_text(Bytes field, bool utf16);

/// Days from 1970-01-01 to a day of the proleptic Gregorian calendar; month and day may be out of range.
[[nodiscard]] constexpr std::int64_t days_from_civil(std::int64_t year, unsigned month, unsigned day) {
  year -= month <= 2;
  const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
  const auto year_of_era = static_cast<unsigned>(year - era * 400);
  const unsigned day_of_year = (153 * (month + (month > 2 ? static_cast<unsigned>(-3) : 9u)) + 2) / 5 + day - 1;
  const unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
  return era * 146097 + static_cast<std::int64_t>(day_of_era) - 719468;
}

/// The 7 bytes of a directory record (ECMA-119 9.1.5) and of Rock Ridge's short form.
[[nodiscard]] IsoTime short_time(Bytes b);
/// The 17 bytes of a volume descriptor (ECMA-119 8.4.26.1) and of Rock Ridge's long form.
[[nodiscard]] IsoTime long_time(Bytes b);

}  // namespace vm_platform::iso
