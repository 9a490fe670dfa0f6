#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vm_platform/passthrough.hpp>
#include <vm_platform/sriov_boot.hpp>

#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using test::FakeTree;
using testing::HasSubstr;

class Remember : public testing::Test {
 protected:
  Remember() {
    tree.file("proc/sys/kernel/random/boot_id", "boot-1\n");
    tree.file("proc/self/mountinfo", "");
    tree.file("sys/bus/pci/drivers/vfio-pci/bind", "");
    options.sysfs = tree.sysfs();
    options.root = tree.root();
    options.state = tree.root() / "state";
    options.config = tree.root() / "etc/vm-platform";
  }
  void add(const std::string& address, const std::string& driver, int group) const {
    tree.device({.address = address,
                 .parents = "pci0000:00/0000:00:1c.0",
                 .ids = "144D:A80A",
                 .class_code = "10802",
                 .driver = driver,
                 .group = group});
  }
  FakeTree tree;
  PassthroughOptions options;
};

TEST_F(Remember, IsTakenWhereverItIsAtTheNextBoot) {
  add("0000:02:00.0", "vfio-pci", 2);
  PassthroughManager manager(options);
  const PciAddress address{0, 2, 0, 0};
  TakeOptions how;
  how.guest = {"/roms/x.rom", true};
  const auto plan = manager.plan({&address, 1}, how);
  ASSERT_TRUE(plan) << plan.error().message();
  ASSERT_TRUE(manager.remember(*plan));
  ASSERT_TRUE(manager.remember(*plan)) << "twice is once";
  ASSERT_EQ(manager.remembered()->size(), 1U);
  EXPECT_EQ((*manager.remembered())[0].guest, how.guest);
  std::filesystem::remove_all(tree.sysfs() / "bus/pci/devices/0000:02:00.0");
  std::filesystem::remove_all(tree.sysfs() / "devices");
  add("0000:05:00.0", "vfio-pci", 9);
  const auto outcomes = manager.restore();
  ASSERT_TRUE(outcomes) << outcomes.error().message();
  ASSERT_EQ(outcomes->size(), 1U);
  EXPECT_FALSE((*outcomes)[0].error);
  EXPECT_EQ((*outcomes)[0].address->to_string(), "0000:05:00.0");
  EXPECT_TRUE(*manager.forget({0, 5, 0, 0}));
  EXPECT_FALSE(*manager.forget({0, 5, 0, 0}));
  EXPECT_FALSE(std::filesystem::exists(options.config / "passthrough.json"));
}

TEST_F(Remember, CardThatWasMovedIsTheSameForAll) {
  const auto card = [&](const std::string& address, const std::string& slot, std::uint32_t serial) {
    tree.device({.address = address,
                 .parents = "pci0000:00/" + slot,
                 .ids = "144D:A80A",
                 .class_code = "10802",
                 .driver = "vfio-pci",
                 .group = 2,
                 .config = test::ConfigBuilder()
                               .header(0x144d, 0xa80a, 0x010802)
                               .express(0)
                               .extended(0x100, 0x03, 0)
                               .u32(0x104, serial)
                               .bytes()});
  };
  const auto unplug_all = [&] {
    std::filesystem::remove_all(tree.sysfs() / "bus/pci/devices");
    std::filesystem::remove_all(tree.sysfs() / "devices");
    std::filesystem::remove_all(tree.sysfs() / "kernel/iommu_groups");
    for (const char* address : {"0000:02:00.0", "0000:05:00.0"})
      std::filesystem::remove(tree.sysfs() / "bus/pci/drivers/vfio-pci" / address);
  };
  const PciAddress first{0, 2, 0, 0}, second{0, 5, 0, 0};
  PassthroughManager manager(options);
  card("0000:02:00.0", "0000:00:1c.0", 7);
  ASSERT_TRUE(manager.remember(*manager.plan({&first, 1})));
  unplug_all();
  card("0000:05:00.0", "0000:00:1d.0", 7);
  ASSERT_TRUE(manager.remember(*manager.plan({&second, 1})));
  EXPECT_EQ(manager.remembered()->size(), 1U) << "in another slot it is no other card";
  unplug_all();
  card("0000:02:00.0", "0000:00:1c.0", 7);
  EXPECT_EQ((*manager.restore())[0].address, first);
  // Another card of the same model where it was: not the one that is remembered.
  unplug_all();
  card("0000:02:00.0", "0000:00:1c.0", 8);
  card("0000:05:00.0", "0000:00:1d.0", 7);
  EXPECT_FALSE(*manager.remembers(first));
  EXPECT_FALSE(*manager.forget(first));
  EXPECT_TRUE(*manager.remembers(second));
  EXPECT_TRUE(*manager.forget(second));
  EXPECT_TRUE(manager.remembered()->empty());
  // One that is nowhere any more is known by where it was last.
  unplug_all();
  card("0000:05:00.0", "0000:00:1d.0", 7);
  ASSERT_TRUE(manager.remember(*manager.plan({&second, 1})));
  unplug_all();
  std::filesystem::create_directories(tree.sysfs() / "bus/pci/devices");
  EXPECT_TRUE(*manager.forget(second));
}

TEST_F(Remember, IsNeverForcedAndSaysWhy) {
  add("0000:02:00.0", "nvme", 2);
  PassthroughManager manager(options);
  const PciAddress address{0, 2, 0, 0};
  ASSERT_TRUE(manager.remember(*manager.plan({&address, 1})));
  EXPECT_EQ((*manager.remembered())[0].former_driver, "nvme");
  const auto disk = "sys/devices/pci0000:00/0000:00:1c.0/0000:02:00.0/nvme/nvme0/nvme0n1";
  tree.link(std::filesystem::path(disk) / "subsystem", "../../../class/block");
  tree.file(std::filesystem::path(disk) / "dev", "259:0\n");
  tree.file("proc/self/mountinfo", "22 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
  const auto outcomes = manager.restore();
  ASSERT_TRUE(outcomes);
  ASSERT_TRUE((*outcomes)[0].error);
  EXPECT_EQ((*outcomes)[0].error->code(), ErrorCode::Busy);
  EXPECT_THAT((*outcomes)[0].error->message(), HasSubstr("mounted on /"));
  std::filesystem::remove_all(tree.sysfs() / "bus/pci/devices/0000:02:00.0");
  EXPECT_EQ((*manager.restore())[0].error->code(), ErrorCode::NotFound);
}

TEST_F(Remember, DamagedFileIsNamed) {
  for (const char* text : {"", "[]", "{\"version\":9}", "{\"version\":1,\"devices\":[{}]}",
                           "{\"version\":1,\"devices\":[{\"address\":\"0000:01:00.0\",\"former_driver\":\"../x\"}]}"}) {
    tree.file("etc/vm-platform/passthrough.json", text);
    EXPECT_EQ(PassthroughManager(options).remembered().error().code(), ErrorCode::Corrupt) << text;
  }
}

TEST(SriovBoot, FileIsKeptWithWhatItsDevicesAre) {
  const FakeTree tree;
  const auto config = tree.root() / "etc";
  const auto add = [&](const std::string& address) {
    const auto place = tree.device({.address = address, .parents = "pci0000:00/0000:00:1c.0", .driver = "ice"});
    tree.file(place / "sriov_totalvfs", "8\n");
    tree.file(place / "sriov_numvfs", "0\n");
  };
  add("0000:02:00.0");
  constexpr const char* kFile = "physical_functions:\n  - {device: 0000:02:00.0, count: 4}\n";
  EXPECT_TRUE(stored_sriov({}, tree.sysfs(), config)->empty());
  ASSERT_TRUE(store_sriov(kFile, tree.sysfs(), config));
  std::filesystem::remove_all(tree.sysfs() / "devices");
  std::filesystem::remove_all(tree.sysfs() / "bus/pci/devices");
  EXPECT_FALSE(stored_sriov(std::chrono::milliseconds(1), tree.sysfs(), config)) << "not there";
  add("0000:07:00.0");
  const auto stored = stored_sriov({}, tree.sysfs(), config);
  ASSERT_TRUE(stored) << stored.error().message();
  ASSERT_EQ(stored->size(), 1U);
  EXPECT_EQ((*stored)[0].physical_function, "0000:07:00.0");
  EXPECT_EQ((*stored)[0].count, 4U);
  ASSERT_TRUE(forget_sriov(config));
  EXPECT_TRUE(stored_sriov({}, tree.sysfs(), config)->empty());
  EXPECT_EQ(store_sriov("physical_functions: 3", tree.sysfs(), config).error().code(), ErrorCode::InvalidArgument);
}

/// The kernel shows a card and its sriov_numvfs before a driver has it, and its network interface later still.
class SriovBootEarly : public testing::Test {
 protected:
  SriovBootEarly() {
    place = tree.device({.address = "0000:02:00.0", .parents = "pci0000:00/0000:00:1c.0"});
    tree.file(place / "sriov_totalvfs", "8\n");
    tree.file(place / "sriov_numvfs", "0\n");
  }
  void store(const char* rest) const {
    const auto text = std::string("physical_functions:\n  - {device: 0000:02:00.0, ") + rest + "}\n";
    ASSERT_TRUE(store_sriov(text, tree.sysfs(), tree.root() / "etc"));
  }
  [[nodiscard]] Result<std::vector<SriovDeclaration>> stored(std::chrono::milliseconds wait = {}) const {
    return stored_sriov(wait, tree.sysfs(), tree.root() / "etc");
  }
  void bind() const {
    std::filesystem::create_directories(tree.sysfs() / "bus/pci/drivers/ice");
    tree.link(place / "driver", tree.sysfs() / "bus/pci/drivers/ice");
  }
  FakeTree tree;
  std::filesystem::path place;
};

TEST_F(SriovBootEarly, TheDriverIsWaitedFor) {
  store("count: 4");
  ASSERT_FALSE(stored());
  EXPECT_EQ(stored().error().code(), ErrorCode::NotFound);
  EXPECT_THAT(stored().error().message(), HasSubstr("no driver is bound to it"));
  const std::jthread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    bind();
  });
  const auto found = stored(std::chrono::seconds(30));
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_TRUE(std::filesystem::exists(tree.root() / place / "driver"));
  EXPECT_EQ((*found)[0].physical_function, "0000:02:00.0");
}

TEST_F(SriovBootEarly, TheInterfaceIsWaitedForWhereSettingsNeedIt) {
  bind();
  store("count: 4, vfs: [{index: 1}]");
  EXPECT_TRUE(stored()) << "nothing to set";
  store("count: 4, vfs: [{index: 1, trust: true}]");
  ASSERT_FALSE(stored());
  EXPECT_THAT(stored().error().message(), HasSubstr("no network interface yet"));
  tree.file(place / "net/eth0/address", "");
  EXPECT_TRUE(stored());
}

TEST_F(SriovBootEarly, NoDriverIsNeededForNoFunctions) {
  store("count: 0");
  EXPECT_TRUE(stored());
}

}  // namespace
}  // namespace vm_platform
