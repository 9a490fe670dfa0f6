// GPUs and what else decides by its place: a card of three functions, old PCI, switches, unplugging. Run by
// tests/lab/vfio.sh with the addresses in the environment.
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "tests/lab/vfio_lab.hpp"

namespace vm_platform::lab {
namespace {

using testing::HasSubstr;

/// A card: a VGA controller, its audio and its USB, opened into one container.
struct Card {
  std::unique_ptr<VfioHost> host;
  std::map<std::string, std::unique_ptr<VfioDevice>> functions;
};

void open_card(Card& card) {
  auto host = VfioHost::open();
  ASSERT_TRUE(host) << host.error().message();
  card.host = std::move(*host);
  for (const char* function : {"GPU", "GPU_AUDIO", "GPU_USB"}) {
    auto device = card.host->open_device(address(function));
    ASSERT_TRUE(device) << device.error().message();
    card.functions[function] = std::move(*device);
  }
}

TEST(Gpu, ItsFunctionsAreOneGroup) {
  const auto group = IommuManager().group_of(address("GPU"));
  ASSERT_TRUE(group) << group.error().message();
  EXPECT_THAT(group->devices, testing::SizeIs(3));
  const auto all = scan_pci();
  EXPECT_THAT(IommuManager::viability(*group, *all).isolation, testing::Contains(HasSubstr("shares its slot")));
}

TEST(Gpu, RomAndInterrupts) {
  Card card;
  open_card(card);
  if (HasFatalFailure()) return;
  VfioDevice& gpu = *card.functions["GPU"];
  const auto rom = gpu.region(VfioRegion::kRom);
  ASSERT_TRUE(rom) << rom.error().message();
  std::array<unsigned char, 2> signature{};
  ASSERT_TRUE(gpu.read(VfioRegion::kRom, 0, std::as_writable_bytes(std::span(signature))));
  EXPECT_EQ(signature[0] << 8 | signature[1], 0x55aa);
  EXPECT_EQ(gpu.irq_info(VfioIrq::Msi)->count, 0U) << "this one has no interrupts at all";
  EXPECT_EQ(gpu.irq_info(VfioIrq::Intx)->count, 0U);
  const Event event;
  EXPECT_EQ(gpu.enable_irq(VfioIrq::Msi, std::array{event.get()}).error().code(), ErrorCode::Unsupported);
  EXPECT_EQ(card.functions["GPU_AUDIO"]->irq_info(VfioIrq::Msi)->count, 1U);
  EXPECT_EQ(card.functions["GPU_AUDIO"]->irq_info(VfioIrq::Msix)->count, 0U);
  EXPECT_GT(card.functions["GPU_USB"]->irq_info(VfioIrq::Msix)->count, 1U);
}

/// The legacy registers of VGA are at the same addresses for every card. The kernel's arbiter routes them to the one
/// that is asked for: what is written to a register of one card is not seen in the other.
TEST(Gpu, LegacyVgaIsArbitrated) {
  Card card;
  open_card(card);
  if (HasFatalFailure()) return;
  auto second = card.host->open_device(address("ATI"));
  ASSERT_TRUE(second) << second.error().message();
  constexpr std::uint64_t kSequencer = 0x3c4;  // index, then data; index 2 is the plane mask
  const auto set = [](VfioDevice& device, unsigned char planes) {
    const std::array<unsigned char, 1> index{2}, data{planes};
    EXPECT_TRUE(device.write(VfioRegion::kVga, kSequencer, std::as_bytes(std::span(index))));
    EXPECT_TRUE(device.write(VfioRegion::kVga, kSequencer + 1, std::as_bytes(std::span(data))));
  };
  const auto get = [](VfioDevice& device) {
    std::array<unsigned char, 1> data{};
    EXPECT_TRUE(device.read(VfioRegion::kVga, kSequencer + 1, std::as_writable_bytes(std::span(data))));
    return data[0] & 15;
  };
  VfioDevice& first = *card.functions["GPU"];
  ASSERT_TRUE(first.region(VfioRegion::kVga)) << "the kernel offers it to VGA controllers alone";
  EXPECT_FALSE(first.region(VfioRegion::kVga)->mappable);
  set(first, 0x0a);
  set(**second, 0x05);
  EXPECT_EQ(get(first), 0x0a);
  EXPECT_EQ(get(**second), 0x05);
  EXPECT_EQ(card.functions["GPU_AUDIO"]->region(VfioRegion::kVga).error().code(), ErrorCode::NotFound);
}

TEST(Gpu, BusResetOnlyWithTheWholeCard) {
  const std::string usb = address("GPU_USB").to_string();
  const std::string driver = "/sys/bus/pci/drivers/vfio-pci/";
  std::ofstream(driver + "unbind") << usb;
  {
    auto host = VfioHost::open();
    ASSERT_TRUE(host) << host.error().message();
    const auto gpu = (*host)->open_device(address("GPU"));
    ASSERT_TRUE(gpu) << gpu.error().message() << ": a function without a driver leaves the group viable";
    const auto members = (*gpu)->hot_reset_members();
    ASSERT_TRUE(members) << members.error().message();
    EXPECT_THAT(*members, testing::SizeIs(3));
    const auto reset = (*gpu)->hot_reset();
    ASSERT_FALSE(reset);
    EXPECT_THAT(reset.error().message(), HasSubstr(usb));
  }
  std::ofstream(driver + "bind") << usb;
  Card card;
  open_card(card);
  if (HasFatalFailure()) return;
  // Of the audio function: the controller's reset bit, which is 0 after a reset of the bus (HD Audio 1.0a, 3.3.7).
  constexpr std::uint64_t kGlobalControl = 8;
  VfioDevice& audio = *card.functions["GPU_AUDIO"];
  ASSERT_TRUE(audio.config_write(4, 2, 2));
  const auto registers = audio.map(0, 0, kPageSize);
  ASSERT_TRUE(registers) << registers.error().message();
  registers->store<std::uint32_t>(kGlobalControl, 1);
  EXPECT_EQ(registers->load<std::uint32_t>(kGlobalControl) & 1, 1U);
  const auto reset = card.functions["GPU"]->hot_reset();
  ASSERT_TRUE(reset) << reset.error().message();
  EXPECT_EQ(registers->load<std::uint32_t>(kGlobalControl) & 1, 0U) << "reset along with the GPU";
}

TEST(Display, RomAndReset) {
  for (const char* name : {"ATI", "BOCHS"}) {
    OPEN(display, name);
    std::array<unsigned char, 2> signature{};
    ASSERT_TRUE(display.device->read(VfioRegion::kRom, 0, std::as_writable_bytes(std::span(signature))));
    EXPECT_EQ(signature[0] << 8 | signature[1], 0x55aa) << name;
    ASSERT_TRUE(display.device->can_reset()) << name;
    const auto reset = display.device->reset();
    EXPECT_TRUE(reset) << name << ": " << reset.error().message();
  }
  OPEN(bochs, "BOCHS");
  EXPECT_EQ(bochs.device->region(VfioRegion::kVga).error().code(), ErrorCode::NotFound) << "class 0380 has no VGA";
}

TEST(RootBus, HasNoBusReset) {
  OPEN(rng, "RNG");
  const auto reset = rng.device->hot_reset();
  ASSERT_FALSE(reset);
  EXPECT_EQ(reset.error().code(), ErrorCode::Unsupported) << reset.error().message();
}

/// Behind a bridge to conventional PCI all share the bridge's requester ID, so one group.
TEST(OldPci, TwoDevicesOfOneGroup) {
  auto host = VfioHost::open();
  ASSERT_TRUE(host) << host.error().message();
  const auto test = (*host)->open_device(address("OLD_TEST"));
  ASSERT_TRUE(test) << test.error().message();
  const auto nic = (*host)->open_device(address("OLD_NIC"));
  ASSERT_TRUE(nic) << nic.error().message();
  EXPECT_EQ((*nic)->irq_info(VfioIrq::Msi)->count, 0U);
  EXPECT_EQ((*nic)->irq_info(VfioIrq::Msix)->count, 0U);
  bus_master_on(**nic);
  const auto bar = (*nic)->map(0, 0, (*nic)->region(0)->size);
  ASSERT_TRUE(bar) << bar.error().message();
  const Event event;
  ASSERT_TRUE((*nic)->enable_irq(VfioIrq::Intx, std::array{event.get()}));
  constexpr std::uint64_t kIcr = 0xc0, kIcs = 0xc8, kIms = 0xd0;  // 82540EM
  bar->store<std::uint32_t>(kIms, 4);
  bar->store<std::uint32_t>(kIcs, 4);
  EXPECT_TRUE(event.wait());
  (void)bar->load<std::uint32_t>(kIcr);
  EXPECT_TRUE((*nic)->unmask_intx());
  const auto members = (*nic)->hot_reset_members();
  ASSERT_TRUE(members) << members.error().message();
  EXPECT_THAT(*members, testing::SizeIs(2));
  const auto reset = (*nic)->hot_reset();
  EXPECT_TRUE(reset) << reset.error().message();
}

TEST(Switch, SplitsGroups) {
  const auto first = IommuManager().group_of(address("SWITCH_A")),
             second = IommuManager().group_of(address("SWITCH_B"));
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->number, second->number);
  const auto all = scan_pci();
  EXPECT_TRUE(IommuManager::viability(*first, *all).viable) << "the port in the group does not count";
  auto host = VfioHost::open();
  ASSERT_TRUE(host) << host.error().message();
  for (const char* name : {"SWITCH_A", "SWITCH_B"}) {
    const auto device = (*host)->open_device(address(name));
    EXPECT_TRUE(device) << device.error().message();
  }
}

/// Asks QEMU's monitor (tests/lab/lab reads this line).
void monitor(const std::string& command) {
  std::printf("\nlab: monitor %s\n", command.c_str());
  std::fflush(stdout);
}

TEST(Aer, ErrorOfTheDeviceReachesItsHolder) {
  OPEN(rng, "AER");
  const auto config = rng.device->config_space();
  ASSERT_TRUE(config) << config.error().message();
  const auto capabilities = walk_capabilities(*config);
  const auto* express = capabilities.find(PciCapId::Express);
  ASSERT_NE(express, nullptr);
  ASSERT_NE(capabilities.find(PciExtCapId::AdvancedErrorReporting), nullptr);
  // A device tells nobody of its errors unless SERR# is on, and its Device Control register says which to report; a
  // guest's kernel turns them on.
  const std::uint32_t command_at = 4, control_at = express->offset + 8U;
  const auto command = rng.device->config_read(command_at, 2), control = rng.device->config_read(control_at, 2);
  ASSERT_TRUE(command && control);
  ASSERT_TRUE(rng.device->config_write(command_at, 2, *command | 0x100));
  ASSERT_TRUE(rng.device->config_write(control_at, 2, *control | 0xf));
  const Event error;
  ASSERT_TRUE(rng.device->enable_irq(VfioIrq::Error, std::array{error.get()}));
  EXPECT_FALSE(error.wait(100)) << "nothing is wrong yet";
  monitor("pcie_aer_inject_error aer COMP_TIME");
  EXPECT_TRUE(error.wait(30000));
}

TEST(Unplug, RequestIsObeyed) {
  OPEN(nic, "UNPLUG");
  ASSERT_EQ(nic.device->irq_info(VfioIrq::Error)->count, 1U);
  const Event error, request;
  ASSERT_TRUE(nic.device->enable_irq(VfioIrq::Error, std::array{error.get()}));
  ASSERT_TRUE(nic.device->enable_irq(VfioIrq::Request, std::array{request.get()}));
  ASSERT_TRUE(nic.device->trigger_irq(VfioIrq::Error, 0));  // as the kernel would for an error of the device
  EXPECT_TRUE(error.wait());

  monitor("device_del unplug");
  EXPECT_TRUE(request.wait(30000));
  nic.device.reset();
  nic.host.reset();
  const std::string place = "/sys/bus/pci/devices/" + address("UNPLUG").to_string();
  for (int i = 0; i < 300 && std::filesystem::exists(place); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_FALSE(std::filesystem::exists(place));
  EXPECT_EQ(read_pci_device(address("UNPLUG")).error().code(), ErrorCode::NotFound);
}

}  // namespace
}  // namespace vm_platform::lab
