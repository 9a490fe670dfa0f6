// What linux/vfio.h of newer kernels adds to the header that this is built with: device files and iommufd
// (include/uapi/ linux/vfio.h and iommufd.h of Linux 6.2 to 6.17), written down here so that older headers build it.
#pragma once

#include <linux/ioctl.h>
#include <linux/vfio.h>

#include <cstdint>

namespace vm_platform {

// Device files (/dev/vfio/devices/vfioN), Linux 6.6.
inline constexpr unsigned long kVfioBindIommufd = _IO(VFIO_TYPE, VFIO_BASE + 18);
inline constexpr unsigned long kVfioAttachIommufd = _IO(VFIO_TYPE, VFIO_BASE + 19);

struct VfioBindIommufd {
  std::uint32_t argsz, flags;
  std::int32_t iommufd;
  std::uint32_t out_devid;
  std::uint64_t token_uuid_ptr;  ///< With kBindToken; Linux 6.17. Older kernels take the structure without it.
};
static_assert(sizeof(VfioBindIommufd) == 24);
inline constexpr std::uint32_t kBindSize = 16;  ///< Without the token.
inline constexpr std::uint32_t kBindToken = 1U << 0;

struct VfioAttachIommufd {
  std::uint32_t argsz, flags, pt_id;
};
static_assert(sizeof(VfioAttachIommufd) == 12);

// VFIO_DEVICE_GET_PCI_HOT_RESET_INFO tells devices instead of groups.
inline constexpr std::uint32_t kHotResetDevId = 1U << 0;
inline constexpr std::uint32_t kDevIdNotOwned = 0xffffffff;

// iommufd (/dev/iommu), Linux 6.2. Each structure starts with its own size.
inline constexpr unsigned long iommu_command(unsigned number) { return _IO(';', number); }
inline constexpr unsigned long kIommuDestroy = iommu_command(0x80), kIoasAlloc = iommu_command(0x81),
                               kIoasIovaRanges = iommu_command(0x84), kIoasMap = iommu_command(0x85),
                               kIoasUnmap = iommu_command(0x86), kHwptAlloc = iommu_command(0x89),
                               kGetHwInfo = iommu_command(0x8a), kHwptSetDirty = iommu_command(0x8b),
                               kHwptGetDirty = iommu_command(0x8c);

struct IoasAlloc {
  std::uint32_t size, flags, out_ioas_id;
};
struct IommuIovaRange {
  std::uint64_t first, last;
};
struct IoasIovaRanges {
  std::uint32_t size, ioas_id, num_iovas, reserved;
  std::uint64_t allowed_iovas, out_iova_alignment;
};
struct IoasMap {
  std::uint32_t size, flags, ioas_id, reserved;
  std::uint64_t user_va, length, iova;
};
inline constexpr std::uint32_t kIoasMapFixed = 1, kIoasMapWritable = 2, kIoasMapReadable = 4;
struct IoasUnmap {
  std::uint32_t size, ioas_id;
  std::uint64_t iova, length;
};
struct HwptAlloc {
  std::uint32_t size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type, data_len;
  std::uint64_t data_uptr;
};
inline constexpr std::uint32_t kHwptDirtyTracking = 1U << 1;
struct HwInfo {
  std::uint32_t size, flags, dev_id, data_len;
  std::uint64_t data_uptr;
  std::uint32_t out_data_type, reserved;
  std::uint64_t out_capabilities;
};
inline constexpr std::uint64_t kHwCapDirtyTracking = 1U << 0;
struct HwptSetDirty {
  std::uint32_t size, flags, hwpt_id, reserved;
};
struct HwptGetDirty {
  std::uint32_t size, hwpt_id, flags, reserved;
  std::uint64_t iova, length, page_size, data;
};
static_assert(sizeof(IoasAlloc) == 12 && sizeof(IommuIovaRange) == 16 && sizeof(IoasIovaRanges) == 32 &&
              sizeof(IoasMap) == 40 && sizeof(IoasUnmap) == 24 && sizeof(HwptAlloc) == 40 && sizeof(HwInfo) == 40 &&
              sizeof(HwptSetDirty) == 16 && sizeof(HwptGetDirty) == 48);

}  // namespace vm_platform
