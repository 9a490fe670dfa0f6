#include "passthrough/vfio_container.hpp"

#include <fmt/format.h>
#include <linux/vfio.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "guest/guest_memory.hpp"
#include "passthrough/vfio_caps.hpp"

namespace vm_platform {

Result<std::unique_ptr<Type1Container>> Type1Container::open(VfioSystem& system, const std::filesystem::path& dev) {
  const auto path = dev / "vfio";
  auto container = std::make_unique<Type1Container>(system);
  container->descriptor_ = Descriptor(system.open(path.c_str()));
  if (!container->descriptor_.valid()) {
    const int error = errno;
    const char* hint = "load the driver with `modprobe vfio-pci`; `vmp iommu groups` says what else is missing";
    if (error == EACCES || error == EPERM) hint = "run as root, or let `vmp passthrough setup` give your group access";
    return fail(VmError::from_os(error, "open", path.string()).with_hint(hint));
  }
  const int version = system.ioctl_value(container->descriptor(), VFIO_GET_API_VERSION, 0);
  if (version != VFIO_API_VERSION)
    return fail(ErrorCode::Unsupported, "open", path.string(), fmt::format("VFIO API version {}", version));
  if (system.ioctl_value(container->descriptor(), VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) <= 0) {
    return fail(VmError(ErrorCode::Unsupported, "open", path.string(), "no type 1 IOMMU support")
                    .with_hint("load it with `modprobe vfio_iommu_type1`"));
  }
  return container;
}

Result<void> Type1Container::set_iommu() {
  if (iommu_set_) return {};
  if (system_.ioctl_value(descriptor(), VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0) {
    const int error = errno;
    auto failure = VmError::from_os(error, "set IOMMU of", "VFIO container");
    if (error == EPERM) {
      failure = std::move(failure).with_hint(
          "the platform cannot remap interrupts; turn on interrupt remapping (x2APIC) in the firmware, or accept the "
          "risk "
          "with the module option vfio_iommu_type1.allow_unsafe_interrupts=1");
    }
    return fail(std::move(failure));
  }
  iommu_set_ = true;
  return {};
}

Result<void> Type1Container::map(Iova iova, std::span<std::byte> memory, DmaAccess access) {
  if (auto checked = DmaAccount::check(iova, memory); !checked) return checked;
  vfio_iommu_type1_dma_map map{};
  map.argsz = sizeof map;
  if ((static_cast<unsigned>(access) & 1) != 0) map.flags |= VFIO_DMA_MAP_FLAG_READ;
  if ((static_cast<unsigned>(access) & 2) != 0) map.flags |= VFIO_DMA_MAP_FLAG_WRITE;
  map.vaddr = reinterpret_cast<std::uintptr_t>(memory.data());
  map.iova = iova.value;
  map.size = memory.size();
  if (system_.ioctl(descriptor(), VFIO_IOMMU_MAP_DMA, &map) < 0) {
    const int error = errno;
    return fail(account_.explain(error, iova, memory.size(), limits().valid));
  }
  account_.add(iova, memory.size());
  return {};
}

Result<std::uint64_t> Type1Container::unmap(Iova iova, std::uint64_t size) {
  vfio_iommu_type1_dma_unmap unmap{};
  unmap.argsz = sizeof unmap;
  unmap.iova = iova.value;
  unmap.size = size;
  if (system_.ioctl(descriptor(), VFIO_IOMMU_UNMAP_DMA, &unmap) < 0)
    return fail(VmError::from_os(errno, "unmap from DMA", range_text(iova, size)));
  account_.remove(iova, size);
  return unmap.size;
}

Result<void> Type1Container::track_dirty(bool on) {
  vfio_iommu_type1_dirty_bitmap request{};
  request.argsz = sizeof request;
  request.flags = on ? VFIO_IOMMU_DIRTY_PAGES_FLAG_START : VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP;
  if (system_.ioctl(descriptor(), VFIO_IOMMU_DIRTY_PAGES, &request) < 0) {
    if (errno == ENOTTY)
      return fail(ErrorCode::Unsupported, "track pages written by", "VFIO container", "this kernel cannot");
    return fail(VmError::from_os(errno, on ? "start tracking pages written by" : "stop tracking pages written by",
                                 "VFIO container"));
  }
  return {};
}

Result<std::vector<std::uint64_t>> Type1Container::take_dirty(Iova iova, std::uint64_t size, std::uint64_t page_size) {
  if (page_size == 0 || (page_size & (page_size - 1)) != 0 || size == 0)
    return fail(ErrorCode::InvalidArgument, "read pages written in", range_text(iova, size), "bad page size or range");
  std::vector<std::uint64_t> bitmap((size / page_size + 63) / 64);
  vfio_iommu_type1_dirty_bitmap head{};
  vfio_iommu_type1_dirty_bitmap_get get{};
  std::array<std::byte, sizeof head + sizeof get> request;  // the kernel reads `get` where `head` ends
  head.argsz = sizeof request;
  head.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
  get.iova = iova.value;
  get.size = size;
  get.bitmap.pgsize = page_size;
  get.bitmap.size = bitmap.size() * sizeof(std::uint64_t);
  // The header declares it as __u64 *, which on this ABI is unsigned long long.
  get.bitmap.data = reinterpret_cast<decltype(get.bitmap.data)>(bitmap.data());
  std::memcpy(request.data(), &head, sizeof head);
  std::memcpy(request.data() + sizeof head, &get, sizeof get);
  if (system_.ioctl(descriptor(), VFIO_IOMMU_DIRTY_PAGES, request.data()) < 0)
    return fail(VmError::from_os(errno, "read pages written in", range_text(iova, size)));
  return bitmap;
}

DmaLimits Type1Container::limits() const {
  DmaLimits limits;
  const vfio_iommu_type1_info ask{};
  if (const auto answer = vfio_ask(system_, descriptor(), VFIO_IOMMU_GET_INFO, ask, "ask", "VFIO container"))
    read_iommu_capabilities(*answer, limits);
  return limits;
}

Result<void> map_guest_memory(VfioContainer& container, const GuestMemory& memory) {
  std::vector<GuestMemory::Region> done;
  for (const GuestMemory::Region& region : memory.regions()) {
    auto mapped = container.map(Iova(region.base.value), {region.host, region.size}, DmaAccess::ReadWrite);
    if (!mapped) {
      for (const GuestMemory::Region& earlier : done) (void)container.unmap(Iova(earlier.base.value), earlier.size);
      return mapped;
    }
    done.push_back(region);
  }
  return {};
}

}  // namespace vm_platform
