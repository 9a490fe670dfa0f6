#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <vm_platform/vgpu.hpp>

#include "passthrough/sysfs.hpp"
#include "passthrough/text.hpp"

namespace vm_platform {
namespace {

namespace fs = std::filesystem;

std::string word(const fs::path& file) {
  const auto content = read_kernel_file(file);
  return content ? std::string(text::trim(*content)) : std::string();
}

std::optional<int> group_of(const fs::path& device) {
  const auto group = link_name(device / "iommu_group");
  return group ? text::number<int>(*group) : std::nullopt;
}

/// "1414 : NVIDIA H200X-1-18C", a line each below a heading.
struct NvidiaType {
  std::string id, name;
};
std::vector<NvidiaType> nvidia_types(const fs::path& function) {
  std::vector<NvidiaType> types;
  const auto content = read_kernel_file(function / "nvidia/creatable_vgpu_types");
  std::string_view rest = content ? std::string_view(*content) : std::string_view();
  while (!rest.empty()) {
    std::string_view line = text::take(rest, '\n');
    const std::string_view id = text::trim(text::take(line, ':'));
    if (text::number(id)) types.push_back({std::string(id), std::string(text::trim(line))});
  }
  return types;
}

/// The virtual functions that NVIDIA's driver gives types.
std::vector<std::string> nvidia_functions(const fs::path& sysfs) {
  std::vector<std::string> found;
  std::error_code ignored;
  for (const std::string& name : list_directory(sysfs / "bus/pci/devices"))
    if (fs::exists(sysfs / "bus/pci/devices" / name / "nvidia/current_vgpu_type", ignored)) found.push_back(name);
  return found;
}

Result<std::string> new_uuid() {
  auto content = read_kernel_file("/proc/sys/kernel/random/uuid");
  if (!content) return content;
  return std::string(text::trim(*content));
}

Result<VgpuDevice> create_mediated(const fs::path& sysfs, const VgpuType& type, const std::string& wanted) {
  std::string uuid = wanted;
  if (uuid.empty()) {
    auto made = new_uuid();
    if (!made) return fail(made.error());
    uuid = std::move(*made);
  }
  std::error_code ignored;
  if (fs::exists(sysfs / "bus/mdev/devices" / uuid, ignored))
    return fail(ErrorCode::Status, "create mediated device", uuid, "there is one with this UUID");
  const fs::path place = sysfs / "class/mdev_bus" / type.parent / "mdev_supported_types" / type.id;
  if (auto made = write_kernel_file(place / "create", uuid, "create mediated device " + uuid); !made)
    return fail(made.error());
  const fs::path device = sysfs / "bus/mdev/devices" / uuid;
  if (!fs::exists(device, ignored))
    return fail(ErrorCode::Io, "create mediated device", uuid, "the kernel accepted it and made nothing");
  return VgpuDevice{VgpuStyle::Mediated, type.parent, type.id, uuid, group_of(device)};
}

Result<VgpuDevice> create_function(const fs::path& sysfs, const VgpuType& type) {
  const fs::path device = sysfs / "bus/pci/devices" / type.parent;
  const fs::path file = device / "nvidia/current_vgpu_type";
  if (auto set = write_kernel_file(file, type.id, "give a vGPU type to " + type.parent); !set) return fail(set.error());
  if (const std::string now = word(file); now != type.id) {
    return fail(ErrorCode::Io, "give a vGPU type to", type.parent, fmt::format("asked for {}, found {}", type.id, now));
  }
  return VgpuDevice{VgpuStyle::VirtualFunction, type.parent, type.id, type.parent, group_of(device)};
}

}  // namespace

std::string_view to_string(VgpuStyle style) noexcept {
  return style == VgpuStyle::Mediated ? "mediated" : "virtual function";
}

bool is_uuid(std::string_view text) noexcept {
  if (text.size() != 36) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const char c = text[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (dash ? c != '-' : !hex) return false;
  }
  return true;
}

std::vector<VgpuType> VgpuManager::types() const {
  std::vector<VgpuType> found;
  for (const std::string& parent : list_directory(sysfs_ / "class/mdev_bus")) {
    const fs::path types = sysfs_ / "class/mdev_bus" / parent / "mdev_supported_types";
    for (const std::string& id : list_directory(types)) {
      VgpuType type{VgpuStyle::Mediated,
                    parent,
                    id,
                    word(types / id / "name"),
                    word(types / id / "device_api"),
                    word(types / id / "description")};
      type.available = text::number<std::uint32_t>(word(types / id / "available_instances")).value_or(0);
      if (type.name.empty()) type.name = id;
      found.push_back(std::move(type));
    }
  }
  for (const std::string& function : nvidia_functions(sysfs_)) {
    const fs::path place = sysfs_ / "bus/pci/devices" / function;
    const std::string current = word(place / "nvidia/current_vgpu_type");
    for (NvidiaType& type : nvidia_types(place))
      found.push_back({VgpuStyle::VirtualFunction,
                       function,
                       std::move(type.id),
                       std::move(type.name),
                       "vfio-pci",
                       {},
                       current.empty() || current == "0" ? 1U : 0U});
  }
  return found;
}

std::vector<VgpuDevice> VgpuManager::devices() const {
  std::vector<VgpuDevice> found;
  std::error_code error;
  for (const std::string& uuid : list_directory(sysfs_ / "bus/mdev/devices")) {
    const fs::path place = fs::canonical(sysfs_ / "bus/mdev/devices" / uuid, error);
    if (error) continue;
    found.push_back({VgpuStyle::Mediated, place.parent_path().filename(), link_name(place / "mdev_type").value_or(""),
                     uuid, group_of(place)});
  }
  for (const std::string& function : nvidia_functions(sysfs_)) {
    const fs::path place = sysfs_ / "bus/pci/devices" / function;
    const std::string current = word(place / "nvidia/current_vgpu_type");
    if (!current.empty() && current != "0")
      found.push_back({VgpuStyle::VirtualFunction, function, current, function, group_of(place)});
  }
  return found;
}

Result<VgpuDevice> VgpuManager::create(const std::string& parent, const std::string& type, const std::string& uuid) {
  const std::string subject = fmt::format("{} of {}", type, parent);
  if (!uuid.empty() && !is_uuid(uuid))
    return fail(VmError(ErrorCode::InvalidArgument, "create vGPU", uuid, "it is not a UUID")
                    .with_hint("leave it out to have one made"));
  const auto all = types();
  const auto found = std::ranges::find_if(all, [&](const VgpuType& t) { return t.parent == parent && t.id == type; });
  if (found == all.end()) {
    std::string others;
    for (const VgpuType& other : all)
      if (other.parent == parent) others += (others.empty() ? "" : ", ") + other.id;
    return fail(VmError(ErrorCode::NotFound, "create vGPU", subject,
                        others.empty() ? "no such parent, or it hands out nothing" : "no such type")
                    .with_hint(others.empty() ? "`vmp gpu vgpu list` shows what there is" : "it has " + others));
  }
  if (found->available == 0) return fail(ErrorCode::OutOfMemory, "create vGPU", subject, "no more of this type fit");
  return found->style == VgpuStyle::Mediated ? create_mediated(sysfs_, *found, uuid) : create_function(sysfs_, *found);
}

Result<void> VgpuManager::remove(const std::string& id) {
  const auto all = devices();
  const auto found = std::ranges::find(all, id, &VgpuDevice::id);
  if (found == all.end()) {
    return fail(VmError(ErrorCode::NotFound, "remove vGPU", id, "there is none")
                    .with_hint("`vmp gpu vgpu list` shows those that are there"));
  }
  const bool mediated = found->style == VgpuStyle::Mediated;
  auto removed = mediated ? write_kernel_file(sysfs_ / "bus/mdev/devices" / id / "remove", "1", "remove vGPU " + id)
                          : write_kernel_file(sysfs_ / "bus/pci/devices" / id / "nvidia/current_vgpu_type", "0",
                                              "take the vGPU type from " + id);
  if (!removed) {
    if (removed.error().os_error() != EBUSY && removed.error().os_error() != EAGAIN) return removed;
    return fail(VmError(ErrorCode::Busy, "remove vGPU", id, "a process has it open").with_hint("end the guest first"));
  }
  const auto now = devices();
  if (std::ranges::find(now, id, &VgpuDevice::id) != now.end())
    return fail(ErrorCode::Io, "remove vGPU", id, "the kernel accepted it, and it is still there");
  return {};
}

}  // namespace vm_platform
