#include "apps/vmp/commands/iso/common.hpp"

#ifdef _WIN32
#include <io.h>
#else
#include <unistd.h>
#endif

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <nlohmann/json.hpp>

#include "apps/vmp/standard_output.hpp"
#include "apps/vmp/text.hpp"

namespace vm_platform::vmp::iso {

void add_image_options(CLI::App& command, ImageOptions& options) {
  command.add_option("image", options.image, "Disc image (.iso, or .bin with raw sectors) or drive")
      ->required()
      ->type_name("IMAGE");
  command.add_option("--names", options.names, "Name space: auto, rock-ridge, joliet, enhanced, plain")
      ->check(CLI::IsMember({"auto", "rock-ridge", "joliet", "enhanced", "plain"}))
      ->type_name("SPACE");
  command
      .add_option("--session", options.session,
                  "First sector of the session to read (`info` lists them; default the last)")
      ->check(whole_number(0, UINT32_MAX))  // sectors have 32 bits (ECMA-119, 8.4.8)
      ->type_name("SECTOR");
  command.add_flag("--json", options.json, "Print one JSON document");
}

CLI::Validator whole_number(std::uint64_t least, std::uint64_t most) {
  return {[least, most](std::string& text) -> std::string {
            std::uint64_t value = 0;
            const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
            if (status == std::errc() && end == text.data() + text.size() && value >= least && value <= most) return {};
            return "'" + text + "' is no whole number from " + std::to_string(least) + " to " + std::to_string(most);
          },
          ""};
}

std::string path_from_root(std::string_view path) {
  while (path.starts_with('/')) path.remove_prefix(1);
  while (path.ends_with('/')) path.remove_suffix(1);
  return std::string(path);
}

Result<SimpleIso9660> open_image(const ImageOptions& options) {
  IsoOpenOptions open;
  open.session = options.session;
  open.decompress = !options.stored;
  for (const IsoNameSpace names :
       {IsoNameSpace::Plain, IsoNameSpace::RockRidge, IsoNameSpace::Joliet, IsoNameSpace::Enhanced}) {
    if (options.names == to_string(names)) open.names = names;
  }
  return SimpleIso9660::open(options.image, open);
}

namespace {
constexpr int kStandardOutput = 1;
#ifdef _WIN32
bool is_terminal() { return ::_isatty(kStandardOutput) != 0; }
long write_some(const char* data, std::size_t size) {
  return ::_write(kStandardOutput, data, static_cast<unsigned>(size));
}
#else
bool is_terminal() { return ::isatty(kStandardOutput) == 1; }
long write_some(const char* data, std::size_t size) { return ::write(kStandardOutput, data, size); }
#endif
}  // namespace

Output::Output() : buffer_(std::make_unique_for_overwrite<char[]>(kSize)), terminal_(is_terminal()) {}

void Output::put_large(std::string_view text) {
  while (!text.empty()) {
    if (room() == 0) flush();
    const std::size_t size = std::min(room(), text.size());
    std::memcpy(buffer_.get() + used_, text.data(), size);
    used_ += size;
    text.remove_prefix(size);
  }
}

void Output::number(std::uint64_t value, unsigned width) {
  if (room() < 64) flush();
  char* const to = buffer_.get() + used_;
  // Blanks of the greatest width, of which the rest is written over: copying a constant size takes one instruction.
  std::memcpy(to, "                                ", kMaxWidth);
  std::size_t digits = 1;
  for (std::uint64_t left = value; left >= 10; left /= 10) ++digits;
  used_ += std::max<std::size_t>(width, digits);
  char* at = buffer_.get() + used_;
  do {
    *--at = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
}

void Output::name(std::string_view text) { put(terminal_ ? std::string_view(printable(text)) : text); }

void Output::json(std::string_view text) {
  put('"');
  while (!text.empty()) {
    const TextRun run = next_run(text);
    const std::string_view bytes = text.substr(0, run.length);
    text.remove_prefix(run.length);
    if (run.kind == TextKind::NotUtf8) {
      put("\\ufffd");
    } else if (run.kind == TextKind::Control) {
      put_control(bytes);
    } else {
      for (const char c : bytes) {
        if (c == '"' || c == '\\') put('\\');
        put(c);
      }
    }
  }
  put('"');
}

void Output::put_control(std::string_view character) {
  // The second byte of the two-byte ones is their number.
  put("\\u00");
  put(hex_digits(character.back()));
}

void Output::document(const nlohmann::ordered_json& json) {
  const std::string text = json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  // The only control characters outside of strings are the newlines; strings have none, as dump escapes those below
  // 0x20.
  for (std::string_view left = text; !left.empty();) {
    const TextRun run = next_run(left);
    const std::string_view bytes = left.substr(0, run.length);
    if (run.kind == TextKind::Control && bytes != "\n") {
      put_control(bytes);
    } else {
      put(bytes);
    }
    left.remove_prefix(run.length);
  }
  put('\n');
}

void Output::two(unsigned value) {
  put(static_cast<char>('0' + value / 10));
  put(static_cast<char>('0' + value % 10));
}

void Output::date(const IsoTime& time, char separator) {
  const std::int64_t local = time.seconds + std::int64_t{time.zone_minutes} * 60;
  std::int64_t day = local / 86400;
  auto second = static_cast<int>(local % 86400);
  if (second < 0) {
    second += 86400;
    --day;
  }
  if (day != cached_day_) {
    // Civil date of a day number, by 400-year eras.
    const std::int64_t shifted = day + 719468;
    const std::int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    const auto day_of_era = static_cast<unsigned>(shifted - era * 146097);
    const unsigned year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    const unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const unsigned month_index = (5 * day_of_year + 2) / 153;
    const unsigned mday = day_of_year - (153 * month_index + 2) / 5 + 1;
    const unsigned month = month_index < 10 ? month_index + 3 : month_index - 9;
    const auto year = static_cast<unsigned>(static_cast<std::int64_t>(year_of_era) + era * 400 + (month <= 2 ? 1 : 0));
    const auto digit = [](unsigned v) { return static_cast<char>('0' + v % 10); };
    const char text[10] = {
        digit(year / 1000), digit(year / 100), digit(year / 10), digit(year), '-', digit(month / 10), digit(month), '-',
        digit(mday / 10),   digit(mday)};
    std::copy(text, text + 10, cached_date_);
    cached_day_ = day;
  }
  const auto digits = [](unsigned v, char* to) {
    to[0] = static_cast<char>('0' + v / 10);
    to[1] = static_cast<char>('0' + v % 10);
  };
  char text[16];
  std::memcpy(text, cached_date_, 10);
  text[10] = separator;
  digits(static_cast<unsigned>(second / 3600), text + 11);
  text[13] = ':';
  digits(static_cast<unsigned>(second / 60 % 60), text + 14);
  put(std::string_view(text, sizeof text));
  if (separator == 'T') {
    put(':');
    two(static_cast<unsigned>(second % 60));
  }
}

void Output::time(const IsoTime& time) {
  if (!time.present) return put("               -");
  // Files are written together: neighbours in a list are often of the same minute.
  const std::int64_t local = time.seconds + std::int64_t{time.zone_minutes} * 60;
  if (local >= cached_minute_ && local < cached_minute_ + 60) return put(std::string_view(cached_time_, 16));
  if (room() < 16) flush();
  date(time, ' ');
  std::memcpy(cached_time_, buffer_.get() + used_ - 16, 16);
  cached_minute_ = local - (local % 60 + 60) % 60;
}

void Output::json_time(const IsoTime& time) {
  if (!time.present) return put("null");
  put('"');
  date(time, 'T');
  const int zone = time.zone_minutes;
  put(zone < 0 ? '-' : '+');
  two(static_cast<unsigned>((zone < 0 ? -zone : zone) / 60));
  put(':');
  two(static_cast<unsigned>((zone < 0 ? -zone : zone) % 60));
  put('"');
}

void Output::flush() {
  const char* at = buffer_.get();
  std::size_t left = failed_ ? 0 : used_;
  while (left > 0) {
    const long put = write_some(at, left);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      failed_ = true;
      lost_output(put == 0 ? EIO : errno);
      break;
    }
    at += put;
    left -= static_cast<std::size_t>(put);
  }
  used_ = 0;
}

int Output::finish(int status) {
  flush();
  return failed_ ? kFailed : status;
}

void Output::mode(const IsoEntry& entry) {
  const std::uint32_t key = (static_cast<std::uint32_t>(entry.type) << 16) | entry.mode;
  if (key == cached_mode_) return put(std::string_view(cached_mode_text_, 10));
  constexpr char kTypes[] = "-dlcbps";
  char text[10];
  text[0] = kTypes[static_cast<std::size_t>(entry.type)];
  constexpr char kLetters[] = "rwxrwxrwx";
  for (unsigned i = 0; i < 9; ++i) text[1 + i] = (entry.mode & (0400u >> i)) != 0 ? kLetters[i] : '-';
  if ((entry.mode & 04000) != 0) text[3] = text[3] == 'x' ? 's' : 'S';
  if ((entry.mode & 02000) != 0) text[6] = text[6] == 'x' ? 's' : 'S';
  if ((entry.mode & 01000) != 0) text[9] = text[9] == 'x' ? 't' : 'T';
  std::memcpy(cached_mode_text_, text, 10);
  cached_mode_ = key;
  put(std::string_view(text, 10));
}

void put_long_entry(Output& out, std::string_view path, const IsoEntry& entry) {
  out.mode(entry);
  out.number(entry.links, 4);
  out.number(entry.uid, 6);
  out.number(entry.gid, 6);
  if (entry.type == IsoEntryType::CharacterDevice || entry.type == IsoEntryType::BlockDevice) {
    out.number(entry.device_major, 7);
    out.put(", ");
    out.number(entry.device_minor, 3);
  } else {
    out.number(entry.size, 12);
  }
  out.put(' ');
  out.time(entry.modified);
  out.put(' ');
  out.name(path);
  if (entry.is_symlink()) {
    out.put(" -> ");
    out.name(entry.symlink_target);
  }
}

void put_count(Output& out, std::uint64_t count, std::string_view what) {
  out.number(count);
  out.put(what);
}

void put_json_entry(Output& out, std::string_view path, const IsoEntry& entry) {
  JsonObject object(out);
  object.text("path", path);
  object.text("type", to_string(entry.type));
  object.number("size", entry.size);
  object.number("stored_size", entry.stored_size);
  object.number("mode", entry.mode);
  object.number("uid", entry.uid);
  object.number("gid", entry.gid);
  object.number("links", entry.links);
  object.member("modified").json_time(entry.modified);
  if (entry.is_symlink()) object.text("target", entry.symlink_target);
  if (entry.type == IsoEntryType::CharacterDevice || entry.type == IsoEntryType::BlockDevice) {
    object.number("device_major", entry.device_major);
    object.number("device_minor", entry.device_minor);
  }
  object.mark("compressed", entry.zisofs.block_log2 != 0);
  object.mark("sparse", entry.sparse_depth != 0);
  object.mark("interleaved", entry.interleaved);
  object.mark("hidden", entry.hidden);
  object.member("extents").put('[');
  const char* separator = "";
  for (const IsoExtent& extent : entry.extents()) {
    out.put(separator);
    JsonObject one(out);
    one.number("offset", extent.offset);
    one.number("size", extent.size);
    separator = ",";
  }
  out.put(']');
}

}  // namespace vm_platform::vmp::iso
