// A directory on the host that is being filled from an image. One implementation for each kind of host.
#pragma once

#include <atomic>
#include <memory>
#include <vm_platform/iso_extract.hpp>

namespace vm_platform::iso {

/// What all directories of one extraction have in common; it outlives them.
struct TargetState {
  std::atomic<std::uint64_t> without_owner = 0;  ///< As in IsoExtractReport.
  std::atomic<std::uint64_t> open = 0;           ///< Directories that hold a descriptor.
  std::uint64_t most_open = UINT64_MAX;          ///< So many leave the writers the descriptors that they need.
};

/// Thread-safe. The last owner's release restores the directory's own mode and time: then all its files are there.
class TargetDirectory {
 public:
  virtual ~TargetDirectory() = default;
  /// Makes (or enters an existing) subdirectory.
  virtual Result<std::shared_ptr<TargetDirectory>> enter(std::shared_ptr<TargetDirectory> self,
                                                         const IsoEntry& entry) = 0;
  enum class Outcome : std::uint8_t { Written, Kept, Skipped };
  /// A file, link or special file.
  virtual Result<Outcome> add(const SimpleIso9660& iso, const IsoEntry& entry) = 0;
};

[[nodiscard]] Result<std::shared_ptr<TargetDirectory>> open_target(const std::string& path,
                                                                   const IsoExtractOptions& options,
                                                                   TargetState& state);

/// Levels below the target: each holds a descriptor while something below it is written.
inline constexpr std::size_t kMaxExtractDepth = 512;

/// Whether the host takes `name` for one file in the directory.
[[nodiscard]] bool is_file_name(std::string_view name);

}  // namespace vm_platform::iso
