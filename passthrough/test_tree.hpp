// Small sysfs trees that tests build: files and links in a temporary directory that goes away with the object.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace vm_platform::test {

class FakeTree {
 public:
  FakeTree() {
    std::string name = (std::filesystem::temp_directory_path() / "vmp-tree-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
  }
  FakeTree(const FakeTree&) = delete;
  FakeTree& operator=(const FakeTree&) = delete;
  ~FakeTree() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }

  [[nodiscard]] const std::filesystem::path& root() const { return root_; }
  [[nodiscard]] std::filesystem::path sysfs() const { return root_ / "sys"; }

  void file(const std::filesystem::path& path, std::string_view content) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path, std::ios::binary) << content;
  }
  void link(const std::filesystem::path& path, const std::filesystem::path& target) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::filesystem::create_symlink(target, root_ / path);
  }

  struct Device {
    std::string address;
    std::string parents = "pci0000:00";  ///< Path between sys/devices and the device.
    std::string ids = "8086:10D3", class_code = "20000";
    std::string driver = {};
    int group = -1;
    std::vector<std::uint8_t> config = {};
  };

  /// A PCI function as the kernel shows it; returns its path below the root.
  std::filesystem::path device(const Device& d) const {
    const std::filesystem::path place = std::filesystem::path("sys/devices") / d.parents / d.address;
    std::string uevent = d.driver.empty() ? "" : "DRIVER=" + d.driver + "\n";
    uevent +=
        "PCI_CLASS=" + d.class_code + "\nPCI_ID=" + d.ids + "\nPCI_SUBSYS_ID=1AF4:1100\nPCI_SLOT_NAME=" + d.address;
    file(place / "uevent", uevent + "\n");
    file(place / "vendor", "0x" + d.ids.substr(0, 4) + "\n");
    file(place / "device", "0x" + d.ids.substr(5) + "\n");
    file(place / "class", "0x" + d.class_code + "\n");
    file(place / "driver_override", "(null)\n");
    if (!d.config.empty()) file(place / "config", {reinterpret_cast<const char*>(d.config.data()), d.config.size()});
    link(std::filesystem::path("sys/bus/pci/devices") / d.address,
         std::filesystem::path("../../../devices") / d.parents / d.address);
    if (!d.driver.empty()) {
      const std::filesystem::path driver = std::filesystem::path("sys/bus/pci/drivers") / d.driver;
      std::filesystem::create_directories(root_ / driver);
      link(place / "driver", root_ / driver);
      link(driver / d.address, root_ / place);
    }
    if (d.group >= 0) {
      const auto group = std::filesystem::path("sys/kernel/iommu_groups") / std::to_string(d.group);
      link(group / "devices" / d.address, root_ / place);
      link(place / "iommu_group", root_ / group);
      if (!std::filesystem::exists(root_ / group / "type")) file(group / "type", "DMA-FQ\n");
      if (!std::filesystem::exists(root_ / group / "reserved_regions"))
        file(group / "reserved_regions", "0x00000000fee00000 0x00000000feefffff msi\n");
    }
    return place;
  }

 private:
  std::filesystem::path root_;
};

/// Configuration space under construction: little-endian values at offsets.
class ConfigBuilder {
 public:
  explicit ConfigBuilder(std::size_t size = 4096) : bytes_(size) {}
  ConfigBuilder& u8(std::size_t at, std::uint32_t value) { return put(at, value, 1); }
  ConfigBuilder& u16(std::size_t at, std::uint32_t value) { return put(at, value, 2); }
  ConfigBuilder& u32(std::size_t at, std::uint32_t value) { return put(at, value, 4); }
  /// Identity and the capability bit.
  ConfigBuilder& header(std::uint16_t vendor, std::uint16_t device, std::uint32_t class_code, std::uint8_t type = 0) {
    return u16(0, vendor).u16(2, device).u16(6, 0x10).u32(8, class_code << 8).u8(0x0e, type);
  }
  /// A PCI Express capability at 0x40 (and the pointer to it), so that extended capabilities count.
  ConfigBuilder& express(std::uint32_t port, std::uint32_t next = 0) {
    return u8(0x34, 0x40).u8(0x40, 0x10).u8(0x41, next).u16(0x42, 2 | port << 4);
  }
  ConfigBuilder& extended(std::size_t at, std::uint16_t id, std::uint32_t next, std::uint32_t version = 1) {
    return u32(at, id | version << 16 | next << 20);
  }
  [[nodiscard]] const std::vector<std::uint8_t>& bytes() const { return bytes_; }

 private:
  ConfigBuilder& put(std::size_t at, std::uint32_t value, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) bytes_.at(at + i) = static_cast<std::uint8_t>(value >> (8 * i));
    return *this;
  }
  std::vector<std::uint8_t> bytes_;
};

}  // namespace vm_platform::test
