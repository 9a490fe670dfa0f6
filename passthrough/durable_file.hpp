// Files that are either the old one or the new one, whenever the machine stops.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// Writes a file beside `file`, syncs it, and renames it over `file`; the folder is made where it is missing, and
/// synced. `operation` says what it is for. `mode` are its permission bits.
Result<void> write_durably(const std::filesystem::path& file, std::string_view content, const std::string& operation,
                           unsigned mode = 0600);
/// Removes what a write of `file` that was cut short left beside it, if anything.
void remove_unfinished(const std::filesystem::path& file);
/// Removes it durably; it may be missing already.
Result<void> remove_durably(const std::filesystem::path& file, const std::string& operation);

}  // namespace vm_platform
