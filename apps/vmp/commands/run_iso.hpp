// `vmp run --iso`: a kernel and its initramfs out of a disc image.
#pragma once

#include <string>
#include <utility>
#include <vector>
#include <vm_platform/boot.hpp>
#include <vm_platform/memory.hpp>

namespace vm_platform::vmp {

/// What the image's boot menu says, ready for the loaders. The files are in memory that lives as long as this.
struct IsoBoot {
  std::vector<MappedMemory> files;
  BootConfig boot;
  std::string title;
  bool console_added = false;  ///< `console=ttyS0` was added to the command line.
  /// Where a file is held, and which one of the image it is.
  std::vector<std::pair<std::string, std::string>> names;
};

/// The same error, said of the files in the image instead of those that hold them.
VmError name_files(const IsoBoot& boot, const VmError& error);

/// `entry` is an id, a title or a number of `vmp iso boot`; empty for the default. `append` is added to its command
/// line.
Result<IsoBoot> open_iso_boot(const std::string& path, const std::string& entry, const std::string& append);

}  // namespace vm_platform::vmp
