#include "iso/text.hpp"

#include <cstring>

#include "core/utf8.hpp"

namespace vm_platform::iso {

void append_utf8(std::string& to, char32_t c) {
  const auto put = [&](char32_t byte) { to += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6));
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | (c >> 18));
    put(0x80 | ((c >> 12) & 0x3F));
    put(0x80 | ((c >> 6) & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

void append_as_utf8(std::string& to, std::string_view bytes) {
  // Nearly all names are ASCII: eight bytes at a time tell.
  std::uint64_t high = 0;
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + at, 8);
    high |= word;
  }
  for (; at < bytes.size(); ++at) high |= static_cast<unsigned char>(bytes[at]);
  if ((high & 0x8080808080808080u) == 0) {
    to.append(bytes);
    return;
  }
  while (!bytes.empty()) {
    const std::size_t length = utf8_length(bytes);
    if (length == 0) {
      append_utf8(to, static_cast<unsigned char>(bytes[0]));
      bytes.remove_prefix(1);
    } else {
      to.append(bytes.substr(0, length));
      bytes.remove_prefix(length);
    }
  }
}

void append_utf16be(std::string& to, Bytes utf16) {
  for (std::size_t i = 0; i + 1 < utf16.size(); i += 2) {
    char32_t c = be16(utf16, i);
    if (c >= 0xD800 && c < 0xDC00 && i + 3 < utf16.size()) {
      const char32_t low = be16(utf16, i + 2);
      if (low >= 0xDC00 && low < 0xE000) {
        append_utf8(to, 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00));
        i += 2;
        continue;
      }
    }
    append_utf8(to, c >= 0xD800 && c < 0xE000 ? U'\uFFFD' : c);
  }
}

namespace {
/// Where ";digits" at the end begins, or the whole length.
std::size_t without_version(std::string_view name) {
  std::size_t end = name.size();
  while (end > 0 && name[end - 1] >= '0' && name[end - 1] <= '9') --end;
  return end > 0 && name[end - 1] == ';' ? end - 1 : name.size();
}
}  // namespace

void append_plain_name(std::string& to, std::string_view identifier) {
  identifier = identifier.substr(0, without_version(identifier));
  if (identifier.size() > 1 && identifier.ends_with('.')) identifier.remove_suffix(1);
  append_as_utf8(to, identifier);
}

void append_joliet_name(std::string& to, Bytes identifier) {
  const std::size_t before = to.size();
  append_utf16be(to, identifier);
  to.resize(before + without_version(std::string_view(to).substr(before)));
}

std::string padded_text(Bytes field, bool utf16) {
  std::string value;
  if (utf16) {
    append_utf16be(value, field);
  } else {
    append_as_utf8(value, text(field, 0, field.size()));
  }
  // Padded with spaces; some writers pad with zeros.
  while (!value.empty() && (value.back() == ' ' || value.back() == '\0')) value.pop_back();
  return value;
}

IsoTime short_time(Bytes b) {
  IsoTime time;
  const unsigned month = u8(b, 1), day = u8(b, 2), hour = u8(b, 3), minute = u8(b, 4), second = u8(b, 5);
  if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59) return time;
  const auto zone = static_cast<std::int8_t>(u8(b, 6));
  time.zone_minutes = zone >= -48 && zone <= 52 ? static_cast<std::int16_t>(zone * 15) : std::int16_t{0};
  time.seconds = days_from_civil(1900 + u8(b, 0), month, day) * 86400 + hour * 3600 + minute * 60 + second -
                 time.zone_minutes * 60;
  time.present = true;
  return time;
}

IsoTime long_time(Bytes b) {
  IsoTime time;
  const auto number = [&](std::size_t at, std::size_t digits) -> int {
    int value = 0;
    for (std::size_t i = at; i < at + digits; ++i) {
      const int digit = u8(b, i) - '0';
      if (digit < 0 || digit > 9) return -1;
      value = value * 10 + digit;
    }
    return value;
  };
  const int year = number(0, 4), month = number(4, 2), day = number(6, 2), hour = number(8, 2), minute = number(10, 2),
            second = number(12, 2), hundredths = number(14, 2);
  // All digits '0' mean "not specified"; so does anything that is not a date.
  if (year < 1 || month < 1 || month > 12 || day < 1 || day > 31 || hour < 0 || hour > 23 || minute < 0 ||
      minute > 59 || second < 0 || second > 59) {
    return time;
  }
  const auto zone = static_cast<std::int8_t>(u8(b, 16));
  time.zone_minutes = zone >= -48 && zone <= 52 ? static_cast<std::int16_t>(zone * 15) : std::int16_t{0};
  time.seconds = days_from_civil(year, static_cast<unsigned>(month), static_cast<unsigned>(day)) * 86400 + hour * 3600 +
                 minute * 60 + second - time.zone_minutes * 60;
  time.nanoseconds = hundredths > 0 ? static_cast<std::uint32_t>(hundredths) * 10'000'000u : 0;
  time.present = true;
  return time;
}

}  // namespace vm_platform::iso
