// GRUB's `test` command, also written `[ ... ]` (GRUB manual, section 16.3).
#pragma once

#include <span>
#include <string>

namespace vm_platform::iso {

/// What a condition may ask of files, by the paths that GRUB writes.
class GrubFileQuery {
 public:
  virtual ~GrubFileQuery() = default;
  virtual bool exists(const std::string& path) = 0;
  virtual bool is_directory(const std::string& path) = 0;
};

/// `words` begin with the command's own name, and end with `]` where that is `[`.
[[nodiscard]] bool grub_condition(std::span<const std::string> words, GrubFileQuery& files);

}  // namespace vm_platform::iso
