#include <algorithm>
#include <cerrno>
#include <vm_platform/iommu.hpp>
#include <vm_platform/passthrough.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

std::vector<ReservedRegion> reserved_regions(const std::filesystem::path& group) {
  std::vector<ReservedRegion> regions;
  const auto content = read_kernel_file(group / "reserved_regions");
  if (!content) return regions;
  std::string_view rest = *content;
  while (!rest.empty()) {  // "0x00000000fee00000 0x00000000feefffff msi"
    const auto parts = text::words(text::take(rest, '\n'));
    if (parts.size() != 3) continue;
    const auto first = text::number(parts[0], 16), last = text::number(parts[1], 16);
    if (first && last) regions.push_back({*first, *last, std::string(parts[2])});
  }
  return regions;
}

Result<IommuGroup> read_group(const std::filesystem::path& sysfs, int number) {
  IommuGroup group;
  group.number = number;
  const auto path = sysfs / "kernel/iommu_groups" / std::to_string(number);
  if (const auto type = read_kernel_file(path / "type")) group.type = text::trim(*type);
  group.reserved = reserved_regions(path);
  for (const std::string& name : list_directory(path / "devices")) {
    const auto address = PciAddress::parse(name);
    if (!address) continue;  // platform devices have groups too
    if (auto info = read_pci_device(*address, sysfs)) group.devices.push_back(std::move(*info));
  }
  return group;
}

std::string no_groups_hint(const IommuStatus& status) {
  std::string hint;
  for (const std::string& problem : status.problems) hint += (hint.empty() ? "" : "; ") + problem;
  return hint;
}

/// True where a module of this name (with - and _ the same) is in a modules.* list of the running kernel.
bool module_listed(const std::filesystem::path& root, std::string_view name, const char* list) {
  const auto release = read_kernel_file(root / "proc/sys/kernel/osrelease");
  if (!release) return false;
  const auto path = root / "lib/modules" / std::string(text::trim(*release)) / list;
  const auto content = read_kernel_file(path);
  return content && content->find("/" + std::string(name) + ".ko") != std::string::npos;
}

}  // namespace

IommuManager::IommuManager(std::filesystem::path sysfs, std::filesystem::path root)
    : sysfs_(std::move(sysfs)), root_(std::move(root)) {}

Result<std::vector<IommuGroup>> IommuManager::groups() const {
  std::vector<int> numbers;
  for (const std::string& name : list_directory(sysfs_ / "kernel/iommu_groups"))
    if (const auto number = text::number<int>(name)) numbers.push_back(*number);
  if (numbers.empty()) {
    return fail(VmError(ErrorCode::Unsupported, "list IOMMU groups", {}, "the kernel has made none")
                    .with_detail(PassthroughError::NoIommu)
                    .with_hint(no_groups_hint(status())));
  }
  std::ranges::sort(numbers);
  std::vector<IommuGroup> groups;
  for (const int number : numbers) {
    auto group = read_group(sysfs_, number);
    if (group) groups.push_back(std::move(*group));
  }
  return groups;
}

Result<IommuGroup> IommuManager::group_of(PciAddress address) const {
  const auto path = sysfs_ / "bus/pci/devices" / address.to_string();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    return fail(VmError(ErrorCode::NotFound, "find IOMMU group of", address.to_string(), "no such device")
                    .with_hint("`vmp pci list` shows those that are there"));
  }
  const auto name = link_name(path / "iommu_group");
  const auto number = name ? text::number<int>(*name) : std::nullopt;
  if (!number) {
    return fail(VmError(ErrorCode::Unsupported, "find IOMMU group of", address.to_string(), "it has none")
                    .with_detail(PassthroughError::NoIommu)
                    .with_hint(no_groups_hint(status())));
  }
  return read_group(sysfs_, *number);
}

IommuStatus IommuManager::status() const {
  IommuStatus status;
  const bool dmar = !list_directory(sysfs_ / "firmware/acpi/tables").empty() &&
                    std::filesystem::exists(sysfs_ / "firmware/acpi/tables/DMAR");
  const bool ivrs = std::filesystem::exists(sysfs_ / "firmware/acpi/tables/IVRS");
  const auto units = list_directory(sysfs_ / "class/iommu");
  status.active = !list_directory(sysfs_ / "kernel/iommu_groups").empty();
  status.present = dmar || ivrs || !units.empty() || status.active;
  const auto cpuinfo = read_kernel_file(root_ / "proc/cpuinfo");
  const bool amd = ivrs || (cpuinfo && cpuinfo->find("AuthenticAMD") != std::string::npos);
  const auto command_line = read_kernel_file(root_ / "proc/cmdline");
  const bool asked_on = command_line && command_line->find("intel_iommu=on") != std::string::npos;
  const auto remapped = read_kernel_file(root_ / "proc/interrupts");
  status.interrupt_remapping =
      remapped && (remapped->find("IR-") != std::string::npos || remapped->find("-IR") != std::string::npos);
  if (!status.present) {
    status.problems.push_back(amd ? "turn on AMD-Vi (also called IOMMU) in the firmware setup, then reboot"
                                  : "turn on VT-d (on AMD: AMD-Vi or IOMMU) in the firmware setup, then reboot; in a "
                                    "virtual machine, give it a virtual IOMMU");
  } else if (!status.active) {
    if (!amd && !asked_on)
      status.problems.push_back("add intel_iommu=on to the kernel command line, then reboot (`vmp passthrough setup`)");
    else if (command_line && command_line->find("iommu=off") != std::string::npos)
      status.problems.push_back("remove iommu=off from the kernel command line, then reboot");
    else
      status.problems.push_back(
          "the kernel found an IOMMU and does not use it: see `dmesg | grep -i -e DMAR -e AMD-Vi`");
  }
  const bool loaded = std::filesystem::exists(sysfs_ / "bus/pci/drivers/vfio-pci");
  status.vfio_available =
      loaded || module_listed(root_, "vfio-pci", "modules.dep") || module_listed(root_, "vfio-pci", "modules.builtin");
  if (!status.vfio_available)
    status.problems.push_back(
        "this kernel has no vfio-pci: install one built with CONFIG_VFIO_PCI (Debian and Ubuntu "
        "kernels have it; some cloud kernels do not)");
  else if (!loaded)
    status.problems.push_back("load the driver: modprobe vfio-pci");
  return status;
}

}  // namespace vm_platform
