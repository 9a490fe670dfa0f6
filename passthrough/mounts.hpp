// Which block devices are mounted, in all mount namespaces.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace vm_platform {

class Mounts {
 public:
  /// What /proc below `root` shows: this process's namespace first, then that of each process that has another. Those
  /// of other users are seen by root only.
  explicit Mounts(const std::filesystem::path& root);

  /// Where the block device `name` ("nvme0n1p2", with the number "259:2") is mounted: all places in this namespace, or
  /// where there are none, the first one elsewhere: "/", "/data in the mount namespace of postgres (pid 4711)".
  [[nodiscard]] std::vector<std::string> places_of(std::string_view name, std::string_view number) const;

 private:
  struct Mount {
    std::string number;  ///< Of the device; "0:N" for file systems that have several or none (btrfs, overlay, tmpfs).
    std::string source;  ///< The last part of what it was mounted from, links followed: "nvme0n1p2".
    std::string place;
  };
  void read(const std::filesystem::path& process, const std::string& owner, const std::filesystem::path& root);

  std::vector<Mount> own_, others_;
};

}  // namespace vm_platform
