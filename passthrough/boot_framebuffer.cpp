#include "passthrough/boot_framebuffer.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <vm_platform/passthrough.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

namespace fs = std::filesystem;

constexpr std::array<const char*, 3> kDrivers = {"simple-framebuffer", "efi-framebuffer", "vesa-framebuffer"};
/// What drivers call their part of a BAR in /proc/iomem.
constexpr std::array<std::string_view, 6> kRegions = {"efifb",  "vesafb",    "simplefb",
                                                      "BOOTFB", "simpledrm", "simple-framebuffer"};

/// Whether /proc/iomem has a boot framebuffer inside a range of the GPU. A range lies in the one above it that is
/// indented less: "  c0000000-c0ffffff : 0000:00:01.0" and below it "    c0000000-c01d4bff : vesafb".
bool drawn_into(const std::string& gpu, std::string_view device, const fs::path& root) {
  const auto content = read_kernel_file(root / "proc/iomem");
  if (!content) return false;
  std::string_view rest = *content;
  std::size_t inside = std::string_view::npos;  // indentation of the GPU's range while in it
  while (!rest.empty()) {
    const std::string_view line = text::take(rest, '\n');
    const auto indent = line.find_first_not_of(' '), colon = line.find(" : ");
    if (indent == std::string_view::npos || colon == std::string_view::npos) continue;
    const std::string_view name = line.substr(colon + 3);
    if (inside != std::string_view::npos && indent <= inside) inside = std::string_view::npos;
    if (name == gpu) {
      inside = indent;
    } else if (inside != std::string_view::npos) {
      const bool known =
          std::ranges::any_of(kRegions, [&](std::string_view region) { return name.starts_with(region); });
      if (known || name == device) return true;
    }
  }
  return false;
}

fs::path place_of(const std::string& device, const fs::path& sysfs) { return sysfs / "bus/platform/devices" / device; }

}  // namespace

std::vector<std::string> framebuffer_consoles(const fs::path& sysfs) {
  std::vector<std::string> consoles;
  for (const std::string& name : list_directory(sysfs / "class/vtconsole")) {
    const auto text = read_kernel_file(sysfs / "class/vtconsole" / name / "name");
    const auto bound = read_kernel_file(sysfs / "class/vtconsole" / name / "bind");
    if (text && bound && text->find("frame buffer") != std::string::npos && text::trim(*bound) == "1")
      consoles.push_back(name);
  }
  return consoles;
}

std::optional<BootFramebuffer> find_boot_framebuffer(PciAddress gpu, const fs::path& sysfs, const fs::path& root) {
  std::error_code error;
  const fs::path above = fs::canonical(sysfs / "bus/pci/devices" / gpu.to_string(), error);
  if (error) return std::nullopt;
  for (const char* driver : kDrivers) {
    for (const std::string& device : list_directory(sysfs / "bus/platform/drivers" / driver)) {
      const fs::path place = fs::canonical(sysfs / "bus/platform/drivers" / driver / device, error);
      if (error || !device.starts_with(driver)) continue;  // "bind", "unbind", "uevent"
      const bool below = place.string().starts_with(above.string() + "/");
      if (!below && !drawn_into(gpu.to_string(), device, root)) continue;
      BootFramebuffer found{device, driver, {}, framebuffer_consoles(sysfs)};
      if (const auto nodes = list_directory(place / "graphics"); !nodes.empty()) found.node = nodes.front();
      return found;
    }
  }
  return std::nullopt;
}

Result<void> bind_console(const std::string& console, bool bound, const fs::path& sysfs) {
  const char* wanted = bound ? "1" : "0";
  const auto file = sysfs / "class/vtconsole" / console / "bind";
  if (auto written = write_kernel_file(file, wanted, (bound ? "bind console " : "unbind console ") + console); !written)
    return written;
  const auto now = read_kernel_file(file);
  if (!now) return fail(now.error());
  if (text::trim(*now) != wanted) {
    return fail(VmError(ErrorCode::Io, bound ? "bind console" : "unbind console", console, "the kernel did not do it")
                    .with_detail(PassthroughError::KernelIgnored));
  }
  return {};
}

Result<void> unbind_framebuffer(const std::string& device, const std::string& driver, const fs::path& sysfs) {
  auto written = write_kernel_file(sysfs / "bus/platform/drivers" / driver / "unbind", device,
                                   "unbind boot framebuffer " + device);
  if (!written) return written;
  if (link_name(place_of(device, sysfs) / "driver")) {
    return fail(VmError(ErrorCode::Io, "unbind boot framebuffer", device, driver + " is still bound")
                    .with_detail(PassthroughError::KernelIgnored));
  }
  return {};
}

Result<void> rebind_framebuffer(const std::string& device, const std::string& driver, const fs::path& sysfs) {
  std::error_code ignored;
  if (!fs::exists(place_of(device, sysfs), ignored) || link_name(place_of(device, sysfs) / "driver")) return {};
  return write_kernel_file(sysfs / "bus/platform/drivers" / driver / "bind", device, "bind boot framebuffer " + device);
}

}  // namespace vm_platform
