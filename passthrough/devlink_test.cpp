#include "passthrough/devlink.hpp"

#include <gtest/gtest.h>
#include <linux/devlink.h>
#include <linux/genetlink.h>

#include "passthrough/netlink_message.hpp"

namespace vm_platform {
namespace {

const DevlinkHandle kHandle{"pci", "0000:3b:00.0"};

test::Message reply(std::uint8_t command, const std::string& device = "0000:3b:00.0") {
  test::Message message(GENL_HDRLEN);
  message.bytes()[NLMSG_HDRLEN] = std::byte{command};
  message.put_text(DEVLINK_ATTR_BUS_NAME, "pci").put_text(DEVLINK_ATTR_DEV_NAME, device);
  return message;
}

TEST(Devlink, RatesAreOfAPortOrOfANode) {
  auto leaf = reply(DEVLINK_CMD_RATE_NEW);
  leaf.put(DEVLINK_ATTR_PORT_INDEX, std::uint32_t{7})
      .put(DEVLINK_ATTR_RATE_TX_SHARE, std::uint64_t{125000})
      .put(DEVLINK_ATTR_RATE_TX_MAX, std::uint64_t{125000000})
      .put_text(DEVLINK_ATTR_RATE_PARENT_NODE_NAME, "guests");
  EXPECT_EQ(parse_devlink_rate(leaf.bytes(), kHandle), (DevlinkRate{7, "", "guests", {1, 1000}}));
  auto node = reply(DEVLINK_CMD_RATE_GET);
  node.put_text(DEVLINK_ATTR_RATE_NODE_NAME, "guests");
  EXPECT_EQ(parse_devlink_rate(node.bytes(), kHandle), (DevlinkRate{{}, "guests", "", {}}));
  EXPECT_FALSE(parse_devlink_rate(reply(DEVLINK_CMD_RATE_GET).bytes(), kHandle)) << "neither";
  auto other = reply(DEVLINK_CMD_RATE_GET, "0000:3b:00.1");
  other.put_text(DEVLINK_ATTR_RATE_NODE_NAME, "guests");
  EXPECT_FALSE(parse_devlink_rate(other.bytes(), kHandle)) << "a dump is of all devices";
}

TEST(Devlink, PortsOfVirtualFunctions) {
  auto port = reply(DEVLINK_CMD_PORT_NEW);
  port.put(DEVLINK_ATTR_PORT_INDEX, std::uint32_t{9})
      .put(DEVLINK_ATTR_PORT_FLAVOUR, std::uint16_t{DEVLINK_PORT_FLAVOUR_PCI_VF})
      .put(DEVLINK_ATTR_PORT_PCI_VF_NUMBER, std::uint16_t{2});
  const auto read = parse_devlink_port(port.bytes(), kHandle);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->port, 9U);
  EXPECT_EQ(read->vf, 2U);
  auto uplink = reply(DEVLINK_CMD_PORT_NEW);
  uplink.put(DEVLINK_ATTR_PORT_INDEX, std::uint32_t{1})
      .put(DEVLINK_ATTR_PORT_FLAVOUR, std::uint16_t{DEVLINK_PORT_FLAVOUR_PHYSICAL});
  EXPECT_FALSE(parse_devlink_port(uplink.bytes(), kHandle));
}

TEST(Devlink, DamageIsNoAnswer) {
  auto node = reply(DEVLINK_CMD_RATE_GET);
  node.put_text(DEVLINK_ATTR_RATE_NODE_NAME, "guests");
  for (std::size_t length = 0; length + 1 < node.bytes().size(); ++length)
    (void)parse_devlink_rate(std::span(node.bytes()).first(length), kHandle);
  node.bytes()[NLMSG_HDRLEN + GENL_HDRLEN] = std::byte{255};
  EXPECT_FALSE(parse_devlink_rate(node.bytes(), kHandle));
}

}  // namespace
}  // namespace vm_platform
