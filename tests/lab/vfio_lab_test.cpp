// Uses real VFIO devices: edu, a NIC, an NVMe controller. Not a test of its own: tests/lab/vfio.sh runs it where such
// devices are, with their addresses in EDU, E1000E and NVME.
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>
#include <vm_platform/memory.hpp>

#include "guest/guest_memory.hpp"
#include "tests/lab/vfio_lab.hpp"

namespace vm_platform::lab {
namespace {

using testing::HasSubstr;

// The registers of QEMU's edu device (docs/specs/edu.txt of QEMU).
constexpr std::uint64_t kEduId = 0, kEduLive = 4, kEduIrqStatus = 0x24, kEduIrqRaise = 0x60, kEduIrqAck = 0x64,
                        kEduDmaSource = 0x80, kEduDmaTarget = 0x88, kEduDmaCount = 0x90, kEduDmaCommand = 0x98,
                        kEduBuffer = 0x40000;

void edu_dma(const RegionMapping& bar, std::uint64_t from, std::uint64_t to, std::uint64_t size, bool out) {
  bar.store<std::uint64_t>(kEduDmaSource, from);
  bar.store<std::uint64_t>(kEduDmaTarget, to);
  bar.store<std::uint64_t>(kEduDmaCount, size);
  bar.store<std::uint64_t>(kEduDmaCommand, out ? 3 : 1);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while ((bar.load<std::uint64_t>(kEduDmaCommand) & 1) != 0 && std::chrono::steady_clock::now() < end)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

TEST(Edu, RegistersThroughMappingAndThroughTheKernelAgree) {
  OPEN(edu, "EDU");
  const auto region = edu.device->region(0);
  ASSERT_TRUE(region);
  EXPECT_EQ(region->size, kMiB);
  ASSERT_TRUE(region->mappable);
  const auto bar = edu.device->map(0, 0, region->size);
  ASSERT_TRUE(bar) << bar.error().message();
  EXPECT_EQ(bar->load<std::uint32_t>(kEduId) & 0xff, 0xedU);
  bar->store<std::uint32_t>(kEduLive, 0x12345678);
  EXPECT_EQ(bar->load<std::uint32_t>(kEduLive), ~0x12345678U);
  std::uint32_t live = 0;
  ASSERT_TRUE(edu.device->read(0, kEduLive, std::as_writable_bytes(std::span(&live, 1))));
  EXPECT_EQ(live, ~0x12345678U);
  EXPECT_EQ(edu.device->config_space()->u16(0), 0x1234);
  EXPECT_EQ(edu.device->read(0, kMiB - 2, std::as_writable_bytes(std::span(&live, 1))).error().code(),
            ErrorCode::InvalidArgument);
  EXPECT_EQ(edu.device->region(1).error().code(), ErrorCode::NotFound);
}

TEST(Edu, Msi) {
  OPEN(edu, "EDU");
  EXPECT_EQ(edu.device->irq_info(VfioIrq::Msix)->count, 0U);
  EXPECT_EQ(edu.device->enable_irq(VfioIrq::Msix, std::array{-1}).error().code(), ErrorCode::Unsupported);
  ASSERT_EQ(edu.device->irq_info(VfioIrq::Msi)->count, 1U);
  const auto bar = edu.device->map(0, 0, kMiB);
  ASSERT_TRUE(bar);
  const Event event;
  bus_master_on(*edu.device);
  const auto on = edu.device->enable_irq(VfioIrq::Msi, std::array{event.get()});
  ASSERT_TRUE(on) << on.error().message();
  bar->store<std::uint32_t>(kEduIrqRaise, 1);
  EXPECT_TRUE(event.wait());
  bar->store<std::uint32_t>(kEduIrqAck, 1);
  ASSERT_TRUE(edu.device->trigger_irq(VfioIrq::Msi, 0));
  EXPECT_TRUE(event.wait()) << "by the kernel's hand";
  ASSERT_TRUE(edu.device->disable_irq(VfioIrq::Msi));
  bar->store<std::uint32_t>(kEduIrqRaise, 1);
  EXPECT_FALSE(event.wait(200)) << "it is off";
  bar->store<std::uint32_t>(kEduIrqAck, 1);
}

TEST(Edu, IntxMasksItself) {
  OPEN(edu, "EDU");
  const auto info = edu.device->irq_info(VfioIrq::Intx);
  ASSERT_TRUE(info);
  ASSERT_EQ(info->count, 1U);
  EXPECT_TRUE(info->automasked && info->maskable);
  const auto bar = edu.device->map(0, 0, kMiB);
  ASSERT_TRUE(bar);
  const Event event;
  const auto on = edu.device->enable_irq(VfioIrq::Intx, std::array{event.get()});
  ASSERT_TRUE(on) << on.error().message();
  bar->store<std::uint32_t>(kEduIrqRaise, 2);
  ASSERT_TRUE(event.wait());
  EXPECT_EQ(bar->load<std::uint32_t>(kEduIrqStatus), 2U);
  EXPECT_FALSE(event.wait(200)) << "masked until served";
  bar->store<std::uint32_t>(kEduIrqAck, 2);
  ASSERT_TRUE(edu.device->unmask_intx());
  EXPECT_FALSE(event.wait(200));
  bar->store<std::uint32_t>(kEduIrqRaise, 4);
  EXPECT_TRUE(event.wait());
  bar->store<std::uint32_t>(kEduIrqAck, 4);
  ASSERT_TRUE(edu.device->unmask_intx());
  ASSERT_TRUE(edu.device->mask_intx());
  bar->store<std::uint32_t>(kEduIrqRaise, 8);
  EXPECT_FALSE(event.wait(200)) << "masked by us";
  bar->store<std::uint32_t>(kEduIrqAck, 8);
}

TEST(Edu, DmaBothWaysThroughTheIommuAndNotOutsideTheMap) {
  OPEN(edu, "EDU");
  bus_master_on(*edu.device);
  auto memory = MappedMemory::create_shared(4 * kPageSize, "dma");
  ASSERT_TRUE(memory);
  const std::string text = "through the IOMMU and back";
  std::memcpy(memory->data(), text.data(), text.size());
  constexpr std::uint64_t kIova = 0x100000;
  VfioContainer& container = edu.host->container();
  const auto mapped = container.map(Iova(kIova), memory->bytes(), DmaAccess::ReadWrite);
  ASSERT_TRUE(mapped) << mapped.error().message();
  const auto bar = edu.device->map(0, 0, kMiB);
  ASSERT_TRUE(bar);
  edu_dma(*bar, kIova, kEduBuffer, text.size(), false);
  edu_dma(*bar, kEduBuffer, kIova + 2 * kPageSize, text.size(), true);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(memory->data() + 2 * kPageSize), text.size()), text);

  // A page mapped for reading only, and a page not mapped at all: the device's write must reach neither.
  ASSERT_EQ(container.unmap(Iova(kIova), 4 * kPageSize), 4 * kPageSize);
  ASSERT_TRUE(container.map(Iova(kIova), memory->bytes().first(kPageSize), DmaAccess::Read));
  std::memset(memory->data(), 0, 4 * kPageSize);
  edu_dma(*bar, kEduBuffer, kIova, text.size(), true);
  edu_dma(*bar, kEduBuffer, kIova + 2 * kPageSize, text.size(), true);
  for (const std::byte byte : memory->bytes()) ASSERT_EQ(byte, std::byte{0});
}

TEST(Edu, MappingErrorsSayWhatToDo) {
  OPEN(edu, "EDU");
  auto memory = MappedMemory::create_shared(64 * kPageSize, "dma");
  ASSERT_TRUE(memory);
  VfioContainer& container = edu.host->container();
  const auto limits = container.limits();
  EXPECT_NE(limits.page_sizes & kPageSize, 0U);
  EXPECT_FALSE(limits.valid.empty());
  ASSERT_TRUE(container.map(Iova(0), memory->bytes().first(2 * kPageSize), DmaAccess::ReadWrite));
  EXPECT_EQ(container.map(Iova(kPageSize), memory->bytes().first(kPageSize), DmaAccess::Read).error().code(),
            ErrorCode::Status);
  const auto window = container.map(Iova(0xfee00000), memory->bytes().first(kPageSize), DmaAccess::ReadWrite);
  ASSERT_FALSE(window);
  EXPECT_THAT(window.error().message(), HasSubstr("MSI window"));
  EXPECT_EQ(container.map(Iova(0x10001000), memory->bytes().subspan(1, kPageSize), DmaAccess::Read).error().code(),
            ErrorCode::InvalidArgument);

  // The limit counts only for those who lack CAP_IPC_LOCK.
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> before{}, less{};
  ASSERT_EQ(::syscall(SYS_capget, &header, before.data()), 0);
  less = before;
  less[0].effective &= ~(1U << CAP_IPC_LOCK);
  rlimit old{};
  ::getrlimit(RLIMIT_MEMLOCK, &old);
  const rlimit small{32 * kPageSize, old.rlim_max};
  ::setrlimit(RLIMIT_MEMLOCK, &small);
  ASSERT_EQ(::syscall(SYS_capset, &header, less.data()), 0);
  const auto too_much = container.map(Iova(0x20000000), memory->bytes(), DmaAccess::ReadWrite);
  ::syscall(SYS_capset, &header, before.data());
  ::setrlimit(RLIMIT_MEMLOCK, &old);
  ASSERT_FALSE(too_much);
  EXPECT_EQ(too_much.error().code(), ErrorCode::OutOfMemory);
  EXPECT_THAT(too_much.error().message(), HasSubstr("ulimit -l"));
}

TEST(Edu, DirtyPagesAreKnown) {
  OPEN(edu, "EDU");
  auto memory = MappedMemory::create_shared(8 * kPageSize, "dma");
  ASSERT_TRUE(memory);
  VfioContainer& container = edu.host->container();
  ASSERT_TRUE(container.map(Iova(0), memory->bytes(), DmaAccess::ReadWrite));
  if (!container.limits().dirty_tracking) GTEST_SKIP() << "the IOMMU driver has none";
  ASSERT_TRUE(container.track_dirty(true));
  // Type 1 without a device that pins finely calls every pinned page dirty: what counts is that none is missed.
  const auto dirty = container.take_dirty(Iova(0), 8 * kPageSize, kPageSize);
  ASSERT_TRUE(dirty) << dirty.error().message();
  EXPECT_EQ((*dirty)[0] & 0xff, 0xffU);
  EXPECT_TRUE(container.track_dirty(false));
}

TEST(Edu, GuestMemoryIsMappedWhole) {
  OPEN(edu, "EDU");
  bus_master_on(*edu.device);
  auto guest = GuestMemory::create(16 * kMiB);
  ASSERT_TRUE(guest);
  const auto mapped = map_guest_memory(edu.host->container(), *guest);
  ASSERT_TRUE(mapped) << mapped.error().message();
  const std::uint64_t value = 0x1122334455667788;
  ASSERT_TRUE(guest->write(Gpa(12 * kMiB), std::as_bytes(std::span(&value, 1))));
  const auto bar = edu.device->map(0, 0, kMiB);
  ASSERT_TRUE(bar);
  edu_dma(*bar, 12 * kMiB, kEduBuffer, 8, false);
  edu_dma(*bar, kEduBuffer, 3 * kMiB, 8, true);
  std::uint64_t copy = 0;
  ASSERT_TRUE(guest->read(Gpa(3 * kMiB), std::as_writable_bytes(std::span(&copy, 1))));
  EXPECT_EQ(copy, value);
}

TEST(E1000e, RegionsInterruptsAndReset) {
  OPEN(nic, "E1000E");
  const auto config = nic.device->config_space();
  ASSERT_TRUE(config);
  EXPECT_EQ(config->u16(2), 0x10d3);
  const auto capabilities = walk_capabilities(*config);
  EXPECT_NE(capabilities.find(PciExtCapId::AdvancedErrorReporting), nullptr);
  const auto bar = nic.device->map(0, 0, nic.device->region(0)->size);
  ASSERT_TRUE(bar) << bar.error().message();
  constexpr std::uint64_t kStatus = 0x08, kIcr = 0xc0, kIcs = 0xc8, kIms = 0xd0;
  EXPECT_NE(bar->load<std::uint32_t>(kStatus), 0xffffffffU);
  std::array<char, 2> rom{};
  ASSERT_TRUE(nic.device->read(VfioRegion::kRom, 0, std::as_writable_bytes(std::span(rom))));
  EXPECT_EQ(static_cast<unsigned char>(rom[0]), 0x55);
  const auto msix = nic.device->irq_info(VfioIrq::Msix);
  ASSERT_EQ(msix->count, 5U);
  std::array<Event, 5> events;
  std::array<int, 5> descriptors;
  for (std::size_t i = 0; i < 5; ++i) descriptors[i] = events[i].get();
  const auto on = nic.device->enable_irq(VfioIrq::Msix, descriptors);
  ASSERT_TRUE(on) << on.error().message();
  ASSERT_TRUE(nic.device->trigger_irq(VfioIrq::Msix, 3));
  EXPECT_TRUE(events[3].wait());
  EXPECT_FALSE(events[2].wait(50));
  ASSERT_TRUE(nic.device->disable_irq(VfioIrq::Msix));
  // MSI raised by the device itself: a link status change, by its cause-set register.
  bus_master_on(*nic.device);
  ASSERT_TRUE(nic.device->enable_irq(VfioIrq::Msi, std::array{events[0].get()}));
  (void)bar->load<std::uint32_t>(kIcr);
  bar->store<std::uint32_t>(kIms, 4);
  bar->store<std::uint32_t>(kIcs, 4);
  EXPECT_TRUE(events[0].wait());
  ASSERT_TRUE(nic.device->disable_irq(VfioIrq::Msi));
  ASSERT_TRUE(nic.device->can_reset());
  const auto reset = nic.device->reset();
  ASSERT_TRUE(reset) << reset.error().message();
  const auto members = nic.device->hot_reset_members();
  ASSERT_TRUE(members) << members.error().message();
  ASSERT_EQ(members->size(), 1U);
  EXPECT_EQ((*members)[0].address.to_string(), std::getenv("E1000E"));
  const auto bus_reset = nic.device->hot_reset();
  EXPECT_TRUE(bus_reset) << bus_reset.error().message();
  // An access wakes the device: it reads as what it is.
  const auto asleep = nic.device->set_low_power(true);
  ASSERT_TRUE(asleep) << asleep.error().message();
  EXPECT_EQ(nic.device->config_space()->u16(2), 0x10d3);
  EXPECT_TRUE(nic.device->set_low_power(false));
}

/// Brings up the admin queue of an NVMe controller by hand and asks it who it is (NVMe base specification 1.4).
TEST(Nvme, IdentifiesItselfByDma) {
  OPEN(nvme, "NVME");
  const auto reset = nvme.device->reset();
  ASSERT_TRUE(reset) << reset.error().message();
  auto memory = MappedMemory::create_shared(3 * kPageSize, "queues");
  ASSERT_TRUE(memory);
  constexpr std::uint64_t kIova = 0x200000;
  ASSERT_TRUE(nvme.host->container().map(Iova(kIova), memory->bytes(), DmaAccess::ReadWrite));
  ASSERT_TRUE(nvme.device->config_write(4, 2, 6));
  const auto bar = nvme.device->map(0, 0, 2 * kPageSize);
  ASSERT_TRUE(bar) << bar.error().message();
  constexpr std::uint64_t kCc = 0x14, kCsts = 0x1c, kAqa = 0x24, kAsq = 0x28, kAcq = 0x30, kDoorbell = 0x1000;
  bar->store<std::uint32_t>(kCc, 0);
  bar->store<std::uint32_t>(kAqa, 7 << 16 | 7);
  bar->store<std::uint64_t>(kAsq, kIova);
  bar->store<std::uint64_t>(kAcq, kIova + kPageSize);
  bar->store<std::uint32_t>(kCc, 4 << 20 | 6 << 16 | 1);
  for (int i = 0; i < 3000 && (bar->load<std::uint32_t>(kCsts) & 1) == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_EQ(bar->load<std::uint32_t>(kCsts) & 3, 1U);
  std::array<std::uint32_t, 16> command{};
  command[0] = 0x06 | 7 << 16;  // identify, command id 7
  const std::uint64_t target = kIova + 2 * kPageSize;
  std::memcpy(&command[6], &target, 8);
  command[10] = 1;  // the controller
  std::memcpy(memory->data(), command.data(), sizeof command);
  bar->store<std::uint32_t>(kDoorbell, 1);
  std::uint32_t status = 0;
  for (int i = 0; i < 3000 && (status & 1 << 16) == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::memcpy(&status, memory->data() + kPageSize + 12, 4);
  }
  EXPECT_EQ(status, (1U << 16 | 7U)) << "phase 1, status 0, command 7";
  const std::string serial(reinterpret_cast<char*>(memory->data() + 2 * kPageSize + 4), 20);
  EXPECT_THAT(serial, HasSubstr("lab"));
  bar->store<std::uint32_t>(kCc, 0);
}

TEST(Nvme, HostThatWantsItsDeviceBackIsObeyed) {
  OPEN(nvme, "NVME");
  const std::string address = std::getenv("NVME");
  ASSERT_EQ(nvme.device->irq_info(VfioIrq::Request)->count, 1U);
  const Event request;
  const auto on = nvme.device->enable_irq(VfioIrq::Request, std::array{request.get()});
  ASSERT_TRUE(on) << on.error().message();
  std::thread unbind([&] { std::ofstream("/sys/bus/pci/drivers/vfio-pci/unbind") << address; });
  const bool asked = request.wait(15000);
  nvme.device.reset();
  nvme.host.reset();
  unbind.join();
  EXPECT_TRUE(asked);
  EXPECT_FALSE(link_name("/sys/bus/pci/devices/" + address + "/driver"));
  std::ofstream("/sys/bus/pci/drivers/vfio-pci/bind") << address;
  EXPECT_EQ(link_name("/sys/bus/pci/devices/" + address + "/driver"), "vfio-pci");
}

}  // namespace
}  // namespace vm_platform::lab
