// Finds what a disc image boots, by reading its boot loader's configuration: isolinux / syslinux, GRUB, systemd-boot.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>
#include <vm_platform/iso.hpp>

namespace vm_platform {

/// How an entry's kernel wants to be started.
enum class IsoBootProtocol : std::uint8_t {
  Linux,      ///< bzImage: kernel, initramfs, command line.
  Multiboot,  ///< Multiboot 1 or 2, with modules as `initrds`.
  Firmware,   ///< A boot sector, COM32 module or EFI program: needs firmware.
};
[[nodiscard]] std::string_view to_string(IsoBootProtocol protocol) noexcept;

/// One entry of a boot menu. Paths are absolute paths in the image.
struct IsoBootEntry {
  std::string id;      ///< syslinux label, GRUB's --id (or the title), systemd-boot's file name without `.conf`.
  std::string title;   ///< As the menu shows it, submenus joined by " > ".
  std::string loader;  ///< `syslinux`, `grub` or `systemd-boot`.
  std::string config;  ///< The file that has it.
  IsoBootProtocol protocol = IsoBootProtocol::Linux;
  std::string kernel;
  std::vector<std::string> initrds;
  std::string command_line;  ///< Without `initrd=` and `BOOT_IMAGE=`.
  std::string container;     ///< Image within the image that holds kernel and initrds (GRUB loopback), or empty.
  bool is_default = false;   ///< Exactly one of a list, unless none can be booted.
  std::string problem;       ///< Why it can't be booted from the image directly; empty where it can.
};

/// All entries, in menu order, those of the image's preferred loader first. Fails with `NotFound` where the image has
/// no configuration that is understood. Configurations are hostile too: files up to 1 MiB, 16 levels of includes, 1000
/// entries, 100,000 commands and 16 MiB of text read, repeated and put together; what is past that is not listed.
[[nodiscard]] Result<std::vector<IsoBootEntry>> find_boot_entries(const Iso9660& iso);

/// The entry called `name`: an id, a title, or a number from 1; with an empty name the default. The error lists the
/// ids.
[[nodiscard]] Result<IsoBootEntry> choose_boot_entry(std::span<const IsoBootEntry> entries, std::string_view name);

/// What a virtual machine needs to boot an entry.
struct IsoBootFiles {
  std::vector<std::byte> kernel;
  std::vector<std::byte> initramfs;  ///< All initrds of a Linux entry, one after the other, each padded to 4 bytes.
  std::vector<std::vector<std::byte>> modules;  ///< The initrds of a Multiboot entry.
  std::string command_line;
  bool console_added = false;  ///< `console=ttyS0` was added, because no serial console was named.
};

/// Reads kernel and initrds (2 GiB together at most); `append` goes to the end of the command line. Fails with
/// `Unsupported` and the entry's `problem` where it has one.
[[nodiscard]] Result<IsoBootFiles> load_boot_entry(const Iso9660& iso, const IsoBootEntry& entry,
                                                   std::string_view append = {});

}  // namespace vm_platform
