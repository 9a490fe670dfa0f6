// What a change of the number of virtual functions may delete, and what is put back where it fails.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <iterator>
#include <vm_platform/passthrough.hpp>
#include <vm_platform/sriov.hpp>

#include "os/linux/descriptor.hpp"
#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// A card at 3b:00.0 with two of eight virtual functions, at 3b:00.1 and 3b:00.2.
class Card : public testing::Test {
 protected:
  static constexpr const char* kName = "0000:3b:00.0";

  Card() {
    pf = tree.device({.address = kName, .driver = "mlx5_core"});
    tree.file(pf / "sriov_totalvfs", "8\n");
    tree.file(pf / "sriov_numvfs", "2\n");
    tree.file(pf / "sriov_drivers_autoprobe", "1\n");
    tree.file("proc/self/mountinfo", "");
  }
  /// A virtual function with this driver; gives its folder.
  std::filesystem::path function(unsigned index, const std::string& driver) const {
    const std::string address = fmt::format("0000:3b:00.{}", index + 1);
    auto place = tree.device({.address = address, .driver = driver});
    tree.link(pf / fmt::format("virtfn{}", index), std::filesystem::path("..") / address);
    return place;
  }
  [[nodiscard]] std::string read(const char* name) const {
    std::ifstream file(tree.root() / pf / name);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  [[nodiscard]] static SriovDeclaration wanting(std::uint32_t count) {
    SriovDeclaration declaration;
    declaration.physical_function = kName;
    declaration.count = count;
    return declaration;
  }
  [[nodiscard]] Result<std::vector<SriovChange>> converge(const SriovDeclaration& wanted) const {
    return converge_sriov({wanted}, tree.sysfs(), tree.root());
  }
  /// The refusal of `wanted`, which has to leave all as it is.
  [[nodiscard]] VmError refusal(const SriovDeclaration& wanted) const {
    auto made = converge(wanted);
    EXPECT_EQ(read("sriov_numvfs"), "2\n") << "not touched";
    EXPECT_EQ(read("sriov_drivers_autoprobe"), "1\n") << "not touched";
    return made ? VmError(ErrorCode::Io, "", "", "(not refused)") : std::move(made.error());
  }

  /// One that fails after all else is done: the card has no network interface to set that through.
  [[nodiscard]] static SriovDeclaration failing(std::uint32_t count) {
    SriovDeclaration declaration = wanting(count);
    VfConfig config;
    config.trust = true;
    declaration.functions.emplace_back(0, config);
    return declaration;
  }

  test::FakeTree tree;
  std::filesystem::path pf;
};

/// What is written below a folder, file by file in order.
class Writes {
 public:
  explicit Writes(const std::filesystem::path& folder) : watch_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    EXPECT_GE(::inotify_add_watch(watch_.get(), folder.c_str(), IN_CLOSE_WRITE), 0);
  }
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> found;
    alignas(inotify_event) std::array<char, 4096> buffer;
    const ssize_t length = ::read(watch_.get(), buffer.data(), buffer.size());
    for (ssize_t at = 0; at < length;) {
      const auto* event = reinterpret_cast<const inotify_event*>(buffer.data() + at);
      found.emplace_back(event->name);
      at += static_cast<ssize_t>(sizeof(inotify_event)) + event->len;
    }
    return found;
  }

 private:
  Descriptor watch_;
};

TEST_F(Card, FunctionsInVfiosHandsAreNotDeleted) {
  function(0, "mlx5_core");
  function(1, "mlx5_vfio_pci");
  for (const std::uint32_t count : {0U, 1U, 4U}) {
    const VmError error = refusal(wanting(count));
    EXPECT_EQ(error.code(), ErrorCode::Busy) << count;
    EXPECT_EQ(error.detail(), PassthroughError::InUse);
    EXPECT_THAT(error.message(), AllOf(HasSubstr("vf 1 (0000:3b:00.2) is taken for a guest"),
                                       HasSubstr("mlx5_vfio_pci"), HasSubstr("vmp passthrough release 0000:3b:00.2")));
  }
}

TEST_F(Card, FunctionsThatTheHostUsesAreNotDeleted) {
  const auto disk = function(0, "nvme") / "nvme/nvme3/nvme3n1";
  tree.link(disk / "subsystem", "../../../class/block");
  tree.file(disk / "dev", "259:7\n");
  tree.file("proc/self/mountinfo", "22 1 259:7 / /srv rw,relatime - ext4 /dev/nvme3n1 rw\n");
  const auto net = function(1, "mlx5_core") / "net/eth7";
  tree.link(net / "subsystem", "../../../class/net");
  const VmError mounted = refusal(wanting(0));
  EXPECT_EQ(mounted.code(), ErrorCode::Busy);
  EXPECT_THAT(mounted.message(), AllOf(HasSubstr("vf 0 (0000:3b:00.1) is in use: nvme3n1 is mounted on /srv"),
                                       HasSubstr("end that use first")));
  tree.file("proc/self/mountinfo", "");
  tree.file("proc/net/route",
            "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
            "eth7 00000000 0102000A 0003 0 0 100 00000000 0 0 0\n");
  EXPECT_THAT(refusal(wanting(4)).message(), HasSubstr("vf 1 (0000:3b:00.2) is in use: eth7 has the default route"));
  tree.file("proc/net/route", "");
  EXPECT_TRUE(converge(wanting(0)));
  EXPECT_EQ(read("sriov_numvfs"), "0") << "nobody uses them any more";
}

TEST_F(Card, RefusalChangesNothingOfDriverProbing) {
  function(0, "vfio-pci");
  SriovDeclaration wanted = wanting(4);
  wanted.autoprobe = false;
  EXPECT_EQ(refusal(wanted).code(), ErrorCode::Busy);
  EXPECT_EQ(VfManager::open(kName, tree.sysfs(), tree.root())->resize(4, false).error().code(), ErrorCode::Busy);
  EXPECT_EQ(read("sriov_drivers_autoprobe"), "1\n");
}

TEST_F(Card, RefusalOfOneChangesNothingOfOthers) {
  function(0, "vfio-pci");
  const auto other = tree.device({.address = "0000:5e:00.0", .driver = "ice"});
  tree.file(other / "sriov_numvfs", "0\n");
  SriovDeclaration first = wanting(4);
  first.physical_function = "0000:5e:00.0";
  const auto made = converge_sriov({first, wanting(4)}, tree.sysfs(), tree.root());
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code(), ErrorCode::Busy);
  EXPECT_EQ(made.error().detail(), PassthroughError::InUse);
  EXPECT_EQ(VfManager::open("5e:00.0", tree.sysfs())->count(), 0U);
}

TEST_F(Card, DriverProbingIsPutBackBeforeTheNumber) {
  SriovDeclaration wanted = failing(3);
  wanted.autoprobe = false;
  const Writes writes(tree.root() / pf);
  const auto made = converge(wanted);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().detail(), PassthroughError::RolledBack);
  EXPECT_EQ(read("sriov_drivers_autoprobe"), "1");
  EXPECT_EQ(read("sriov_numvfs"), "2");
  const char *probing = "sriov_drivers_autoprobe", *number = "sriov_numvfs";
  EXPECT_THAT(writes.names(), ElementsAre(probing, number, probing, number))
      << "so that functions made anew get their drivers (equal ones in a row count as one)";
}

TEST_F(Card, WhatWasJustMadeIsTakenBackAlsoWhereTheHostHasFoundIt) {
  tree.file(pf / "sriov_numvfs", "0\n");
  const auto net = function(0, "mlx5_core") / "net/eth7";
  tree.link(net / "subsystem", "../../../class/net");
  tree.file("proc/net/route", "Iface\neth7 00000000 0102000A 0003 0 0 100 00000000 0 0 0\n");
  EXPECT_EQ(converge(failing(1)).error().detail(), PassthroughError::RolledBack);
  EXPECT_EQ(read("sriov_numvfs"), "0");
  function(1, "vfio-pci");
  EXPECT_EQ(converge(failing(2)).error().detail(), PassthroughError::RollbackFailed)
      << "the kernel could wait for ever";
}

TEST_F(Card, DriverProbingIsPartOfTheDifference) {
  SriovDeclaration wanted = wanting(2);
  wanted.autoprobe = false;
  const auto difference = [&] {
    const auto changes = diff_sriov({wanted}, tree.sysfs());
    std::vector<std::string> texts;
    for (const SriovChange& change : *changes) texts.push_back(change.what);
    return texts;
  };
  const char* text = "0000:3b:00.0: driver probing of new virtual functions on -> off";
  EXPECT_THAT(difference(), ElementsAre(text));
  const auto made = converge(wanted);
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->size(), 1U);
  EXPECT_EQ(read("sriov_drivers_autoprobe"), "0");
  EXPECT_THAT(difference(), IsEmpty());
  std::filesystem::remove(tree.root() / pf / "sriov_drivers_autoprobe");
  EXPECT_THAT(difference(), IsEmpty()) << "a bus without drivers for functions";
  EXPECT_TRUE(converge(wanted));
}

TEST_F(Card, SettingsAndTheSameNumberDeleteNothing) {
  function(0, "vfio-pci");
  function(1, "vfio-pci");
  EXPECT_TRUE(converge(wanting(2)));
  EXPECT_EQ(read("sriov_numvfs"), "2\n");
}

}  // namespace
}  // namespace vm_platform
