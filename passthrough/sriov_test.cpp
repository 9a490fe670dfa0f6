#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <cstring>
#include <vm_platform/sriov.hpp>

#include "passthrough/netlink_message.hpp"
#include "passthrough/test_tree.hpp"
#include "passthrough/vf_config.hpp"
#include "passthrough/vf_netlink.hpp"

namespace vm_platform {
namespace {

using test::Message;
using testing::HasSubstr;

TEST(VfNetlink, ReadsAReply) {
  Message message(sizeof(ifinfomsg));
  message.put(IFLA_NUM_VF, std::uint32_t{1});
  const auto list = message.begin(IFLA_VFINFO_LIST), info = message.begin(IFLA_VF_INFO);
  message.put(IFLA_VF_MAC, ifla_vf_mac{3, {0x52, 0x54, 0, 1, 2, 3}});
  const auto vlans = message.begin(IFLA_VF_VLAN_LIST);
  message.put(IFLA_VF_VLAN_INFO, ifla_vf_vlan_info{3, 100, 5, htons(0x88a8)});
  message.end(vlans);
  message.put(IFLA_VF_RATE, ifla_vf_rate{3, 10, 1000});
  message.put(IFLA_VF_SPOOFCHK, ifla_vf_spoofchk{3, 1});
  message.put(IFLA_VF_TRUST, ifla_vf_trust{3, 0xffffffff});
  message.put(IFLA_VF_LINK_STATE, ifla_vf_link_state{3, 2});
  message.put(IFLA_VF_IB_PORT_GUID, ifla_vf_guid{3, 0x0011223344556677});
  const auto stats = message.begin(IFLA_VF_STATS);
  message.put(IFLA_VF_STATS_RX_BYTES, std::uint64_t{77});
  message.end(stats);
  message.end(info);
  message.end(list);
  const auto reply = parse_vf_link(message.bytes());
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_EQ(reply->count, 1U);
  ASSERT_EQ(reply->functions.size(), 1U);
  const VfLinkInfo& vf = reply->functions[0];
  EXPECT_EQ(vf.index, 3U);
  EXPECT_EQ(vf.config.mac->to_string(), "52:54:00:01:02:03");
  EXPECT_EQ(vf.config.vlan, (VlanConfig{100, 5, VlanConfig::Protocol::Dot1ad}));
  EXPECT_EQ(vf.config.rate, (QosConfig{10, 1000}));
  EXPECT_EQ(vf.config.spoof_check, true);
  EXPECT_FALSE(vf.config.trust) << "the driver does not know";
  EXPECT_EQ(vf.config.link, VfLinkState::Disable);
  EXPECT_EQ(vf.config.port_guid->to_string(), "00:11:22:33:44:55:66:77");
  EXPECT_FALSE(vf.config.node_guid);
  EXPECT_EQ(vf.stats->rx_bytes, 77U);
}

TEST(VfNetlink, SurvivesDamage) {
  EXPECT_FALSE(parse_vf_link({}));
  Message message(sizeof(ifinfomsg));
  message.put(IFLA_NUM_VF, std::uint32_t{1});
  message.bytes()[NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(ifinfomsg))] = std::byte{200};
  EXPECT_EQ(parse_vf_link(message.bytes()).error().code(), ErrorCode::Corrupt);
}

TEST(VfConfig, MacAddresses) {
  EXPECT_TRUE(VfMacConfig::parse("52:54:00:AB:cd:ef"));
  for (const char* text : {"", "52:54:00:ab:cd", "52:54:00:ab:cd:ef:01", "52:54:00:ab:cd:eg", "52-54-00-ab-cd-ef",
                           "5:54:00:ab:cd:ef", "52:54:00:ab:cd:ef:"})
    EXPECT_FALSE(VfMacConfig::parse(text)) << text;
  EXPECT_THAT(VfMacConfig::parse("01:00:5e:00:00:01").error().message(), HasSubstr("multicast"));
}

TEST(VfConfig, Guids) {
  EXPECT_EQ(VfGuid::parse("00:11:22:33:44:55:66:7F")->value, 0x001122334455667fU);
  for (const char* text : {"", "00:11:22:33:44:55:66", "00:11:22:33:44:55:66:77:88", "00:00:00:00:00:00:00:00",
                           "00-11-22-33-44-55-66-77", "00:11:22:33:44:55:66:7g"})
    EXPECT_FALSE(VfGuid::parse(text)) << text;
}

TEST(VfConfig, WhatPuttingBackTakes) {
  VfConfig asked, before;
  asked.trust = true;
  asked.rate = QosConfig{0, 100};
  before.rate = QosConfig{0, 50};
  before.spoof_check = true;
  VfConfig expected;
  expected.rate = QosConfig{0, 50};
  EXPECT_EQ(former(asked, before), expected) << "what was not asked for, and what is not known, stays";
}

TEST(VfConfig, OnlyWhatIsAskedForIsCompared) {
  VfConfig wanted, actual;
  actual.trust = true;
  EXPECT_TRUE(compare(wanted, actual).empty());
  wanted.rate = QosConfig{0, 100};
  actual.rate = QosConfig{0, 96};
  ASSERT_EQ(compare(wanted, actual).size(), 1U);
  EXPECT_EQ(compare(wanted, actual)[0].wanted, "0 to 100 Mbit/s");
}

TEST(SriovFile, ReadsOne) {
  const auto file = parse_sriov_file(
      "physical_functions:\n  - device: 0000:3b:00.0\n    count: 4\n    autoprobe: false\n    vfs:\n"
      "      - {index: 0, mac: 52:54:00:00:00:01, vlan: 100, qos: 3, protocol: 802.1ad}\n"
      "      - index: 3\n        max_rate: 1000\n        trust: yes\n        link: disable\n"
      "  - device: eth5\n    count: 1\n    switchdev: true\n    rate_groups: [{name: guests, max_rate: 500}]\n"
      "    vfs: [{index: 0, rate_group: guests, node_guid: 00:11:22:33:44:55:66:77}]\n");
  ASSERT_TRUE(file) << file.error().message();
  ASSERT_EQ(file->size(), 2U);
  EXPECT_EQ((*file)[0].count, 4U);
  EXPECT_EQ((*file)[0].autoprobe, false);
  ASSERT_EQ((*file)[0].functions.size(), 2U);
  EXPECT_EQ((*file)[0].functions[0].second.vlan, (VlanConfig{100, 3, VlanConfig::Protocol::Dot1ad}));
  EXPECT_EQ((*file)[0].functions[1].first, 3U);
  EXPECT_EQ((*file)[0].functions[1].second.rate, (QosConfig{0, 1000}));
  EXPECT_EQ((*file)[1].physical_function, "eth5");
  EXPECT_EQ((*file)[1].switchdev, true);
  EXPECT_EQ((*file)[1].rate_groups, (std::vector<RateGroup>{{"guests", {0, 500}}}));
  EXPECT_EQ((*file)[1].functions[0].second.rate_group, "guests");
  EXPECT_EQ((*file)[1].functions[0].second.node_guid->value, 0x0011223344556677U);
}

TEST(SriovFile, ComplaintsNameTheLine) {
  const auto reason = [](const char* text) {
    const auto file = parse_sriov_file(text);
    return file ? std::string("(accepted)") : file.error().message();
  };
  EXPECT_THAT(reason(""), HasSubstr("empty"));
  EXPECT_THAT(reason("physical_functions: [\n"), HasSubstr("line 2"));
  EXPECT_THAT(reason("x: 1\n"), HasSubstr("physical_functions"));
  const std::string head = "physical_functions:\n  - device: eth0\n    count: 2\n    vfs:\n";
  EXPECT_THAT(reason((head + "      - {index: 2}\n").c_str()), HasSubstr("line 5"));
  EXPECT_THAT(reason((head + "      - {index: 0, vlan: 4095}\n").c_str()), HasSubstr("0 to 4094"));
  EXPECT_THAT(reason((head + "      - {index: 0, vlam: 1}\n").c_str()), HasSubstr("unknown setting 'vlam'"));
  EXPECT_THAT(reason((head + "      - {index: 0}\n      - {index: 0}\n").c_str()), HasSubstr("twice"));
  EXPECT_THAT(reason((head + "      - {index: 0, mac: 01:00:00:00:00:00}\n").c_str()), HasSubstr("multicast"));
  const std::string pf = "physical_functions:\n  - device: eth0\n    count: 2\n";
  EXPECT_THAT(reason((pf + "    rate_groups: [{name: a}, {name: a}]\n").c_str()), HasSubstr("name of its own"));
  EXPECT_THAT(reason((pf + "    rate_groups: [{name: a, rate: 1}]\n").c_str()), HasSubstr("unknown key 'rate'"));
  EXPECT_THAT(reason((head + "      - {index: 0, port_guid: 1}\n").c_str()), HasSubstr("eight bytes"));
  EXPECT_THAT(reason("a: &x [*x]\n"), HasSubstr("line 1"));
  EXPECT_THAT(reason((std::string(40, '[') + "\n").c_str()), HasSubstr("nested too deep"));
}

TEST(Sriov, LimitsAndMissingSupportAreNamed) {
  const test::FakeTree tree;
  const auto pf = tree.device({.address = "0000:3b:00.0", .driver = "mlx5_core"});
  tree.file(pf / "sriov_totalvfs", "8\n");
  tree.file(pf / "sriov_numvfs", "0\n");
  tree.device({.address = "0000:3b:00.1"});
  auto manager = VfManager::open("3b:00.0", tree.sysfs());
  ASSERT_TRUE(manager) << manager.error().message();
  EXPECT_EQ(manager->limit(), 8U);
  EXPECT_THAT(manager->resize(9).error().message(), HasSubstr("8 at most"));
  EXPECT_TRUE(manager->resize(3));
  EXPECT_EQ(manager->count(), 3U);
  EXPECT_EQ(manager->list()->size(), 3U);
  EXPECT_THAT(manager->apply(3, {}).error().message(), HasSubstr("it has 3"));
  VfConfig config;
  config.trust = true;
  EXPECT_EQ(manager->apply(0, config).error().code(), ErrorCode::Unsupported);
  EXPECT_EQ(VfManager::open("3b:00.1", tree.sysfs()).error().code(), ErrorCode::Unsupported);
  EXPECT_EQ(VfManager::open("3c:00.1", tree.sysfs()).error().code(), ErrorCode::NotFound);
  EXPECT_EQ(VfManager::open("../x", tree.sysfs()).error().code(), ErrorCode::InvalidArgument);
  EXPECT_EQ(SriovVfManager(tree.sysfs()).physical_functions()->size(), 1U);
  SriovDeclaration five;
  five.physical_function = "3b:00.0";
  five.count = 5;
  const auto diff = diff_sriov({five}, tree.sysfs());
  ASSERT_TRUE(diff);
  ASSERT_EQ(diff->size(), 1U);
  EXPECT_EQ((*diff)[0].what, "0000:3b:00.0: virtual functions 3 -> 5");
}

}  // namespace
}  // namespace vm_platform
