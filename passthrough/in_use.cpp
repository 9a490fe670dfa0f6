// Everything is read from sysfs and /proc below injectable roots.
#include "passthrough/in_use.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vm_platform/passthrough.hpp>

#include "passthrough/boot_framebuffer.hpp"
#include "passthrough/mounts.hpp"
#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

namespace fs = std::filesystem;

/// What the kernel has made below one function: block devices, network interfaces, device nodes.
struct Below {
  std::vector<fs::path> blocks;  ///< Directories of disks and partitions.
  std::vector<fs::path> nets;
  std::vector<fs::path> connectors;
  std::vector<std::string> nodes;  ///< "/dev/nvme0", …
  bool hidden_net = false;         ///< There is a network interface that this network namespace does not show.
};

bool is_pci_name(const std::string& name) { return PciAddress::parse(name).has_value(); }

void look_below(const fs::path& directory, int depth, Below& below) {
  if (depth > 12) return;  // USB trees are the deepest that exist
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const fs::path path = it->path();
    const std::string name = path.filename();
    // Links lead elsewhere, and other functions (below a bridge, or virtual ones) are devices of their own.
    if (it->is_symlink(error) || !it->is_directory(error) || is_pci_name(name)) continue;
    const std::string subsystem = link_name(path / "subsystem").value_or("");
    if (subsystem == "net") below.nets.push_back(path);
    if (subsystem == "block") below.blocks.push_back(path);
    if (name == "net" && list_directory(path).empty()) below.hidden_net = true;
    if (fs::exists(path / "status", error) && fs::exists(path / "edid", error)) below.connectors.push_back(path);
    if (fs::exists(path / "dev", error)) {
      if (const auto uevent = read_kernel_file(path / "uevent")) {
        std::string_view rest = *uevent;
        while (!rest.empty()) {
          std::string_view line = text::take(rest, '\n');
          if (text::take(line, '=') == "DEVNAME") below.nodes.push_back("/dev/" + std::string(line));
        }
      }
    }
    if (name != "power" && name != "msi_irqs" && name != "statistics" && name != "queues" && name != "mq")
      look_below(path, depth + 1, below);
  }
}

class UseFinder {
 public:
  UseFinder(const PciDeviceInfo& device, fs::path sysfs, fs::path root)
      : device_(device), sysfs_(std::move(sysfs)), root_(std::move(root)) {}

  std::vector<DeviceUse> find() {
    const fs::path directory = fs::canonical(sysfs_ / "bus/pci/devices" / device_.address.to_string(), error_);
    if (error_) return {};
    Below below;
    look_below(directory, 0, below);
    for (const fs::path& block : below.blocks) {
      check_block(block, block.filename());
      check_multipath(block.filename(), below.nodes);
    }
    if (uses_.empty()) check_claims();
    for (const fs::path& net : below.nets) check_net(net);
    if (below.hidden_net) add("its network interface is in another network namespace");
    check_display(below);
    if (device_.driver == "nvidia") add_nvidia_node(below.nodes);
    if (device_.sriov_num != 0)
      add(fmt::format("it has {} virtual functions; delete them first (vmp sriov delete)", device_.sriov_num));
    for (const NodeHolder& holder : find_holders(below.nodes, root_))
      add(fmt::format("{} is held open by {} (pid {})", holder.node, holder.command, holder.pid));
    return std::move(uses_);
  }

 private:
  void add(std::string what) { uses_.push_back({device_.address, std::move(what)}); }

  /// With NVMe multipath the disk in use, nvme0n1, is a virtual device over hidden paths named nvme0c1n1.
  void check_multipath(const std::string& name, std::vector<std::string>& nodes) {
    const auto c = name.find('c'), n = name.rfind('n');
    if (!name.starts_with("nvme") || c == std::string::npos || n < c) return;
    const std::string head = name.substr(0, c) + name.substr(n);
    const fs::path place = sysfs_ / "class/block" / head;
    check_block(place, head);
    nodes.push_back("/dev/" + head);
    const fs::path partitions = fs::canonical(place, error_);
    for (const std::string& partition : list_directory(partitions)) {
      if (!partition.starts_with(head)) continue;
      check_block(partitions / partition, partition);
      nodes.push_back("/dev/" + partition);
    }
  }

  /// NVIDIA's own driver makes its nodes without telling sysfs.
  void add_nvidia_node(std::vector<std::string>& nodes) const {
    const auto place = fmt::format("proc/driver/nvidia/gpus/{}/information", device_.address.to_string());
    for_lines(place.c_str(), [&](std::string_view line) {
      if (text::take(line, ':') == "Device Minor") nodes.push_back("/dev/nvidia" + std::string(text::trim(line)));
    });
  }

  /// A disk, a partition, or what stands on one (`shown` says on which of the device's own).
  void check_block(const fs::path& block, const std::string& shown, int depth = 0) {
    const std::string name = block.filename();
    const auto number = read_kernel_file(block / "dev");
    if (number) check_mounts(name, text::trim(*number), shown);
    if (number && depth == 0) disks_.emplace_back(name, text::trim(*number));
    check_swap(name, shown);
    for (const std::string& holder : list_directory(block / "holders")) {
      const fs::path above = sysfs_ / "class/block" / holder;
      const auto label = read_kernel_file(above / "dm/name");
      const std::string kind = holder.starts_with("md") ? "RAID array" : "volume";
      const std::string above_name = label ? std::string(text::trim(*label)) : holder;
      add(fmt::format("{} is part of the {} {}", shown, kind, above_name));
      if (depth < 8) check_block(above, shown + " (through " + above_name + ")", depth + 1);
    }
  }

  void check_mounts(const std::string& name, std::string_view number, const std::string& shown) {
    if (!mounts_) mounts_.emplace(root_);
    for (const std::string& place : mounts_->places_of(name, number))
      add(fmt::format("{} is mounted on {}", shown, place));
    // A file system of several devices names one of them there.
    for (const std::string& system : list_directory(sysfs_ / "fs/btrfs"))
      if (fs::exists(sysfs_ / "fs/btrfs" / system / "devices" / name, error_))
        add(fmt::format("{} is part of the mounted btrfs {}", shown, system));
    for (const std::string& system : list_directory(sysfs_ / "fs/bcachefs")) {
      const fs::path members = sysfs_ / "fs/bcachefs" / system;
      for (const std::string& member : list_directory(members))
        if (link_name(members / member / "block") == name)
          add(fmt::format("{} is part of the mounted bcachefs {}", shown, system));
    }
  }

  /// What nobody names (ZFS, a mount that only a hidden namespace has) still holds the device for itself alone. Asked
  /// of the kernel, so only for the system's own root.
  void check_claims() {
    if (root_ != "/") return;
    for (const auto& [name, number] : disks_) {
      const std::string node = "/dev/" + name;
      struct stat status{};
      if (::stat(node.c_str(), &status) != 0 || !S_ISBLK(status.st_mode)) continue;
      if (fmt::format("{}:{}", major(status.st_rdev), minor(status.st_rdev)) != number) continue;
      const Descriptor alone(::open(node.c_str(), O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC));
      if (!alone.valid() && errno == EBUSY)
        add(fmt::format("{} is claimed in the kernel: by ZFS, or mounted where no process shows it", node));
    }
  }

  void check_swap(const std::string& name, const std::string& shown) {
    for_lines("proc/swaps", [&](std::string_view line) {
      const auto fields = text::words(line);
      if (!fields.empty() && fields[0] == "/dev/" + name) add(fmt::format("{} is used for swap", shown));
    });
  }

  void check_net(const fs::path& net) {
    const std::string name = net.filename();
    bool default_route = false;
    for_lines("proc/net/route", [&](std::string_view line) {  // Iface Destination Gateway Flags … Mask
      const auto fields = text::words(line);
      default_route |= fields.size() > 7 && fields[0] == name && fields[1] == "00000000" && fields[7] == "00000000";
    });
    for_lines("proc/net/ipv6_route", [&](std::string_view line) {
      const auto fields = text::words(line);
      // ::/0 through this interface, but not the kernel's own reject route (flag 0x200)
      default_route |= fields.size() > 9 && fields[9] == name && fields[1] == "00" && fields[9] != "lo" &&
                       fields[0] == std::string(32, '0') && (text::number(fields[8], 16).value_or(0x200) & 0x200) == 0;
    });
    if (default_route) add(name + " has the default route");
    for (const std::string& address : addresses(name)) add(fmt::format("{} has the address {}", name, address));
    if (const auto master = link_name(net / "master")) add(fmt::format("{} is a port of {}", name, *master));
    for (const std::string& entry : list_directory(net))  // VLANs, macvlans and so on stand on it
      if (entry.starts_with("upper_") && entry.substr(6) != link_name(net / "master").value_or(""))
        add(fmt::format("{} carries {}", name, entry.substr(6)));
  }

  /// Addresses other than link-local ones. They come from the system this runs on, so only for its own root.
  std::vector<std::string> addresses(const std::string& interface) const {
    std::vector<std::string> found;
    if (root_ != "/") return found;
    ifaddrs* list = nullptr;
    if (::getifaddrs(&list) != 0) return found;
    const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> guard(list, &::freeifaddrs);
    for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
      if (entry->ifa_addr == nullptr || interface != entry->ifa_name) continue;
      char text[INET6_ADDRSTRLEN] = {};
      if (entry->ifa_addr->sa_family == AF_INET) {
        const auto* address = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
        ::inet_ntop(AF_INET, &address->sin_addr, text, sizeof text);
      } else if (entry->ifa_addr->sa_family == AF_INET6) {
        const auto* address = reinterpret_cast<const sockaddr_in6*>(entry->ifa_addr);
        if (IN6_IS_ADDR_LINKLOCAL(&address->sin6_addr)) continue;
        ::inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof text);
      }
      if (text[0] != 0) found.emplace_back(text);
    }
    return found;
  }

  void check_display(const Below& below) {
    if (device_.base_class() != 0x03) return;
    std::size_t displays = 0;
    for (const std::string& name : list_directory(sysfs_ / "bus/pci/devices")) {
      const auto class_code = read_kernel_file(sysfs_ / "bus/pci/devices" / name / "class");
      if (class_code && class_code->starts_with("0x03")) ++displays;
    }
    if (device_.boot_vga && !device_.driver.empty() && !driver_is_harmless(device_.driver)) {
      add(displays == 1 ? "it is the only display, and the console is on it"
                        : "the firmware's console started on it (boot VGA)");
    }
    for (const fs::path& connector : below.connectors) {
      const auto enabled = read_kernel_file(connector / "enabled");
      const auto status = read_kernel_file(connector / "status");
      if (enabled && status && text::trim(*enabled) == "enabled" && text::trim(*status) == "connected")
        add(fmt::format("a monitor is lit on {}", connector.filename().string()));
    }
    if (const auto framebuffer = find_boot_framebuffer(device_.address, sysfs_, root_)) {
      const std::string shown = framebuffer->node.empty() ? framebuffer->device : framebuffer->node;
      add(fmt::format("the boot framebuffer {} ({}) is on it", shown, framebuffer->driver));
      for (const std::string& console : framebuffer->consoles)
        add(fmt::format("the text console {} is drawn on framebuffers", console));
    }
    if (device_.boot_vga && vga_text_console()) add("the kernel's VGA text console is on it");
  }

  /// Whether the kernel writes to legacy VGA text memory, which is the boot display's.
  [[nodiscard]] bool vga_text_console() const {
    for (const std::string& name : list_directory(sysfs_ / "class/vtconsole")) {
      const auto kind = read_kernel_file(sysfs_ / "class/vtconsole" / name / "name");
      const auto bound = read_kernel_file(sysfs_ / "class/vtconsole" / name / "bind");
      if (kind && bound && kind->find("VGA") != std::string::npos && text::trim(*bound) == "1") return true;
    }
    return false;
  }

  template <typename Visit>
  void for_lines(const char* file, Visit visit) const {
    const auto content = read_kernel_file(root_ / file);
    if (!content) return;
    std::string_view rest = *content;
    while (!rest.empty()) visit(text::take(rest, '\n'));
  }

  const PciDeviceInfo& device_;
  fs::path sysfs_, root_;
  std::error_code error_;
  std::vector<std::pair<std::string, std::string>> disks_;  // its own, and partitions: names and numbers
  std::optional<Mounts> mounts_;                            // read where there is a block device
  std::vector<DeviceUse> uses_;
};

}  // namespace

std::vector<DeviceUse> find_uses(const PciDeviceInfo& device, const fs::path& sysfs, const fs::path& root) {
  return UseFinder(device, sysfs, root).find();
}

std::string list_of(std::span<const DeviceUse> uses) {
  std::string list;
  for (const DeviceUse& use : uses) list += (list.empty() ? "" : "; ") + use.what;
  return list;
}

std::vector<std::string> vfio_nodes(PciAddress device, const fs::path& sysfs) {
  const fs::path place = sysfs / "bus/pci/devices" / device.to_string();
  std::vector<std::string> nodes;
  if (const auto group = link_name(place / "iommu_group"))
    nodes = {"/dev/vfio/" + *group, "/dev/vfio/noiommu-" + *group};
  for (const std::string& name : list_directory(place / "vfio-dev")) nodes.push_back("/dev/vfio/devices/" + name);
  return nodes;
}

std::vector<NodeHolder> find_holders(std::span<const std::string> nodes, const fs::path& root) {
  std::vector<NodeHolder> holders;
  if (nodes.empty()) return holders;
  for (const std::string& process : list_directory(root / "proc")) {
    const auto pid = text::number<int>(process);
    if (!pid) continue;
    std::set<std::string> held;
    const fs::path descriptors = root / "proc" / process / "fd";
    for (const std::string& descriptor : list_directory(descriptors)) {
      std::error_code error;
      const std::string target = fs::read_symlink(descriptors / descriptor, error);
      if (!error && std::ranges::find(nodes, target) != nodes.end()) held.insert(target);
    }
    if (held.empty()) continue;
    const auto command = read_kernel_file(root / "proc" / process / "comm");
    for (const std::string& node : held)
      holders.push_back({*pid, command ? std::string(text::trim(*command)) : "?", node});
  }
  return holders;
}

}  // namespace vm_platform
