// What the readers of boot-loader configurations share.
#pragma once

#include <functional>
#include <optional>
#include <vm_platform/iso_boot.hpp>

namespace vm_platform::iso {

inline constexpr std::size_t kMaxConfigSize = 1 << 20;
inline constexpr std::size_t kMaxBootEntries = 1000;
inline constexpr int kMaxConfigDepth = 16;
/// Bytes that reading all menus of an image may take: see BootMenu::take.
inline constexpr std::size_t kMaxMenuBytes = 16 << 20;
inline constexpr std::size_t kMaxCommandLine = 64 << 10;

/// Entries in the order of the menu, and which one the configuration calls its default.
struct BootMenu {
  std::vector<IsoBootEntry> entries;
  std::optional<std::size_t> default_entry;
  std::size_t bytes_left = kMaxMenuBytes;

  /// To be asked before text is read, repeated or put together, so that neither memory nor time can be multiplied by
  /// naming a text many times. False once there is too little left, and from then on: the reader stops there.
  [[nodiscard]] bool take(std::size_t bytes) {
    bytes_left = bytes < bytes_left ? bytes_left - bytes : 0;
    return bytes_left != 0;
  }
  /// Puts `entry` at the end; false where the menu is full. Its texts have been taken already. A command line that no
  /// kernel would be given becomes the entry's problem.
  bool add(IsoBootEntry entry);
};

/// What a configuration may ask of the image it is in; the parsers know nothing else of it.
class ConfigFiles {
 public:
  virtual ~ConfigFiles() = default;
  /// A text file's content, or nothing.
  virtual std::optional<std::string> read(const std::string& path) = 0;
  virtual bool exists(const std::string& path) = 0;
  virtual bool is_directory(const std::string& path) = 0;
  /// Names in a directory.
  virtual std::vector<std::string> list(const std::string& path) = 0;
  virtual std::string label() = 0;
};

/// `config` is a path that `files` can read.
void read_syslinux(ConfigFiles& files, const std::string& config, BootMenu& menu);
void read_grub(ConfigFiles& files, const std::string& config, BootMenu& menu);
/// All of /loader/entries.
void read_systemd_boot(ConfigFiles& files, BootMenu& menu);

/// Text helpers: ASCII only, as the formats are.
[[nodiscard]] std::string_view trimmed(std::string_view text);
[[nodiscard]] std::string lower(std::string_view text);
/// The first word, removed from `text` together with the blanks behind it.
std::string_view take_word(std::string_view& text);
/// The next line, removed from `text`; nothing at the end.
std::optional<std::string_view> take_line(std::string_view& text);
/// `path` seen from `directory`, without `.`, `..` and double slashes.
[[nodiscard]] std::string resolve_path(std::string_view directory, std::string_view path);
[[nodiscard]] std::string directory_of(std::string_view path);
/// Removes `initrd=a,b` and `BOOT_IMAGE=` from a command line; the files go to `initrds` as they are written.
[[nodiscard]] std::string without_initrd(std::string_view command_line, std::vector<std::string>& initrds);

}  // namespace vm_platform::iso
