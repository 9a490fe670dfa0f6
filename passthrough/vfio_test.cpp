// Both back ends against a stand-in for the kernel: what they ask of it, and what they make of its answers. The
// container is also run against a real kernel (tests/lab); iommufd and device files are not in any kernel that tests
// boot.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <map>

#include "passthrough/sysfs.hpp"
#include "passthrough/test_tree.hpp"
#include "passthrough/vfio_abi.hpp"
#include "passthrough/vfio_host.hpp"

namespace vm_platform {
namespace {

using namespace std::string_literals;
using testing::HasSubstr;

/// Plays /dev/vfio and /dev/iommu. A descriptor is a file in memory, so that what is read and mapped is real.
class StandIn final : public VfioSystem {
 public:
  int open(const char* path) override {
    const std::string name = path;
    const bool known = name.ends_with("/vfio/vfio") || name.ends_with("/vfio/7") || name.ends_with("/iommu") ||
                       name.ends_with("/devices/vfio3");
    if (!known) return errno = ENOENT, -1;
    const int made = name.ends_with("/vfio3") ? device_file() : ::memfd_create("control", MFD_CLOEXEC);
    files[made] = name.substr(name.rfind('/') + 1);
    return made;
  }

  int ioctl(int descriptor, unsigned long request, void* argument) override {
    if (const auto refused = refusals.find(request); refused != refusals.end()) return errno = refused->second, -1;
    // Some requests of the container have the numbers of others of a device.
    if (files[descriptor] == "vfio" && (request == VFIO_IOMMU_MAP_DMA || request == VFIO_IOMMU_GET_INFO)) return 0;
    switch (request) {
      case VFIO_GET_API_VERSION: return VFIO_API_VERSION;
      case VFIO_CHECK_EXTENSION: return 1;
      case VFIO_GROUP_GET_STATUS: return as<vfio_group_status>(argument).flags = VFIO_GROUP_FLAGS_VIABLE, 0;
      case VFIO_GROUP_SET_CONTAINER:
      case VFIO_SET_IOMMU:
      case VFIO_DEVICE_RESET: return 0;
      case VFIO_GROUP_GET_DEVICE_FD: opened_as = static_cast<const char*>(argument); return device_file();
      case kVfioBindIommufd: return bind(as<VfioBindIommufd>(argument));
      case kVfioAttachIommufd: return attach(as<VfioAttachIommufd>(argument));
      case VFIO_DEVICE_GET_INFO: return device_info(as<vfio_device_info>(argument));
      case VFIO_DEVICE_GET_REGION_INFO: return region_info(as<vfio_region_info>(argument));
      case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: return reset_info(as<vfio_pci_hot_reset_info>(argument));
      case VFIO_DEVICE_PCI_HOT_RESET: reset_groups = static_cast<int>(as<vfio_pci_hot_reset>(argument).count); return 0;
      case VFIO_DEVICE_FEATURE: return feature(as<vfio_device_feature>(argument));
      case kIoasAlloc: return as<IoasAlloc>(argument).out_ioas_id = kIoas, 0;
      case kIoasMap: return map(as<IoasMap>(argument));
      case kIoasUnmap: return unmap(as<IoasUnmap>(argument));
      case kIoasIovaRanges: return ranges(as<IoasIovaRanges>(argument));
      case kGetHwInfo: return as<HwInfo>(argument).out_capabilities = records ? kHwCapDirtyTracking : 0, 0;
      case kHwptAlloc: return hwpt(as<HwptAlloc>(argument));
      case kHwptSetDirty: tracked[as<HwptSetDirty>(argument).hwpt_id] = as<HwptSetDirty>(argument).flags; return 0;
      case kHwptGetDirty: return dirty(as<HwptGetDirty>(argument));
      default: ADD_FAILURE() << "request " << std::hex << request << " on " << files[descriptor];
    }
    return errno = ENOTTY, -1;
  }

  static constexpr std::uint32_t kIoas = 11, kDevice = 12, kTable = 13;
  std::map<int, std::string> files;
  std::map<unsigned long, int> refusals;  // request -> errno
  bool records = false;                   // the IOMMU records writes
  bool neighbour_owned = false;           // of the second function on the bus
  std::string opened_as;
  std::vector<std::uint32_t> attached;
  std::uint32_t bind_size = 0, bind_flags = 0;
  std::string bind_token, features;
  std::map<std::uint64_t, IoasMap> mapped;
  std::map<std::uint32_t, std::uint32_t> tracked;
  int reset_groups = -1;

 private:
  template <typename T>
  static T& as(void* argument) {
    return *static_cast<T*>(argument);
  }
  static int device_file() {
    const int made = ::memfd_create("device", MFD_CLOEXEC);
    EXPECT_EQ(::ftruncate(made, 0x20000), 0);
    const std::uint32_t value = 0x12345678;
    EXPECT_EQ(::pwrite(made, &value, 4, 0x10000), 4);
    return made;
  }
  int bind(const VfioBindIommufd& request) {
    EXPECT_EQ(files[request.iommufd], "iommu");
    bind_size = request.argsz;
    bind_flags = request.flags;
    if ((request.flags & kBindToken) != 0)  // NOLINTNEXTLINE(performance-no-int-to-ptr)
      bind_token.assign(reinterpret_cast<const char*>(request.token_uuid_ptr), 16);
    const_cast<VfioBindIommufd&>(request).out_devid = kDevice;
    return 0;
  }
  int attach(const VfioAttachIommufd& request) {
    EXPECT_NE(bind_size, 0U) << "bound first";
    attached.push_back(request.pt_id);
    return 0;
  }
  static int device_info(vfio_device_info& info) {
    info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
    info.num_regions = 9;
    info.num_irqs = 5;
    return 0;
  }
  static int region_info(vfio_region_info& info) {
    if (info.index != 2) return errno = EINVAL, -1;
    info.size = 0x1000;
    info.offset = 0x10000;  // nowhere near what vfio-pci would say
    info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP;
    return 0;
  }
  int reset_info(vfio_pci_hot_reset_info& info) const {
    const bool by_device = bind_size != 0;
    info.count = 2;
    info.flags = by_device ? kHotResetDevId : 0;
    if (info.argsz < sizeof info + 2 * sizeof(vfio_pci_dependent_device)) return errno = ENOSPC, -1;
    vfio_pci_dependent_device members[2]{};
    members[0].group_id = by_device ? kDevice : 7;
    members[1].devfn = 1;
    members[1].group_id = by_device ? (neighbour_owned ? 0 : kDevIdNotOwned) : (neighbour_owned ? 7 : 8);
    std::memcpy(reinterpret_cast<std::byte*>(&info) + sizeof info, members, sizeof members);
    return 0;
  }
  int feature(const vfio_device_feature& request) {
    features += std::to_string(request.flags & VFIO_DEVICE_FEATURE_MASK) + ":" +
                std::to_string(request.argsz - sizeof request) + " ";
    return 0;
  }
  int map(const IoasMap& request) {
    EXPECT_EQ(request.ioas_id, kIoas);
    if (mapped.contains(request.iova)) return errno = EADDRINUSE, -1;
    mapped[request.iova] = request;
    return 0;
  }
  int unmap(IoasUnmap& request) {
    const auto found = mapped.find(request.iova);
    if (found == mapped.end()) return errno = ENOENT, -1;
    request.length = found->second.length;
    mapped.erase(found);
    return 0;
  }
  static int ranges(IoasIovaRanges& request) {
    constexpr std::uint32_t kRanges = 20;
    const bool fits = request.num_iovas >= kRanges;
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    auto* out = reinterpret_cast<IommuIovaRange*>(request.allowed_iovas);
    for (std::uint32_t i = 0; fits && i < kRanges; ++i) out[i] = {i * 0x100000ULL, i * 0x100000ULL + 0xeffff};
    request.num_iovas = kRanges;
    request.out_iova_alignment = kPageSize;
    return fits ? 0 : (errno = EMSGSIZE, -1);
  }
  int hwpt(HwptAlloc& request) {
    EXPECT_EQ(request.dev_id, kDevice);
    EXPECT_EQ(request.pt_id, kIoas);
    EXPECT_EQ(request.flags, kHwptDirtyTracking);
    request.out_hwpt_id = kTable;
    return 0;
  }
  static int dirty(const HwptGetDirty& request) {
    EXPECT_EQ(request.page_size, kPageSize);
    // NOLINTNEXTLINE(performance-no-int-to-ptr)
    reinterpret_cast<std::uint64_t*>(request.data)[0] |= 5;
    return 0;
  }
};

constexpr PciAddress kAddress{0, 0x3b, 0, 0};
constexpr const char* kToken = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

struct Vfio : testing::Test {
  test::FakeTree tree;
  StandIn kernel;
  VfioOptions options;
  Vfio() {
    const auto device = tree.device({.address = "0000:3b:00.0", .driver = "vfio-pci", .group = 7});
    tree.file(device / "vfio-dev/vfio3/dev", "511:3\n");
    options.dev = tree.root() / "dev/vfio";
    options.iommu = tree.root() / "dev/iommu";
    options.sysfs = tree.sysfs();
  }
  std::unique_ptr<VfioHost> host(VfioBackend backend) {
    options.backend = backend;
    auto opened = open_vfio_host(kernel, options);
    EXPECT_TRUE(opened) << opened.error().message();
    return opened ? std::move(*opened) : nullptr;
  }
};

TEST_F(Vfio, TheKernelsNewerInterfaceIsTakenWhereItIs) {
  EXPECT_EQ(host(VfioBackend::Auto)->backend(), VfioBackend::Container);
  tree.file("dev/iommu", "");
  EXPECT_EQ(host(VfioBackend::Auto)->backend(), VfioBackend::Container) << "iommufd without device files is no use";
  tree.file("dev/vfio/devices/vfio3", "");
  EXPECT_EQ(host(VfioBackend::Auto)->backend(), VfioBackend::Iommufd);
  EXPECT_EQ(host(VfioBackend::Container)->backend(), VfioBackend::Container);
}

/// What a user of a device sees is the same, whichever way it was opened.
void use(VfioHost& host) {
  const auto device = host.open_device(kAddress);
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_EQ((*device)->region(0).error().code(), ErrorCode::NotFound);
  const auto bar = (*device)->map(2, 0, kPageSize);
  ASSERT_TRUE(bar) << bar.error().message();
  EXPECT_EQ(bar->load<std::uint32_t>(0), 0x12345678U);
  bar->store<std::uint32_t>(4, 7);
  std::uint32_t value = 0;
  ASSERT_TRUE((*device)->read(2, 4, std::as_writable_bytes(std::span(&value, 1))));
  EXPECT_EQ(value, 7U);
  EXPECT_TRUE((*device)->reset());
  EXPECT_EQ((*device)->hot_reset().error().code(), ErrorCode::PermissionDenied);
  EXPECT_THAT((*device)->hot_reset().error().message(), HasSubstr("0000:00:00.1"));
  EXPECT_TRUE((*device)->set_low_power(true));
  EXPECT_TRUE((*device)->set_vf_token(kToken));
  EXPECT_EQ((*device)->set_vf_token("secret").error().code(), ErrorCode::InvalidArgument);
}

TEST_F(Vfio, DeviceOfAGroup) {
  use(*host(VfioBackend::Container));
  EXPECT_EQ(kernel.opened_as, "0000:3b:00.0");
  EXPECT_EQ(kernel.features, "3:0 0:16 ");
}

TEST_F(Vfio, DeviceByItsOwnFile) {
  use(*host(VfioBackend::Iommufd));
  EXPECT_EQ(kernel.bind_size, 16U) << "what kernels before 6.17 know";
  EXPECT_EQ(kernel.attached, std::vector<std::uint32_t>{StandIn::kIoas});
  EXPECT_EQ(kernel.features, "3:0 0:16 ");
}

TEST_F(Vfio, BusResetNeedsTheWholeSet) {
  kernel.neighbour_owned = true;
  for (const auto backend : {VfioBackend::Container, VfioBackend::Iommufd}) {
    const auto vfio = host(backend);
    const auto device = vfio->open_device(kAddress);
    ASSERT_TRUE(device) << device.error().message();
    const auto members = (*device)->hot_reset_members();
    ASSERT_TRUE(members);
    EXPECT_THAT(*members, testing::SizeIs(2));
    EXPECT_TRUE((*members)[1].owned);
    EXPECT_EQ((*members)[1].group.has_value(), backend == VfioBackend::Container);
    const auto reset = (*device)->hot_reset();
    ASSERT_TRUE(reset) << reset.error().message();
    EXPECT_EQ(kernel.reset_groups, backend == VfioBackend::Container ? 1 : 0) << "proof only where it is asked for";
    kernel.refusals[VFIO_DEVICE_PCI_HOT_RESET] = ENOTTY;
    EXPECT_THAT((*device)->hot_reset().error().message(), HasSubstr("link did not come back"));
    kernel.refusals.clear();
  }
}

TEST_F(Vfio, TokensOfVirtualFunctions) {
  options.vf_token = kToken;
  ASSERT_TRUE(host(VfioBackend::Container)->open_device(kAddress));
  EXPECT_EQ(kernel.opened_as, std::string("0000:3b:00.0 vf_token=") + kToken);
  ASSERT_TRUE(host(VfioBackend::Iommufd)->open_device(kAddress));
  EXPECT_EQ(kernel.bind_size, 24U);
  EXPECT_EQ(kernel.bind_flags, kBindToken);
  EXPECT_EQ(kernel.bind_token, "\x6b\xa7\xb8\x10\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8"s);
  kernel.refusals[kVfioBindIommufd] = EINVAL;
  EXPECT_THAT(host(VfioBackend::Iommufd)->open_device(kAddress).error().message(), HasSubstr("6.17"));
  kernel.refusals = {{VFIO_GROUP_GET_DEVICE_FD, EACCES}};
  EXPECT_THAT(host(VfioBackend::Container)->open_device(kAddress).error().message(), HasSubstr("VF token"));
  options.vf_token = "secret";
  EXPECT_EQ(host(VfioBackend::Container)->open_device(kAddress).error().code(), ErrorCode::InvalidArgument);
}

TEST_F(Vfio, MappingsOfAnIoAddressSpace) {
  const auto vfio = host(VfioBackend::Iommufd);
  VfioContainer& container = vfio->container();
  alignas(kPageSize) static std::array<std::byte, 2 * kPageSize> memory;
  ASSERT_TRUE(container.map(Iova(0x10000), memory, DmaAccess::Read));
  EXPECT_EQ(kernel.mapped[0x10000].flags, kIoasMapFixed | kIoasMapReadable);
  EXPECT_EQ(kernel.mapped[0x10000].length, 2 * kPageSize);
  EXPECT_EQ(container.map(Iova(0x10000), memory, DmaAccess::Write).error().code(), ErrorCode::Status);
  EXPECT_EQ(container.map(Iova(1), memory, DmaAccess::Write).error().code(), ErrorCode::InvalidArgument);
  EXPECT_EQ(container.unmap(Iova(0x10000), 2 * kPageSize), 2 * kPageSize);
  EXPECT_EQ(container.unmap(Iova(0x10000), 2 * kPageSize), 0U) << "nothing there is no error";
  const auto limits = container.limits();
  EXPECT_EQ(limits.valid.size(), 20U) << "asked again when they did not fit";
  EXPECT_NE(limits.page_sizes & kPageSize, 0U);
  EXPECT_EQ(limits.page_sizes & 1, 0U);
  kernel.refusals[kIoasMap] = ENOENT;
  EXPECT_THAT(container.map(Iova(0xfee00000), memory, DmaAccess::Read).error().message(), HasSubstr("MSI window"));
  kernel.refusals[kIoasMap] = ENOMEM;
  EXPECT_EQ(container.map(Iova(0), memory, DmaAccess::Read).error().code(), ErrorCode::OutOfMemory);
}

TEST_F(Vfio, WritesAreRecordedWhereTheIommuCan) {
  kernel.records = true;
  const auto vfio = host(VfioBackend::Iommufd);
  VfioContainer& container = vfio->container();
  EXPECT_EQ(container.track_dirty(true).error().code(), ErrorCode::Unsupported) << "no device, no page table";
  const auto device = vfio->open_device(kAddress);
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_EQ(kernel.attached, std::vector<std::uint32_t>{StandIn::kTable});
  EXPECT_TRUE(container.limits().dirty_tracking);
  ASSERT_TRUE(container.track_dirty(true));
  EXPECT_EQ(kernel.tracked[StandIn::kTable], 1U);
  const auto dirty = container.take_dirty(Iova(0), 8 * kPageSize, kPageSize);
  ASSERT_TRUE(dirty);
  EXPECT_EQ((*dirty)[0], 5U);
  ASSERT_TRUE(container.track_dirty(false));
  EXPECT_EQ(kernel.tracked[StandIn::kTable], 0U);
  kernel.records = false;
  ASSERT_TRUE(vfio->open_device(kAddress));
  EXPECT_EQ(container.track_dirty(true).error().code(), ErrorCode::Unsupported) << "one device would be missed";
}

TEST_F(Vfio, WhatIsMissingIsNamed) {
  options.dev = tree.root() / "none";
  const auto container = open_vfio_host(kernel, options);
  ASSERT_FALSE(container);
  EXPECT_THAT(container.error().message(), HasSubstr("modprobe vfio-pci"));
  options.iommu = tree.root() / "none";
  options.backend = VfioBackend::Iommufd;
  const auto iommufd = open_vfio_host(kernel, options);
  ASSERT_FALSE(iommufd);
  EXPECT_THAT(iommufd.error().message(), HasSubstr("modprobe iommufd"));
}

}  // namespace
}  // namespace vm_platform
