// What a change of the number of virtual functions may delete, and what is put back where it fails.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <vm_platform/passthrough.hpp>
#include <vm_platform/sriov.hpp>

#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// A card at 3b:00.0 with two of eight virtual functions, at 3b:00.1 and 3b:00.2.
class Card : public testing::Test {
 protected:
  static constexpr const char* kName = "0000:3b:00.0";

  Card() {
    pf = tree.device({.address = kName, .driver = "mlx5_core"});
    tree.file(pf / "sriov_totalvfs", "8\n");
    tree.file(pf / "sriov_numvfs", "2\n");
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
    return made ? VmError(ErrorCode::Io, "", "", "(not refused)") : std::move(made.error());
  }

  test::FakeTree tree;
  std::filesystem::path pf;
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

TEST_F(Card, SettingsAndTheSameNumberDeleteNothing) {
  function(0, "vfio-pci");
  function(1, "vfio-pci");
  EXPECT_TRUE(converge(wanting(2)));
  EXPECT_EQ(read("sriov_numvfs"), "2\n");
}

}  // namespace
}  // namespace vm_platform
