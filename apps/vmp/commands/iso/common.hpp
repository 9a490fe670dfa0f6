// What the subcommands of `vmp iso` share: how an image is named, and how lists are written quickly.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vm_platform/iso.hpp>

#include "apps/vmp/command.hpp"

namespace vm_platform::vmp::iso {

/// IMAGE, --names, --session, --json.
struct ImageOptions {
  std::string image;
  std::string names = "auto";
  std::optional<std::uint64_t> session;
  bool json = false;
  bool stored = false;
};
void add_image_options(CLI::App& command, ImageOptions& options);
[[nodiscard]] Result<SimpleIso9660> open_image(const ImageOptions& options);
/// Accepts whole numbers from `least` to `most`. CLI11 alone takes -1 and what is too large for some other number.
[[nodiscard]] CLI::Validator whole_number(std::uint64_t least, std::uint64_t most);
/// A path as an argument gives it, the way in which lists give paths: from the image's root, no `/` before or after it.
[[nodiscard]] std::string path_from_root(std::string_view path);

/// Buffered standard output that formats without allocating. A failed write is complained of, and ends all further
/// output.
class Output {
 public:
  Output();
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output() { flush(); }

  void put(std::string_view text) {
    if (text.size() > room()) return put_large(text);
    std::memcpy(buffer_.get() + used_, text.data(), text.size());
    used_ += text.size();
  }
  void put(char c) {
    if (room() == 0) flush();
    buffer_[used_++] = c;
  }
  /// Right-aligned in `width`, at most 32.
  void number(std::uint64_t value, unsigned width = 0);
  /// `-rw-r--r--`
  void mode(const IsoEntry& entry);
  /// A name as it can be shown: on a terminal control characters are escaped, so that no image drives the terminal.
  void name(std::string_view text);
  /// A quoted JSON string. Control characters are escaped, U+0080 to U+009F too; what is not UTF-8 becomes U+FFFD.
  void json(std::string_view text);
  /// A whole JSON document, indented, its strings as `json` writes them, and a newline.
  void document(const nlohmann::ordered_json& json);
  /// `2024-05-17 12:30`, in the zone it was recorded in; blanks where there is none.
  void time(const IsoTime& time);
  /// `"2024-05-17T12:30:15+02:00"` or `null`.
  void json_time(const IsoTime& time);
  void flush();
  /// Writes out what is buffered. Returns `status`, or `kFailed` where output was lost.
  [[nodiscard]] int finish(int status);
  [[nodiscard]] bool failed() const { return failed_; }
  [[nodiscard]] bool on_terminal() const { return terminal_; }

 private:
  [[nodiscard]] std::size_t room() const { return kSize - used_; }
  void put_large(std::string_view text);
  void put_control(std::string_view character);
  void date(const IsoTime& time, char separator);
  void two(unsigned value);
  static constexpr std::size_t kSize = std::size_t{64} * 1024, kMaxWidth = 32;
  std::unique_ptr<char[]> buffer_;
  std::size_t used_ = 0;
  bool terminal_, failed_ = false;
  std::int64_t cached_day_ = INT64_MIN;  ///< Most neighbours in a list are of the same day.
  char cached_date_[10] = {};
  std::int64_t cached_minute_ = INT64_MIN;  ///< First second of the minute that `cached_time_` shows.
  char cached_time_[16] = {};
  std::uint32_t cached_mode_ = UINT32_MAX;
  char cached_mode_text_[10] = {};
};

/// One JSON object, written member by member; its end is the end of this.
class JsonObject {
 public:
  explicit JsonObject(Output& out) : out_(out) { out_.put('{'); }
  JsonObject(const JsonObject&) = delete;
  JsonObject& operator=(const JsonObject&) = delete;
  ~JsonObject() { out_.put('}'); }

  /// The name alone; the value is what is put next.
  Output& member(std::string_view name) {
    out_.put(first_ ? "\"" : ",\"");
    first_ = false;
    out_.put(name);
    out_.put("\":");
    return out_;
  }
  void text(std::string_view name, std::string_view value) { member(name).json(value); }
  void number(std::string_view name, std::uint64_t value) { member(name).number(value); }
  void flag(std::string_view name, bool value) { member(name).put(value ? "true" : "false"); }
  /// Only where it is true.
  void mark(std::string_view name, bool value) {
    if (value) flag(name, true);
  }

 private:
  Output& out_;
  bool first_ = true;
};

/// `3 files` and what follows.
void put_count(Output& out, std::uint64_t count, std::string_view what);
/// One object with all that is known of an entry.
void put_json_entry(Output& out, std::string_view path, const IsoEntry& entry);
/// One line of `ls -l`; without the newline.
void put_long_entry(Output& out, std::string_view path, const IsoEntry& entry);

void add_info(CLI::App& iso, Action& action);
void add_ls(CLI::App& iso, Action& action);
void add_tree(CLI::App& iso, Action& action);
void add_cat(CLI::App& iso, Action& action);
void add_find(CLI::App& iso, Action& action);
void add_boot(CLI::App& iso, Action& action);
void add_extract(CLI::App& iso, Action& action);
void add_verify(CLI::App& iso, Action& action);

}  // namespace vm_platform::vmp::iso
