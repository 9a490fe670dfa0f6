// What was taken and how it was before, on disk before it is changed.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>
#include <vm_platform/passthrough.hpp>

#include "passthrough/sysfs.hpp"

namespace vm_platform {

/// One file per set in the state folder. A file is replaced as a whole (written, synced, renamed), so it is either the
/// old one or the new one whenever the machine stops. The object holds the folder's lock while it lives.
class Journal {
 public:
  /// Waits for other tools to finish. `NotFound` where the folder is missing and `create` is false.
  static Result<Journal> open(const std::filesystem::path& folder, const std::filesystem::path& root, bool create);

  struct Entry {
    std::filesystem::path file;
    TakenSet set;
  };
  /// Sets in file order; damaged files are an error that names the file.
  [[nodiscard]] Result<std::vector<Entry>> entries() const;
  /// Writes the set durably; `file` as `entries` gave it, or nothing for a new one. Gives the file.
  Result<std::filesystem::path> save(const TakenSet& set, const std::optional<std::filesystem::path>& file) const;
  Result<void> remove(const std::filesystem::path& file) const;

 private:
  std::filesystem::path folder_;
  std::string boot_id_;
  Descriptor lock_;
};

/// For tests and tools: a set as text and back. `boot_id` is compared to tell stale sets.
[[nodiscard]] std::string write_set(const TakenSet& set, const std::string& boot_id);
[[nodiscard]] Result<TakenSet> read_set(std::string_view text, const std::string& boot_id, const std::string& name);

}  // namespace vm_platform
