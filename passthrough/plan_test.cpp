#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <vm_platform/passthrough.hpp>

#include "passthrough/journal.hpp"
#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using test::FakeTree;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

const PciAddress kGpu = {0, 1, 0, 0}, kNvme = {0, 2, 0, 0};

class Plan : public testing::Test {
 protected:
  Plan() {
    tree.file("proc/sys/kernel/random/boot_id", "boot-1\n");
    tree.file("proc/self/mountinfo", "");
    tree.file("sys/bus/pci/drivers/vfio-pci/bind", "");
    tree.file("sys/bus/pci/drivers_probe", "");
    tree.device(
        {.address = "0000:00:01.0", .ids = "8086:A33C", .class_code = "60400", .driver = "pcieport", .group = 1});
    tree.device({.address = "0000:01:00.0",
                 .parents = "pci0000:00/0000:00:01.0",
                 .ids = "10DE:2204",
                 .class_code = "30000",
                 .driver = "nouveau",
                 .group = 1});
    tree.device({.address = "0000:01:00.1",
                 .parents = "pci0000:00/0000:00:01.0",
                 .ids = "10DE:1AEF",
                 .class_code = "40300",
                 .driver = "snd_hda_intel",
                 .group = 1});
    nvme = tree.device(
        {.address = "0000:02:00.0", .ids = "144D:A80A", .class_code = "10802", .driver = "nvme", .group = 2});
    options.sysfs = tree.sysfs();
    options.root = tree.root();
    options.state = tree.root() / "state";
    options.unbind_timeout = std::chrono::milliseconds(2000);
  }
  /// A disk of the NVMe device, with so many partitions; its place below the root.
  std::filesystem::path disk(int partitions) const {
    const auto place = nvme / "nvme/nvme0/nvme0n1";
    for (int i = 0; i <= partitions; ++i) {
      const auto block = i == 0 ? place : place / ("nvme0n1p" + std::to_string(i));
      tree.link(block / "subsystem", "../../../class/block");
      tree.file(block / "dev", "259:" + std::to_string(i) + "\n");
    }
    return place;
  }
  static std::vector<std::string> texts(const std::vector<DeviceUse>& uses) {
    std::vector<std::string> all;
    for (const DeviceUse& use : uses) all.push_back(use.what);
    return all;
  }
  [[nodiscard]] std::vector<std::string> uses_of(PciAddress device) const {
    return texts(find_uses(*read_pci_device(device, options.sysfs), options.sysfs, options.root));
  }
  FakeTree tree;
  std::filesystem::path nvme;
  PassthroughOptions options;
};

TEST_F(Plan, WholeGroupMovesAndBridgesStay) {
  const auto plan = PassthroughManager(options).plan({&kGpu, 1});
  ASSERT_TRUE(plan) << plan.error().message();
  ASSERT_EQ(plan->devices.size(), 2U);
  EXPECT_TRUE(plan->devices[0].requested);
  EXPECT_EQ(plan->devices[0].type, DeviceType::Gpu);
  EXPECT_FALSE(plan->devices[1].requested);
  EXPECT_THAT(plan->devices[1].reason, HasSubstr("shares IOMMU group 1 and the slot"));
  EXPECT_EQ(plan->steps.size(), 6U);
  EXPECT_TRUE(plan->in_use.empty());
  EXPECT_THAT(plan->risks, Contains(HasSubstr("no way to be reset")));
}

TEST_F(Plan, RefusesWhatCannotBeDone) {
  const PassthroughManager manager(options);
  const PciAddress bridge{0, 0, 1, 0}, missing{0, 9, 0, 0};
  EXPECT_EQ(manager.plan({&bridge, 1}).error().code(), ErrorCode::InvalidArgument);
  EXPECT_EQ(manager.plan({&missing, 1}).error().code(), ErrorCode::NotFound);
  EXPECT_EQ(manager.plan({}).error().code(), ErrorCode::InvalidArgument);
  tree.device({.address = "0000:03:00.0"});
  const PciAddress alone{0, 3, 0, 0};
  EXPECT_EQ(manager.plan({&alone, 1}).error().detail(), PassthroughError::NoIommu);
  std::filesystem::remove_all(tree.sysfs() / "bus/pci/drivers/vfio-pci");
  EXPECT_EQ(manager.plan({&kNvme, 1}).error().detail(), PassthroughError::NoVfio);
}

TEST_F(Plan, VariantOfVfiosDriverStays) {
  tree.device({.address = "0000:05:00.0", .ids = "15B3:101E", .driver = "mlx5_vfio_pci", .group = 5});
  const PciAddress function{0, 5, 0, 0};
  const auto plan = PassthroughManager(options).plan({&function, 1});
  ASSERT_TRUE(plan) << plan.error().message();
  EXPECT_EQ(plan->devices.size(), 1U);
  EXPECT_TRUE(plan->steps.empty()) << "it is in VFIO's hands already";
}

TEST_F(Plan, NamesWhatUsesADisk) {
  tree.file(disk(2) / "nvme0n1p2/holders/dm-0", "");
  tree.file("sys/class/block/dm-0/dm/name", "vg-root\n");
  tree.file("sys/class/block/dm-0/dev", "254:0\n");
  tree.file("proc/self/mountinfo",
            "22 1 254:0 / / rw,relatime - ext4 /dev/mapper/vg-root rw\n"
            "23 22 259:1 / /boot/my\\040efi rw - vfat /dev/nvme0n1p1 rw\n");
  tree.file("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1 partition 1 0 -2\n");
  const auto plan = PassthroughManager(options).plan({&kNvme, 1});
  ASSERT_TRUE(plan);
  EXPECT_THAT(texts(plan->in_use),
              testing::UnorderedElementsAre("nvme0n1 is used for swap", "nvme0n1p1 is mounted on /boot/my efi",
                                            "nvme0n1p2 is part of the volume vg-root",
                                            "nvme0n1p2 (through vg-root) is mounted on /"));
  const auto taken = PassthroughManager(options).take(*plan);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code(), ErrorCode::Busy);
  EXPECT_THAT(taken.error().message(), HasSubstr("mounted on /"));
  EXPECT_FALSE(std::filesystem::exists(options.state)) << "nothing was touched";
}

TEST_F(Plan, NamesWhatUsesANetworkInterfaceAndWhoHoldsANode) {
  const auto nic = tree.device({.address = "0000:04:00.0", .driver = "e1000e", .group = 4});
  tree.file(nic / "net/eth0/address", "");
  tree.link(nic / "net/eth0/subsystem", "../../../class/net");
  tree.link(nic / "net/eth0/master", "../../bond0");
  tree.file("proc/net/route",
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
            "eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n");
  tree.file(nvme / "nvme/nvme0/dev", "243:0\n");
  tree.file(nvme / "nvme/nvme0/uevent", "MAJOR=243\nMINOR=0\nDEVNAME=nvme0\n");
  tree.file("proc/4711/comm", "nvme-cli\n");
  tree.link("proc/4711/fd/3", "/dev/nvme0");
  const PciAddress address{0, 4, 0, 0};
  EXPECT_THAT(uses_of(address), ElementsAre("eth0 has the default route", "eth0 is a port of bond0"));
  EXPECT_THAT(uses_of(kNvme), ElementsAre("/dev/nvme0 is held open by nvme-cli (pid 4711)"));
}

TEST_F(Plan, NamesMountsThatTheDevicesNumberDoesNotShow) {
  (void)disk(3);
  tree.link("proc/self/ns/mnt", "mnt:[1]");
  tree.link("proc/1/ns/mnt", "mnt:[1]");
  tree.link("proc/4711/ns/mnt", "mnt:[2]");
  tree.file("proc/4711/comm", "postgres\n");
  tree.file("proc/self/mountinfo",
            "29 1 0:26 /@ / rw - btrfs /dev/nvme0n1p1 rw\n"
            "30 29 0:27 / /tmp rw shared:2 - tmpfs tmpfs rw\n");
  tree.file("proc/1/mountinfo", "29 1 259:3 / /not/looked/at/twice rw - ext4 /dev/nvme0n1p3 rw\n");
  tree.file("proc/4711/mountinfo",
            "40 1 0:26 /@ / rw - btrfs /dev/nvme0n1p1 rw\n"
            "41 40 259:3 / /data rw - ext4 /dev/nvme0n1p3 rw\n");
  tree.file("sys/fs/btrfs/1234-5678/devices/nvme0n1p1", "");
  tree.file("sys/fs/btrfs/1234-5678/devices/nvme0n1p2", "");
  EXPECT_THAT(uses_of(kNvme), testing::UnorderedElementsAre(
                                  "nvme0n1p1 is mounted on /", "nvme0n1p1 is part of the mounted btrfs 1234-5678",
                                  "nvme0n1p2 is part of the mounted btrfs 1234-5678",
                                  "nvme0n1p3 is mounted on /data in the mount namespace of postgres (pid 4711)"));
}

TEST_F(Plan, NamesAnInterfaceOfAnotherNamespaceAndNvidiasNodes) {
  const auto nic = tree.device({.address = "0000:04:00.0", .driver = "virtio-pci", .group = 4});
  std::filesystem::create_directories(tree.root() / nic / "virtio2/net");
  EXPECT_THAT(uses_of({0, 4, 0, 0}), ElementsAre("its network interface is in another network namespace"));
  tree.device({.address = "0000:05:00.0", .ids = "10DE:2204", .class_code = "30200", .driver = "nvidia", .group = 5});
  tree.file("proc/driver/nvidia/gpus/0000:05:00.0/information", "Model: \t\t Some GPU\nDevice Minor: \t 3\n");
  tree.file("proc/812/comm", "nvidia-persiste\n");
  tree.link("proc/812/fd/5", "/dev/nvidia3");
  EXPECT_THAT(uses_of({0, 5, 0, 0}), ElementsAre("/dev/nvidia3 is held open by nvidia-persiste (pid 812)"));
}

TEST_F(Plan, WhoHasADeviceByItsOwnNodeKeepsIt) {
  tree.file("state/lock", "");
  const TakenSet set{TakenSet::State::Taken, false, {{kNvme, "nvme", "", "path", 0x144d, 0xa80a}}};
  tree.file("state/0000:02:00.0.json", write_set(set, "boot-1"));
  std::filesystem::create_directories(tree.root() / nvme / "vfio-dev/vfio3");
  tree.file("proc/4711/comm", "guest\n");
  tree.link("proc/4711/fd/9", "/dev/vfio/devices/vfio3");
  const auto released = PassthroughManager(options).release(kNvme);
  ASSERT_FALSE(released);
  EXPECT_EQ(released.error().code(), ErrorCode::Busy);
  EXPECT_THAT(released.error().message(), HasSubstr("guest (pid 4711) has /dev/vfio/devices/vfio3 open"));
}

TEST_F(Plan, DriverThatDoesNotLetGoLeavesTheRecordForRecover) {
  // A pipe that nobody reads: opening it for writing does not come back.
  const auto unbind = tree.root() / "sys/bus/pci/drivers/nvme/unbind";
  ASSERT_EQ(::mkfifo(unbind.c_str(), 0600), 0);
  PassthroughManager manager(options);
  const auto plan = manager.plan({&kNvme, 1});
  ASSERT_TRUE(plan);
  const auto taken = manager.take(*plan);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code(), ErrorCode::Timeout);
  EXPECT_EQ(taken.error().detail(), PassthroughError::Stuck);
  EXPECT_THAT(taken.error().message(), HasSubstr("nvme did not let go within 2000 ms"));
  ASSERT_EQ(read_pci_device(kNvme, options.sysfs)->driver_override, "vfio-pci") << "nothing more was touched";
  ASSERT_EQ(manager.status()->size(), 1U);
  EXPECT_EQ((*manager.status())[0].state, TakenSet::State::Taking);
  {  // now it lets go: the writer that was left behind comes through, and ends
    std::ifstream reader(unbind);
    std::string written;
    EXPECT_TRUE(reader >> written);
    EXPECT_EQ(written, "0000:02:00.0");
  }
  const auto recovered = manager.recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(read_pci_device(kNvme, options.sysfs)->driver_override, "");
  EXPECT_TRUE(manager.status()->empty());
}

TEST_F(Plan, KernelThatSaysYesAndDoesNothingIsNoticedAndRolledBack) {
  // Here sysfs is plain files: every write succeeds, and the driver link stays.
  tree.file("sys/bus/pci/drivers/nvme/unbind", "");
  PassthroughManager manager(options);
  const auto plan = manager.plan({&kNvme, 1});
  ASSERT_TRUE(plan);
  const auto taken = manager.take(*plan);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().detail(), PassthroughError::RolledBack) << taken.error().message();
  EXPECT_THAT(taken.error().message(), HasSubstr("nvme is still bound"));
  EXPECT_EQ(read_pci_device(kNvme, options.sysfs)->driver_override, "") << "what had been set was cleared again";
  EXPECT_TRUE(manager.status()->empty());
}

TEST_F(Plan, PlanOfAnotherTimeIsNotCarriedOut) {
  PassthroughManager manager(options);
  const auto plan = manager.plan({&kNvme, 1});
  std::filesystem::remove(tree.root() / nvme / "driver");
  const auto taken = manager.take(*plan);
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code(), ErrorCode::Status);
}

TEST_F(Plan, RecoverPutsBackWhatWasLeftAndForgetsWhatARebootUndid) {
  tree.file("state/lock", "");
  TakenSet left{TakenSet::State::Taking, false, {{kNvme, "nvme", "", "path", 0x144d, 0xa80a}}};
  tree.file("state/0000:02:00.0.json", write_set(left, "boot-1"));
  tree.file(nvme / "driver_override", "vfio-pci\n");
  TakenSet old{TakenSet::State::Taken, false, {{kGpu, "nouveau", "", "path", 0x10de, 0x2204}}};
  tree.file("state/0000:01:00.0.json", write_set(old, "boot-0"));
  PassthroughManager manager(options);
  ASSERT_EQ(manager.status()->size(), 2U);
  EXPECT_TRUE((*manager.status())[0].stale);
  const auto recovered = manager.recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(recovered->size(), 2U);
  EXPECT_EQ(read_pci_device(kNvme, options.sysfs)->driver_override, "");
  EXPECT_TRUE(manager.status()->empty());
  EXPECT_EQ(manager.release(kNvme).error().detail(), PassthroughError::NotTaken);
}

TEST(Journal, ReadsWhatItWroteAndRefusesTheRest) {
  const TakenSet set{TakenSet::State::Releasing, false, {{kGpu, "nouveau", "x", "devices/p", 0x10de, 0x2204}}};
  const auto read = read_set(write_set(set, "b"), "b", "file");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->state, TakenSet::State::Releasing);
  EXPECT_EQ(read->devices[0].former_override, "x");
  EXPECT_FALSE(read->stale);
  for (
      const char* text : {
          "",
          "{}",
          "[]",
          R"({"version":2})",
          R"({"version":1,"boot_id":"b","state":"taken"})",
          R"({"version":1,"boot_id":"b","state":"eaten","devices":[]})",
          R"({"version":1,"boot_id":"b","state":"taken","devices":[{"address":"01:00.0","former_driver":"../../x","former_override":""}]})",
      })
    EXPECT_EQ(read_set(text, "b", "file").error().code(), ErrorCode::Corrupt) << text;
}

TEST(DeviceType, FromClassAndKnownIds) {
  const auto type = [](std::uint32_t class_code, std::uint16_t vendor = 0x1234, std::uint16_t device = 1) {
    PciDeviceInfo info;
    info.class_code = class_code;
    info.vendor = vendor;
    info.device = device;
    return classify(info);
  };
  EXPECT_EQ(type(0x030200), DeviceType::Gpu);
  EXPECT_EQ(type(0x120000), DeviceType::Npu);
  EXPECT_EQ(type(0x0b4000, 0x1bcf, 0x001c), DeviceType::Npu) << "NEC Vector Engine, a co-processor by class";
  EXPECT_EQ(type(0x118000, 0x1022, 0x1502), DeviceType::Npu) << "AMD XDNA";
  EXPECT_EQ(type(0x0c0330), DeviceType::Usb);
  EXPECT_EQ(type(0x040300), DeviceType::Audio);
  EXPECT_EQ(type(0x060400), DeviceType::Bridge);
  EXPECT_EQ(type(0xff0000), DeviceType::Other);
}

}  // namespace
}  // namespace vm_platform
