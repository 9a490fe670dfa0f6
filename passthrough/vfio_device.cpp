#include "passthrough/vfio_device.hpp"

#include <fmt/format.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "passthrough/vf_token.hpp"
#include "passthrough/vfio_abi.hpp"
#include "passthrough/vfio_caps.hpp"

namespace vm_platform {
namespace {

constexpr std::string_view kIrqNames[] = {"INTx", "MSI", "MSI-X", "error", "request"};
std::string_view irq_name(VfioIrq irq) { return kIrqNames[static_cast<std::size_t>(irq)]; }

std::string region_name(std::uint32_t index) {
  if (index < 6) return fmt::format("BAR {}", index);
  if (index == VfioRegion::kRom) return "ROM";
  if (index == VfioRegion::kConfig) return "configuration space";
  if (index == VfioRegion::kVga) return "VGA region";
  return fmt::format("region {}", index);
}

}  // namespace

RegionMapping::RegionMapping(RegionMapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
RegionMapping& RegionMapping::operator=(RegionMapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}
RegionMapping::~RegionMapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

Result<std::unique_ptr<KernelVfioDevice>> KernelVfioDevice::create(VfioSystem& system, Descriptor descriptor,
                                                                   std::string name, const GroupOwner* owner) {
  std::unique_ptr<KernelVfioDevice> device(new KernelVfioDevice(system, std::move(descriptor), std::move(name), owner));
  vfio_device_info info{};
  info.argsz = sizeof info;
  if (system.ioctl(device->descriptor_.get(), VFIO_DEVICE_GET_INFO, &info) < 0)
    return fail(VmError::from_os(errno, "ask about device", device->name_));
  device->can_reset_ = (info.flags & VFIO_DEVICE_FLAGS_RESET) != 0;
  device->irq_count_ = info.num_irqs;
  for (std::uint32_t index = 0; index < std::min(info.num_regions, 4096U); ++index) {
    Region region;
    region.info.index = index;
    vfio_region_info ask{};
    ask.index = index;
    // A region that the device does not have is an error or a size of 0, depending on the driver.
    if (const auto answer =
            vfio_ask(system, device->descriptor_.get(), VFIO_DEVICE_GET_REGION_INFO, ask, "ask about", "region")) {
      vfio_region_info got;
      std::memcpy(&got, answer->data(), sizeof got);
      region.file_offset = got.offset;
      region.info.size = got.size;
      region.info.readable = (got.flags & VFIO_REGION_INFO_FLAG_READ) != 0;
      region.info.writable = (got.flags & VFIO_REGION_INFO_FLAG_WRITE) != 0;
      region.info.mappable = (got.flags & VFIO_REGION_INFO_FLAG_MMAP) != 0;
      read_region_capabilities(*answer, region.info);
    }
    device->regions_.push_back(std::move(region));
  }
  return device;
}

KernelVfioDevice::~KernelVfioDevice() = default;  // closing the descriptor turns interrupts off and resets the device

Result<VfioRegion> KernelVfioDevice::region(std::uint32_t index) const {
  if (index >= regions_.size() || regions_[index].info.size == 0)
    return fail(ErrorCode::NotFound, "find " + region_name(index) + " of", name_, "the device has none");
  return regions_[index].info;
}

Result<const KernelVfioDevice::Region*> KernelVfioDevice::access(const char* operation, std::uint32_t index,
                                                                 std::uint64_t offset, std::uint64_t size) const {
  const auto found = region(index);
  if (!found) return fail(found.error());
  if (offset > found->size || size > found->size - offset) {
    return fail(ErrorCode::InvalidArgument, fmt::format("{} {} of", operation, region_name(index)), name_,
                fmt::format("{} bytes at {:#x} are not inside its {:#x} bytes", size, offset, found->size));
  }
  return &regions_[index];
}

Result<void> KernelVfioDevice::read(std::uint32_t index, std::uint64_t offset, std::span<std::byte> out) const {
  const auto region = access("read", index, offset, out.size());
  if (!region) return fail(region.error());
  while (!out.empty()) {
    const ssize_t length =
        ::pread(descriptor_.get(), out.data(), out.size(), static_cast<off_t>((*region)->file_offset + offset));
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0)
      return fail(VmError::from_os(length < 0 ? errno : EIO, "read " + region_name(index) + " of", name_));
    out = out.subspan(static_cast<std::size_t>(length));
    offset += static_cast<std::uint64_t>(length);
  }
  return {};
}

Result<void> KernelVfioDevice::write(std::uint32_t index, std::uint64_t offset, std::span<const std::byte> in) {
  const auto region = access("write", index, offset, in.size());
  if (!region) return fail(region.error());
  while (!in.empty()) {
    const ssize_t length =
        ::pwrite(descriptor_.get(), in.data(), in.size(), static_cast<off_t>((*region)->file_offset + offset));
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0)
      return fail(VmError::from_os(length < 0 ? errno : EIO, "write " + region_name(index) + " of", name_));
    in = in.subspan(static_cast<std::size_t>(length));
    offset += static_cast<std::uint64_t>(length);
  }
  return {};
}

Result<RegionMapping> KernelVfioDevice::map(std::uint32_t index, std::uint64_t offset, std::uint64_t size) const {
  const auto region = access("map", index, offset, size);
  if (!region) return fail(region.error());
  const VfioRegion& info = (*region)->info;
  const auto bad = [&](const char* reason) {
    return fail(ErrorCode::InvalidArgument, "map " + region_name(index) + " of", name_, reason);
  };
  if (!info.mappable) return bad("it can only be read and written");
  if (size == 0 || (offset & (kPageSize - 1)) != 0) return bad("the range is empty or does not start at a page");
  const bool inside = info.sparse.empty() || std::ranges::any_of(info.sparse, [&](const IovaRange& part) {
                        return offset >= part.first && offset + (size - 1) <= part.last;
                      });
  if (!inside) return bad("that part cannot be mapped; see its sparse areas");
  const int protection = (info.readable ? PROT_READ : 0) | (info.writable ? PROT_WRITE : 0);
  void* address = ::mmap(nullptr, size, protection, MAP_SHARED, descriptor_.get(),
                         static_cast<off_t>((*region)->file_offset + offset));
  if (address == MAP_FAILED) return fail(VmError::from_os(errno, "map " + region_name(index) + " of", name_));
  return RegionMapping(static_cast<std::byte*>(address), size);
}

Result<VfioIrqInfo> KernelVfioDevice::irq_info(VfioIrq irq) const {
  VfioIrqInfo info;
  if (static_cast<std::uint32_t>(irq) >= irq_count_) return info;
  vfio_irq_info got{};
  got.argsz = sizeof got;
  got.index = static_cast<std::uint32_t>(irq);
  if (system_.ioctl(descriptor_.get(), VFIO_DEVICE_GET_IRQ_INFO, &got) < 0) {
    if (errno == EINVAL) return info;  // this kind does not exist for this device
    return fail(VmError::from_os(errno, fmt::format("ask about {} interrupts of", irq_name(irq)), name_));
  }
  info.count = got.count;
  info.eventfd = (got.flags & VFIO_IRQ_INFO_EVENTFD) != 0;
  info.maskable = (got.flags & VFIO_IRQ_INFO_MASKABLE) != 0;
  info.automasked = (got.flags & VFIO_IRQ_INFO_AUTOMASKED) != 0;
  info.resizable = (got.flags & VFIO_IRQ_INFO_NORESIZE) == 0;
  return info;
}

Result<void> KernelVfioDevice::set_irqs(const char* operation, VfioIrq irq, std::uint32_t flags, std::uint32_t start,
                                        std::uint32_t count, std::span<const int> eventfds) {
  std::vector<std::byte> buffer(sizeof(vfio_irq_set) + eventfds.size_bytes());
  vfio_irq_set head{};
  head.argsz = static_cast<std::uint32_t>(buffer.size());
  head.flags = flags;
  head.index = static_cast<std::uint32_t>(irq);
  head.start = start;
  head.count = count;
  std::memcpy(buffer.data(), &head, sizeof head);
  if (!eventfds.empty()) std::memcpy(buffer.data() + sizeof head, eventfds.data(), eventfds.size_bytes());
  if (system_.ioctl(descriptor_.get(), VFIO_DEVICE_SET_IRQS, buffer.data()) < 0)
    return fail(VmError::from_os(errno, fmt::format("{} {} interrupts of", operation, irq_name(irq)), name_));
  return {};
}

Result<void> KernelVfioDevice::enable_irq(VfioIrq irq, std::span<const int> eventfds) {
  const auto info = irq_info(irq);
  if (!info) return fail(info.error());
  if (eventfds.empty() || eventfds.size() > info->count) {
    return fail(info->count == 0 ? ErrorCode::Unsupported : ErrorCode::InvalidArgument,
                fmt::format("enable {} interrupts of", irq_name(irq)), name_,
                fmt::format("{} asked for, it has {}", eventfds.size(), info->count));
  }
  return set_irqs("enable", irq, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, 0,
                  static_cast<std::uint32_t>(eventfds.size()), eventfds);
}

Result<void> KernelVfioDevice::disable_irq(VfioIrq irq) {
  if (irq == VfioIrq::Error || irq == VfioIrq::Request) {  // these are turned off by taking their eventfd away
    const int none = -1;
    return set_irqs("disable", irq, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 1, {&none, 1});
  }
  return set_irqs("disable", irq, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0, {});
}

Result<void> KernelVfioDevice::mask_intx() {
  return set_irqs("mask", VfioIrq::Intx, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK, 0, 1, {});
}
Result<void> KernelVfioDevice::unmask_intx() {
  return set_irqs("unmask", VfioIrq::Intx, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, {});
}
Result<void> KernelVfioDevice::trigger_irq(VfioIrq irq, std::uint32_t vector) {
  return set_irqs("trigger", irq, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, vector, 1, {});
}

Result<void> KernelVfioDevice::reset() {
  if (!can_reset_) {
    return fail(VmError(ErrorCode::Unsupported, "reset", name_, "it has no reset of its own")
                    .with_hint("reset its slot or bus with hot_reset, which needs every device on it"));
  }
  if (system_.ioctl(descriptor_.get(), VFIO_DEVICE_RESET, nullptr) < 0)
    return fail(VmError::from_os(errno, "reset", name_));
  return {};
}

Result<std::vector<HotResetMember>> KernelVfioDevice::hot_reset_members() const {
  std::uint32_t room = 0;
  for (int attempt = 0; attempt < 8; ++attempt) {
    std::vector<std::byte> answer(sizeof(vfio_pci_hot_reset_info) + room * sizeof(vfio_pci_dependent_device));
    vfio_pci_hot_reset_info head;  // not with {}: clang takes its flexible array of structs for one of size zero
    std::memset(&head, 0, sizeof head);
    head.argsz = static_cast<std::uint32_t>(answer.size());
    std::memcpy(answer.data(), &head, sizeof head);
    const int result = system_.ioctl(descriptor_.get(), VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, answer.data());
    const int error = result < 0 ? errno : 0;
    std::memcpy(&head, answer.data(), sizeof head);
    if (error == ENOSPC) {
      room = std::max(head.count, room + 8);
      continue;
    }
    if (error != 0) {
      if (error == ENODEV)
        return fail(ErrorCode::Unsupported, "find what resets along with", name_, "neither slot nor bus can be reset");
      return fail(VmError::from_os(error, "find what resets along with", name_));
    }
    const bool by_device = (head.flags & kHotResetDevId) != 0;
    std::vector<HotResetMember> members;
    for (std::uint32_t i = 0; i < std::min(head.count, room); ++i) {
      vfio_pci_dependent_device dependent;
      std::memcpy(&dependent, answer.data() + sizeof head + i * sizeof dependent, sizeof dependent);
      HotResetMember member{{dependent.segment, dependent.bus, static_cast<std::uint8_t>(dependent.devfn >> 3),
                             static_cast<std::uint8_t>(dependent.devfn & 7)},
                            std::nullopt,
                            false};
      if (by_device) {
        member.owned = dependent.group_id != kDevIdNotOwned;
      } else {
        member.group = dependent.group_id;
        member.owned = owner_ != nullptr && owner_->group_descriptor(dependent.group_id) >= 0;
      }
      members.push_back(member);
    }
    return members;
  }
  return fail(ErrorCode::Busy, "find what resets along with", name_, "the set keeps changing");
}

Result<void> KernelVfioDevice::hot_reset() {
  const auto members = hot_reset_members();
  if (!members) return fail(members.error());
  std::map<std::uint32_t, int> owned;  // groups, each once; none where the kernel goes by devices
  std::string missing;
  for (const HotResetMember& member : *members) {
    if (!member.owned) missing += (missing.empty() ? "" : ", ") + member.address.to_string();
    if (member.owned && member.group) owned.emplace(*member.group, owner_->group_descriptor(*member.group));
  }
  if (!missing.empty()) {
    return fail(VmError(ErrorCode::PermissionDenied, "reset the bus of", name_, "it would also reset " + missing)
                    .with_hint("take and open those devices too"));
  }
  std::vector<int> groups;
  for (const auto& [group, descriptor] : owned) groups.push_back(descriptor);
  std::vector<std::byte> request(sizeof(vfio_pci_hot_reset) + groups.size() * sizeof(int));
  vfio_pci_hot_reset head{};
  head.argsz = static_cast<std::uint32_t>(request.size());
  head.count = static_cast<std::uint32_t>(groups.size());
  std::memcpy(request.data(), &head, sizeof head);
  if (!groups.empty()) std::memcpy(request.data() + sizeof head, groups.data(), groups.size() * sizeof(int));
  const int result = system_.ioctl(descriptor_.get(), VFIO_DEVICE_PCI_HOT_RESET, request.data());
  // The reset was done, and then the link did not report itself active in time (ports above 5 GT/s must): what is below
  // may be lost until it is removed and found again.
  if (result < 0 && errno == ENOTTY) {
    return fail(
        VmError(ErrorCode::Unsupported, "reset the bus of", name_, "its link did not come back")
            .with_hint("`dmesg` names the port; write 1 to the device's `remove` and then to `rescan` of the bus"));
  }
  if (result < 0 && errno == EINVAL) {
    std::string others;
    for (const HotResetMember& member : *members)
      if (member.address.to_string() != name_) others += (others.empty() ? "" : ", ") + member.address.to_string();
    return fail(VmError(ErrorCode::Busy, "reset the bus of", name_,
                        "not every function on it is bound to vfio-pci" + (others.empty() ? "" : ": see " + others))
                    .with_hint("`vmp passthrough take` takes them together"));
  }
  if (result < 0) return fail(VmError::from_os(errno, "reset the bus of", name_));
  return {};
}

Result<void> KernelVfioDevice::set_feature(const char* operation, std::uint32_t feature,
                                           std::span<const std::uint8_t> data, const char* since) {
  std::vector<std::byte> request(sizeof(vfio_device_feature) + data.size());
  vfio_device_feature head;  // not with {}: it ends in a flexible array
  std::memset(&head, 0, sizeof head);
  head.argsz = static_cast<std::uint32_t>(request.size());
  head.flags = VFIO_DEVICE_FEATURE_SET | feature;
  std::memcpy(request.data(), &head, sizeof head);
  if (!data.empty()) std::memcpy(request.data() + sizeof head, data.data(), data.size());
  if (system_.ioctl(descriptor_.get(), VFIO_DEVICE_FEATURE, request.data()) == 0) return {};
  if (errno == ENOTTY || errno == EINVAL) {
    return fail(
        VmError(ErrorCode::Unsupported, operation, name_, "the kernel has no such feature for it").with_hint(since));
  }
  return fail(VmError::from_os(errno, operation, name_));
}

Result<void> KernelVfioDevice::set_low_power(bool on) {
  return set_feature("change power of", on ? VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY : VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
                     {}, "devices with PCI power management have it, from Linux 6.1 on");
}

Result<void> KernelVfioDevice::set_vf_token(std::string_view uuid) {
  const auto token = parse_vf_token(uuid);
  if (!token) return fail(token.error());
  return set_feature("set VF token of", VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, *token,
                     "it needs virtual functions: load vfio-pci with enable_sriov=1");
}

Result<std::uint32_t> VfioDevice::config_read(std::uint32_t offset, unsigned width) const {
  std::uint32_t value = 0;  // little-endian like configuration space itself
  if (width != 1 && width != 2 && width != 4)
    return fail(ErrorCode::InvalidArgument, "read configuration space of", name(), fmt::format("width {}", width));
  const auto done = read(VfioRegion::kConfig, offset, std::as_writable_bytes(std::span(&value, 1)).first(width));
  if (!done) return fail(done.error());
  return value;
}

Result<void> VfioDevice::config_write(std::uint32_t offset, unsigned width, std::uint32_t value) {
  if (width != 1 && width != 2 && width != 4)
    return fail(ErrorCode::InvalidArgument, "write configuration space of", name(), fmt::format("width {}", width));
  return write(VfioRegion::kConfig, offset, std::as_bytes(std::span(&value, 1)).first(width));
}

Result<ConfigSpace> VfioDevice::config_space() const {
  const auto info = region(VfioRegion::kConfig);
  if (!info) return fail(info.error());
  std::vector<std::uint8_t> bytes(std::min<std::uint64_t>(info->size, ConfigSpace::kMaxSize));
  const auto done = read(VfioRegion::kConfig, 0, std::as_writable_bytes(std::span(bytes)));
  if (!done) return fail(done.error());
  return ConfigSpace(bytes);
}

}  // namespace vm_platform
