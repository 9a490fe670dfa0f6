// Reading small files and folders of sysfs and procfs. Nothing here throws, whatever lies there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vm_platform::sysfs {

/// The whole file without trailing newlines and blanks; nothing where it cannot be read.
std::optional<std::string> read(const std::string& path);

/// A decimal number at the start of the file.
std::optional<std::uint64_t> number(const std::string& path);

/// The rest of the line that starts with `key`, without blanks around it.
std::optional<std::string> line_value(const std::string& text, const std::string& key);

/// The names in a folder, in no order; none where it cannot be read.
std::vector<std::string> names_in(const std::string& folder);

}  // namespace vm_platform::sysfs
