#include "passthrough/iommufd_container.hpp"

#include <algorithm>
#include <cerrno>

#include "passthrough/vfio_abi.hpp"

namespace vm_platform {
namespace {

/// A structure that says its own size, as every iommufd request does.
template <typename T>
T request() {
  T made{};
  made.size = sizeof(T);
  return made;
}

}  // namespace

Result<std::unique_ptr<IommufdContainer>> IommufdContainer::open(VfioSystem& system,
                                                                 const std::filesystem::path& path) {
  auto container = std::make_unique<IommufdContainer>(system);
  container->descriptor_ = Descriptor(system.open(path.c_str()));
  if (!container->descriptor_.valid()) {
    const int error = errno;
    const char* hint = "load it with `modprobe iommufd`; kernels before 6.2 do not have it";
    if (error == EACCES || error == EPERM) hint = "run as root, or let `vmp passthrough setup` give your group access";
    return fail(VmError::from_os(error, "open", path.string()).with_hint(hint));
  }
  auto alloc = request<IoasAlloc>();
  if (system.ioctl(container->descriptor(), kIoasAlloc, &alloc) < 0)
    return fail(VmError::from_os(errno, "make I/O address space in", path.string()));
  container->ioas_ = alloc.out_ioas_id;
  return container;
}

bool IommufdContainer::records_writes(std::uint32_t device_id) const {
  auto info = request<HwInfo>();
  info.dev_id = device_id;
  // Kernels before 6.7 have no such request, and mediated devices no hardware: neither records.
  return system_.ioctl(descriptor(), kGetHwInfo, &info) == 0 && (info.out_capabilities & kHwCapDirtyTracking) != 0;
}

bool IommufdContainer::attach_to(int device, std::uint32_t table) const {
  VfioAttachIommufd attach{sizeof attach, 0, table};
  return system_.ioctl(device, kVfioAttachIommufd, &attach) == 0;
}

Result<void> IommufdContainer::attach(int device, std::uint32_t device_id, const std::string& name) {
  if (records_writes(device_id)) {
    // A page table serves all devices behind IOMMUs that understand it; the kernel says which by refusing the rest.
    if (std::ranges::any_of(dirty_tables_, [&](std::uint32_t table) { return attach_to(device, table); })) return {};
    auto alloc = request<HwptAlloc>();
    alloc.flags = kHwptDirtyTracking;
    alloc.dev_id = device_id;
    alloc.pt_id = ioas_;
    if (system_.ioctl(descriptor(), kHwptAlloc, &alloc) == 0) {
      if (attach_to(device, alloc.out_hwpt_id)) {
        dirty_tables_.push_back(alloc.out_hwpt_id);
        return tracking_ ? set_tracking(alloc.out_hwpt_id, true) : Result<void>{};
      }
      std::uint32_t destroy[2] = {sizeof destroy, alloc.out_hwpt_id};
      (void)system_.ioctl(descriptor(), kIommuDestroy, destroy);
    }
  }
  if (!attach_to(device, ioas_)) {
    auto failure = VmError::from_os(errno, "attach to I/O address space", name);
    if (failure.os_error() == EINVAL)
      failure = std::move(failure).with_hint("what is mapped already may touch a range reserved for this device");
    if (failure.os_error() == EBUSY)
      failure = std::move(failure).with_hint("a device of its IOMMU group is used by somebody else");
    return fail(std::move(failure));
  }
  all_record_ = false;
  return {};
}

Result<void> IommufdContainer::map(Iova iova, std::span<std::byte> memory, DmaAccess access) {
  if (auto checked = DmaAccount::check(iova, memory); !checked) return checked;
  auto map = request<IoasMap>();
  map.flags = kIoasMapFixed;
  if ((static_cast<unsigned>(access) & 1) != 0) map.flags |= kIoasMapReadable;
  if ((static_cast<unsigned>(access) & 2) != 0) map.flags |= kIoasMapWritable;
  map.ioas_id = ioas_;
  map.user_va = reinterpret_cast<std::uintptr_t>(memory.data());
  map.length = memory.size();
  map.iova = iova.value;
  if (system_.ioctl(descriptor(), kIoasMap, &map) < 0) {
    // iommufd calls a reserved range ENOENT or EADDRINUSE, where the container says EINVAL and EEXIST.
    int error = errno;
    if (error == EADDRINUSE) error = EEXIST;
    if (error == ENOENT) error = EINVAL;
    return fail(account_.explain(error, iova, memory.size(), limits().valid));
  }
  account_.add(iova, memory.size());
  return {};
}

Result<std::uint64_t> IommufdContainer::unmap(Iova iova, std::uint64_t size) {
  auto unmap = request<IoasUnmap>();
  unmap.ioas_id = ioas_;
  unmap.iova = iova.value;
  unmap.length = size;
  if (system_.ioctl(descriptor(), kIoasUnmap, &unmap) < 0) {
    if (errno == ENOENT && !account_.any_in(iova, size)) return 0;  // nothing was mapped there
    return fail(VmError::from_os(errno, "unmap from DMA", range_text(iova, size)));
  }
  account_.remove(iova, size);
  return unmap.length;
}

Result<void> IommufdContainer::set_tracking(std::uint32_t table, bool on) const {
  auto set = request<HwptSetDirty>();
  set.flags = on ? 1 : 0;
  set.hwpt_id = table;
  if (system_.ioctl(descriptor(), kHwptSetDirty, &set) == 0) return {};
  return fail(VmError::from_os(errno, on ? "start tracking pages written by" : "stop tracking pages written by",
                               "devices of an I/O address space"));
}

Result<void> IommufdContainer::track_dirty(bool on) {
  if (dirty_tables_.empty() || !all_record_) {
    return fail(ErrorCode::Unsupported, "track pages written by", "devices of an I/O address space",
                "not every IOMMU involved records writes");
  }
  for (const std::uint32_t table : dirty_tables_)
    if (auto set = set_tracking(table, on); !set) return set;
  tracking_ = on;
  return {};
}

Result<std::vector<std::uint64_t>> IommufdContainer::take_dirty(Iova iova, std::uint64_t size,
                                                                std::uint64_t page_size) {
  if (page_size == 0 || (page_size & (page_size - 1)) != 0 || size == 0)
    return fail(ErrorCode::InvalidArgument, "read pages written in", range_text(iova, size), "bad page size or range");
  std::vector<std::uint64_t> bitmap((size / page_size + 63) / 64);
  for (const std::uint32_t table : dirty_tables_) {  // the kernel sets bits and clears none: they add up
    auto get = request<HwptGetDirty>();
    get.hwpt_id = table;
    get.iova = iova.value;
    get.length = size;
    get.page_size = page_size;
    get.data = reinterpret_cast<std::uintptr_t>(bitmap.data());
    if (system_.ioctl(descriptor(), kHwptGetDirty, &get) < 0)
      return fail(VmError::from_os(errno, "read pages written in", range_text(iova, size)));
  }
  return bitmap;
}

DmaLimits IommufdContainer::limits() const {
  DmaLimits limits;
  limits.dirty_tracking = !dirty_tables_.empty() && all_record_;
  std::vector<IommuIovaRange> ranges(8);
  for (;;) {
    auto ask = request<IoasIovaRanges>();
    ask.ioas_id = ioas_;
    ask.num_iovas = static_cast<std::uint32_t>(ranges.size());
    ask.allowed_iovas = reinterpret_cast<std::uintptr_t>(ranges.data());
    const int result = system_.ioctl(descriptor(), kIoasIovaRanges, &ask);
    if (result < 0 && errno == EMSGSIZE && ask.num_iovas > ranges.size() && ask.num_iovas < (1U << 20)) {
      ranges.resize(ask.num_iovas);
      continue;
    }
    if (result < 0) return limits;
    ranges.resize(std::min<std::size_t>(ask.num_iovas, ranges.size()));
    limits.page_sizes = ~(std::max<std::uint64_t>(ask.out_iova_alignment, 1) - 1);
    break;
  }
  for (const IommuIovaRange& range : ranges) limits.valid.push_back({range.first, range.last});
  return limits;
}

}  // namespace vm_platform
