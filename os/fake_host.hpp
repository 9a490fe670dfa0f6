// For tests: a host made of files, of which sysfs, procfs and devices are read instead of this one's.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vm_platform/topology.hpp>

namespace vm_platform {

class FakeHost {
 public:
  FakeHost()
      : root_((std::filesystem::temp_directory_path() /
               ("vmp-host-" + std::to_string(reinterpret_cast<std::uintptr_t>(this))))
                  .string()) {
    std::filesystem::remove_all(root_);  // of a run that ended early
  }
  FakeHost(const FakeHost&) = delete;
  FakeHost& operator=(const FakeHost&) = delete;
  ~FakeHost() { std::filesystem::remove_all(root_); }
  void file(const std::string& path, const std::string& text) const {
    const std::filesystem::path full = root_ + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text << "\n";
  }
  void cpu(unsigned id, unsigned capacity = 0) const {
    const std::string base = "/sys/devices/system/cpu/cpu" + std::to_string(id);
    file(base + "/topology/core_id", std::to_string(id));
    if (capacity != 0) file(base + "/cpu_capacity", std::to_string(capacity));
  }
  [[nodiscard]] const std::string& root() const { return root_; }
  [[nodiscard]] HostRoots roots() const {
    return {.sys = root_ + "/sys", .proc = root_ + "/proc", .etc = root_ + "/etc", .dev = root_ + "/dev"};
  }

 private:
  std::string root_;
};

}  // namespace vm_platform
