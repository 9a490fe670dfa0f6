// What a GPU needs beyond binding: framebuffers, consoles, VGA, reset methods, ROMs, BAR sizes, parts of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vm_platform/gpu.hpp>
#include <vm_platform/passthrough.hpp>
#include <vm_platform/vga_arbiter.hpp>
#include <vm_platform/vgpu.hpp>

#include "passthrough/boot_framebuffer.hpp"
#include "passthrough/journal.hpp"
#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using test::ConfigBuilder;
using test::FakeTree;
using testing::Contains;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;

const PciAddress kGpu = {0, 1, 0, 0};

class Handover : public testing::Test {
 protected:
  Handover() {
    tree.file("proc/sys/kernel/random/boot_id", "boot-1\n");
    tree.file("proc/self/mountinfo", "");
    tree.file("sys/bus/pci/drivers/vfio-pci/bind", "");
    gpu = tree.device({.address = "0000:01:00.0", .ids = "1002:731F", .class_code = "30000", .group = 1});
    tree.file(gpu / "reset_method", "bus pm\n");
    options.sysfs = tree.sysfs();
    options.root = tree.root();
    options.state = tree.root() / "state";
  }
  /// simpledrm's device, known to be on the GPU by /proc/iomem alone, as on kernels before 6.10.
  void boot_framebuffer() const {
    tree.file("sys/devices/platform/simple-framebuffer.0/graphics/fb0/name", "simpledrmdrmfb\n");
    tree.file("sys/bus/platform/drivers/simple-framebuffer/unbind", "");
    tree.link("sys/bus/platform/drivers/simple-framebuffer/simple-framebuffer.0",
              tree.root() / "sys/devices/platform/simple-framebuffer.0");
    tree.link("sys/bus/platform/devices/simple-framebuffer.0",
              tree.root() / "sys/devices/platform/simple-framebuffer.0");
    tree.link("sys/devices/platform/simple-framebuffer.0/driver",
              tree.root() / "sys/bus/platform/drivers/simple-framebuffer");
    tree.file("sys/class/vtconsole/vtcon0/name", "(S) dummy device\n");
    tree.file("sys/class/vtconsole/vtcon0/bind", "0\n");
    tree.file("sys/class/vtconsole/vtcon1/name", "(M) frame buffer device\n");
    tree.file("sys/class/vtconsole/vtcon1/bind", "1\n");
    tree.file("proc/iomem",
              "00000000-00000fff : Reserved\n"
              "00000000-00000000 : PCI Bus 0000:01\n"
              "  00000000-00000000 : 0000:01:00.0\n"
              "    00000000-00000000 : BOOTFB\n"
              "  00000000-00000000 : 0000:01:00.1\n");
  }
  FakeTree tree;
  std::filesystem::path gpu;
  PassthroughOptions options;
};

TEST_F(Handover, FindsTheBootFramebufferWhereItDraws) {
  EXPECT_FALSE(find_boot_framebuffer(kGpu, options.sysfs, options.root));
  boot_framebuffer();
  const auto found = find_boot_framebuffer(kGpu, options.sysfs, options.root);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->device, "simple-framebuffer.0");
  EXPECT_EQ(found->driver, "simple-framebuffer");
  EXPECT_EQ(found->node, "fb0");
  EXPECT_THAT(found->consoles, ElementsAre("vtcon1"));
  EXPECT_FALSE(find_boot_framebuffer({0, 1, 0, 1}, options.sysfs, options.root)) << "another function's BAR";
}

TEST_F(Handover, PlanTakesFramebufferConsoleAndResetMethodsAlong) {
  boot_framebuffer();
  const auto plan = PassthroughManager(options).plan({&kGpu, 1});
  ASSERT_TRUE(plan) << plan.error().message();
  std::vector<PlanStep::Kind> kinds;
  for (const PlanStep& step : plan->steps) kinds.push_back(step.kind);
  EXPECT_THAT(kinds, ElementsAre(PlanStep::Kind::ReleaseConsole, PlanStep::Kind::ReleaseFramebuffer,
                                 PlanStep::Kind::SetOverride, PlanStep::Kind::Bind))
      << "Navi survives neither of its reset methods, so the kernel's list stays";
  EXPECT_THAT(plan->in_use, Contains(Field(&DeviceUse::what, HasSubstr("the boot framebuffer fb0"))));
  EXPECT_THAT(plan->risks, Contains(HasSubstr("no way to be reset")));
  EXPECT_THAT(plan->risks, Contains(HasSubstr("vendor-reset")));
}

TEST_F(Handover, FailedTakePutsConsoleFramebufferAndResetMethodsBack) {
  boot_framebuffer();
  tree.file(gpu / "reset_method", "device_specific bus\n");
  PassthroughManager manager(options);
  const auto plan = manager.plan({&kGpu, 1});
  ASSERT_TRUE(plan);
  // Plain files: the console unbinds, the platform device's driver link stays, which is noticed.
  const auto taken = manager.take(*plan, true);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().detail(), PassthroughError::RolledBack) << taken.error().message();
  EXPECT_THAT(taken.error().message(), HasSubstr("simple-framebuffer is still bound"));
  EXPECT_THAT(framebuffer_consoles(options.sysfs), ElementsAre("vtcon1"));
  EXPECT_EQ(read_pci_device(kGpu, options.sysfs)->reset_methods, (std::vector<std::string>{"device_specific", "bus"}));
}

TEST_F(Handover, JournalHoldsAllThatUndoingNeeds) {
  TakenDevice device{kGpu, "amdgpu", "", "devices/p", 0x1002, 0x731f};
  device.former_reset_methods = "device_specific bus";
  device.former_bar_sizes = "0:268435456";
  device.display = {"io+mem", "simple-framebuffer.0", "simple-framebuffer", {"vtcon1"}};
  device.guest = {"/roms/x", true};
  const auto read = read_set(write_set({TakenSet::State::Taken, false, {device}}, "b"), "b", "f");
  ASSERT_TRUE(read) << read.error().message();
  const TakenDevice& back = read->devices[0];
  EXPECT_EQ(back.former_reset_methods, device.former_reset_methods);
  EXPECT_EQ(back.former_bar_sizes, device.former_bar_sizes);
  EXPECT_EQ(back.display, device.display);
  EXPECT_EQ(back.guest, device.guest);
  device.display.consoles = {"../../x"};
  EXPECT_EQ(read_set(write_set({TakenSet::State::Taken, false, {device}}, "b"), "b", "f").error().code(),
            ErrorCode::Corrupt);
}

TEST(Reset, IsByWhatTheDeviceSurvives) {
  const auto choose = [](std::uint16_t vendor, std::uint16_t device, std::vector<std::string> methods,
                         std::uint32_t class_code = 0x030000) {
    PciDeviceInfo info;
    info.address = {0, 1, 0, 0};
    info.vendor = vendor;
    info.device = device;
    info.class_code = class_code;
    info.reset_methods = std::move(methods);
    return choose_reset(info);
  };
  EXPECT_THAT(choose(0x10de, 0x2342, {"flr", "bus"}).methods, ElementsAre("flr"));
  EXPECT_THAT(choose(0x10de, 0x1eb8, {"bus"}).methods, IsEmpty());
  EXPECT_FALSE(choose(0x10de, 0x2204, {"bus"}).differs);
  EXPECT_THAT(choose(0x1002, 0x67df, {"device_specific", "bus"}).methods, ElementsAre("device_specific"));
  EXPECT_THAT(choose(0x1002, 0x7550, {"pm", "bus"}).methods, ElementsAre("bus")) << "no display of AMD resets by PM";
  EXPECT_THAT(choose(0x1022, 0x149c, {"flr", "pm"}, 0x0c0330).methods, ElementsAre("pm"));
  EXPECT_THAT(choose(0x1022, 0x149c, {"flr", "pm"}, 0x0c0330).avoided, ElementsAre(HasSubstr("flr (hangs")));
}

TEST(VgaArbiter, ReadsWhatTheKernelWrites) {
  const auto card = parse_vga_status("count:1,PCI:0000:01:00.0,decodes=io+mem,owns=none,locks=io(1:0)\n");
  ASSERT_TRUE(card);
  EXPECT_EQ(card->address, kGpu);
  EXPECT_EQ(card->decodes, VgaResource::Both);
  EXPECT_EQ(card->owns, VgaResource::None);
  EXPECT_EQ(card->locks, VgaResource::Io);
  for (const char* text : {"", "invalid", "count:1,PCI:0000:01:00.0", "PCI:x,decodes=io,owns=io,locks=io"})
    EXPECT_EQ(parse_vga_status(text).error().code(), ErrorCode::Corrupt) << text;
  EXPECT_EQ(VgaArbiter::open("/nonexistent").error().code(), ErrorCode::NotFound);
}

std::vector<std::uint8_t> rom_for(std::uint16_t vendor, std::uint16_t device, std::size_t padding) {
  ConfigBuilder rom(512);
  rom.u16(0, 0xaa55).u8(2, 1).u16(0x18, 0x40).u8(0x40, 'P').u8(0x41, 'C').u8(0x42, 'I').u8(0x43, 'R').u16(0x44, vendor);
  rom.u16(0x46, device).u16(0x4a, 0x18).u8(0x4f, 3).u16(0x50, 1).u8(0x55, 0x80);
  auto bytes = rom.bytes();
  bytes[511] = static_cast<std::uint8_t>(0x100 - (std::accumulate(bytes.begin(), bytes.end(), 0U) & 0xff));
  bytes.resize(512 + padding, 0xff);
  return bytes;
}

TEST(GuestRom, IsTheDevicesOwnOrTheFileInItsPlace) {
  const FakeTree tree;
  GpuConfig gpu;
  gpu.device.vendor = 0x10de;
  gpu.device.device = 0x2204;
  const auto own = [] { return Result<std::vector<std::uint8_t>>(rom_for(0x10de, 0x2204, 512)); };
  auto rom = guest_rom(gpu, own);
  ASSERT_TRUE(rom);
  EXPECT_EQ(rom->bytes.size(), 512U) << "without the padding";
  EXPECT_THAT(rom->problems, IsEmpty());
  rom = guest_rom(gpu, [] { return Result<std::vector<std::uint8_t>>(std::vector<std::uint8_t>(512)); });
  ASSERT_TRUE(rom);
  EXPECT_TRUE(rom->bytes.empty()) << "many devices work without";
  EXPECT_EQ(rom->problems.size(), 1U);
  auto saved = rom_for(0x10de, 0x2204, 0);
  std::vector<std::uint8_t> framed(1024);
  std::copy_n("NVGI", 4, framed.begin());
  framed.insert(framed.end(), saved.begin(), saved.end());
  tree.file("good.rom", {reinterpret_cast<const char*>(framed.data()), framed.size()});
  gpu.rom_file = tree.root() / "good.rom";
  rom = guest_rom(gpu, own);
  ASSERT_TRUE(rom) << rom.error().message();
  EXPECT_EQ(rom->bytes, saved) << "without the flash tool's header";
  const auto wrong = rom_for(0x10de, 0x2206, 0);
  tree.file("wrong.rom", {reinterpret_cast<const char*>(wrong.data()), wrong.size()});
  gpu.rom_file = tree.root() / "wrong.rom";
  EXPECT_THAT(guest_rom(gpu, own).error().message(), HasSubstr("it is for 10de:2206"));
  tree.file("none.rom", "not a ROM");
  gpu.rom_file = tree.root() / "none.rom";
  EXPECT_EQ(guest_rom(gpu, own).error().code(), ErrorCode::Corrupt);
  gpu.rom_file = tree.root() / "missing.rom";
  EXPECT_EQ(guest_rom(gpu, own).error().code(), ErrorCode::NotFound);
}

TEST(ResizeBar, RefusesWhatCannotBe) {
  const FakeTree tree;
  const auto bound = tree.device({.address = "0000:01:00.0", .driver = "amdgpu"});
  EXPECT_EQ(resize_bar(kGpu, 0, 256 * kMiB, tree.sysfs()).error().code(), ErrorCode::Unsupported);
  tree.file(bound / "resource0_resize", "0000000000003f00\n");  // 256 MiB to 8 GiB
  EXPECT_THAT(resize_bar(kGpu, 0, 64 * kMiB, tree.sysfs()).error().message(), HasSubstr("256M, 512M, 1G, 2G, 4G, 8G"));
  EXPECT_EQ(resize_bar(kGpu, 0, 3 * kGiB, tree.sysfs()).error().code(), ErrorCode::InvalidArgument);
  EXPECT_EQ(resize_bar(kGpu, 0, kGiB, tree.sysfs()).error().code(), ErrorCode::Busy);
  std::filesystem::remove(tree.root() / bound / "driver");
  tree.file(bound / "uevent", "PCI_CLASS=30000\nPCI_ID=1002:731F\n");
  tree.file(bound / "resource", "0x380000000 0x38fffffff 0x14220c\n");
  const auto ignored = resize_bar(kGpu, 0, kGiB, tree.sysfs());
  ASSERT_FALSE(ignored);
  EXPECT_EQ(ignored.error().code(), ErrorCode::Io) << "plain files: the kernel says yes and does nothing";
  tree.file(bound / "resource0_resize", "0000000000003f00\n");
  EXPECT_TRUE(resize_bar(kGpu, 0, 256 * kMiB, tree.sysfs())) << "it has that size";
}

TEST(Vgpu, ListsMediatedTypesAndTypedFunctions) {
  const FakeTree tree;
  EXPECT_THAT(VgpuManager(tree.sysfs()).types(), IsEmpty());
  const auto type = std::filesystem::path("sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1");
  tree.file(type / "name", "Single port serial\n");
  tree.file(type / "device_api", "vfio-pci\n");
  tree.file(type / "available_instances", "24\n");
  tree.file(type / "create", "");
  const auto vf = tree.device({.address = "0000:41:00.4", .ids = "10DE:233B", .class_code = "30200"});
  tree.file(vf / "nvidia/current_vgpu_type", "0\n");
  tree.file(vf / "nvidia/creatable_vgpu_types",
            "ID : vGPU Name\n1428 : NVIDIA H200X-141C\n1414 : NVIDIA H200X-1-18C\n");
  VgpuManager manager(tree.sysfs());
  const auto types = manager.types();
  ASSERT_EQ(types.size(), 3U);
  EXPECT_EQ(types[0].available, 24U);
  EXPECT_EQ(types[0].name, "Single port serial");
  EXPECT_EQ(types[2].id, "1414");
  EXPECT_EQ(types[2].name, "NVIDIA H200X-1-18C");
  EXPECT_THAT(manager.devices(), IsEmpty());
  const auto made = manager.create("0000:41:00.4", "1414");
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->id, "0000:41:00.4");
  ASSERT_EQ(manager.devices().size(), 1U);
  EXPECT_EQ(manager.create("0000:41:00.4", "1428").error().code(), ErrorCode::OutOfMemory) << "it has its type";
  ASSERT_TRUE(manager.remove("0000:41:00.4"));
  EXPECT_THAT(manager.devices(), IsEmpty());
  EXPECT_THAT(manager.create("mtty", "mtty-9").error().message(), HasSubstr("it has mtty-1"));
  EXPECT_EQ(manager.create("x", "y").error().code(), ErrorCode::NotFound);
  EXPECT_EQ(manager.create("mtty", "mtty-1", "no-uuid").error().code(), ErrorCode::InvalidArgument);
  EXPECT_EQ(manager.create("mtty", "mtty-1").error().code(), ErrorCode::Io) << "plain files: nothing comes to be";
  EXPECT_EQ(manager.remove("nothing").error().code(), ErrorCode::NotFound);
}

}  // namespace
}  // namespace vm_platform
