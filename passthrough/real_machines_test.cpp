// Identity, relations and classification on dumps of real machines, which are read where they are and not part of this
// repository.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <vm_platform/gpu.hpp>
#include <vm_platform/npu.hpp>
#include <vm_platform/passthrough.hpp>

#include "passthrough/test_tree.hpp"

namespace vm_platform {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::filesystem::path dump(const char* name) { return std::filesystem::path(VM_PLATFORM_PCI_DUMPS) / name; }

std::vector<PciDeviceInfo> read_dump(const char* name) {
  std::ostringstream text;
  text << std::ifstream(dump(name)).rdbuf();
  auto functions = parse_pci_dump(text.str());
  if (!functions) ADD_FAILURE() << functions.error().message();
  return functions ? std::move(*functions) : std::vector<PciDeviceInfo>{};
}

const PciDeviceInfo& at(const std::vector<PciDeviceInfo>& functions, const char* address) {
  static const PciDeviceInfo none;
  const auto found = std::ranges::find(functions, *PciAddress::parse(address), &PciDeviceInfo::address);
  EXPECT_NE(found, functions.end()) << address;
  return found == functions.end() ? none : *found;
}

std::map<DeviceType, int> kinds(const std::vector<PciDeviceInfo>& functions) {
  std::map<DeviceType, int> counts;
  for (const PciDeviceInfo& function : functions) ++counts[classify(function)];
  return counts;
}

/// Every identity leads back to its function.
void expect_unique_identities(const std::vector<PciDeviceInfo>& functions) {
  for (const PciDeviceInfo& function : functions) {
    const auto found = find_device(identify(function), functions);
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_EQ(*found, function.address);
  }
}

TEST(RealMachines, DgxA100) {
  if (!std::filesystem::exists(dump("NVIDIA_DGXA100.txt"))) GTEST_SKIP() << "no dump";
  const auto functions = read_dump("NVIDIA_DGXA100.txt");
  expect_unique_identities(functions);
  const auto gpus = GpuPassthrough::select(functions);
  std::size_t a100 = 0;
  for (const GpuConfig& gpu : gpus) {
    if (gpu.device.vendor != NvidiaGpuPassthrough::kVendor) continue;
    ++a100;
    EXPECT_EQ(gpu.device.device, 0x20b0);
    EXPECT_FALSE(gpu.needs_vga) << "3D controllers have no VGA";
    EXPECT_FALSE(gpu.hide_hypervisor);
    EXPECT_TRUE(gpu.companions.empty());
    EXPECT_TRUE(gpu.reset.avoided.empty()) << "A100 is none of those without bus reset";
  }
  EXPECT_EQ(a100, 8U);
  EXPECT_EQ(gpus.size(), 9U) << "and the board's own display";
  const PciDeviceInfo& first = at(functions, "0000:07:00.0");
  EXPECT_EQ(topology_of(first.device_path), "pci0000:00/01.1/00.0/00.0/00.0/00.0/00.0/00.0/00.0");
  ASSERT_TRUE(first.parent);
  EXPECT_EQ(first.parent->to_string(), "0000:06:00.0");
  EXPECT_EQ(classify(first), DeviceType::Gpu);
  std::size_t switches = 0, connectx = 0;
  for (const PciDeviceInfo& function : functions) {
    if (function.vendor == 0x10de && function.device == 0x1af1) {
      ++switches;
      EXPECT_EQ(classify(function), DeviceType::Bridge) << "NVSwitch";
    }
    if (function.vendor == 0x15b3) {
      ++connectx;
      EXPECT_EQ(classify(function), DeviceType::Network);
    }
    if (function.vendor == 0x1022 && function.device == 0x148c) {
      EXPECT_EQ(device_quirks(function).size(), 1U);
    }
  }
  EXPECT_EQ(switches, 6U);
  EXPECT_EQ(connectx, 10U);
}

TEST(RealMachines, LunarLakeWithItsNpu) {
  if (!std::filesystem::exists(dump("IPU7_DRIVER.txt"))) GTEST_SKIP() << "no dump";
  const auto functions = read_dump("IPU7_DRIVER.txt");
  expect_unique_identities(functions);
  const auto npus = NpuPassthrough::select(functions);
  ASSERT_EQ(npus.size(), 1U);
  EXPECT_EQ(npus[0].device.address.to_string(), "0000:00:0b.0");
  EXPECT_EQ(npus[0].device.driver, "intel_vpu");
  EXPECT_THAT(npus[0].family, HasSubstr("Lunar Lake"));
  EXPECT_THAT(npus[0].accel_nodes, ElementsAre("accel0"));
  EXPECT_EQ(classify(npus[0].device), DeviceType::Npu);
  const auto gpus = GpuPassthrough::select(functions);
  ASSERT_EQ(gpus.size(), 1U);
  EXPECT_EQ(gpus[0].device.driver, "xe");
  ASSERT_EQ(gpus[0].quirks.size(), 1U);
  EXPECT_THAT(std::string(gpus[0].quirks[0]->what), HasSubstr("OpRegion"));
}

TEST(RealMachines, EightVectorEngines) {
  const auto archive = dump("32intel64-2p8co2t+8ve.tar.bz2");
  if (!std::filesystem::exists(archive)) GTEST_SKIP() << "no dump";
  const test::FakeTree tree;
  const std::string unpack = "tar xjf '" + archive.string() + "' -C '" + tree.root().string() +
                             "' --strip-components=1 --wildcards '*/sys/bus/pci*' '*/sys/devices/pci*'";
  if (std::system(unpack.c_str()) != 0) GTEST_SKIP() << "it could not be unpacked";
  const auto functions = scan_pci(tree.sysfs());
  ASSERT_TRUE(functions) << functions.error().message();
  EXPECT_EQ(functions->size(), 28U);
  expect_unique_identities(*functions);
  const auto npus = NpuPassthrough::list(tree.sysfs());
  ASSERT_TRUE(npus);
  ASSERT_EQ(npus->size(), 8U) << "co-processors by class, known by their IDs";
  for (const NpuConfig& npu : *npus) {
    EXPECT_EQ(npu.device.driver, "ve_drv");
    EXPECT_THAT(npu.family, HasSubstr("Vector Engine"));
    EXPECT_EQ(npu.device.class_code, 0x0b4000U);
  }
  EXPECT_EQ((*npus)[0].device.address.to_string(), "0000:1b:00.0");
  EXPECT_EQ((*npus)[0].device.parent->to_string(), "0000:19:08.0");
  EXPECT_EQ(topology_of((*npus)[4].device.device_path), "pci0000:3a/00.0/00.0/04.0/00.0");
  auto counts = kinds(*functions);
  EXPECT_EQ(counts[DeviceType::Npu], 8);
  EXPECT_EQ(counts[DeviceType::Bridge], 16);
  EXPECT_EQ(counts[DeviceType::Network], 4) << "X722 and, by their InfiniBand class, ConnectX";
  EXPECT_EQ(at(*functions, "0000:60:00.0").sriov_total, 64);
}

/// A scan reads of configuration space only what is decoded: that has to be all of it.
TEST(RealMachines, AScanDecodesAsMuchAsTheWholeConfigurationSpaceHas) {
  if (!std::filesystem::exists(dump("pciutils-tests"))) GTEST_SKIP() << "no dumps";
  const auto decoded = [](const ConfigSpace& config, const PciCapabilities& capabilities) {
    std::vector<std::string> lines;
    for (const PciCapability& capability : capabilities.list) {
      std::string line = std::to_string(capability.offset) + " " + capability_name(capability);
      for (const PciField& field : describe_capability(config, capability))
        line += "; " + field.name + " " + field.value;
      lines.push_back(line);
    }
    return lines;
  };
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dump("pciutils-tests"))) {
    std::ostringstream text;
    text << std::ifstream(entry.path()).rdbuf();
    const auto functions = parse_pci_dump(text.str());
    if (!functions) continue;
    for (const PciDeviceInfo& whole : *functions) {
      if (whole.config.size() < 64) continue;
      const test::FakeTree tree;
      const auto bytes = whole.config.bytes();
      tree.device({.address = "0000:00:01.0", .config = {bytes.begin(), bytes.end()}});
      const auto scanned = scan_pci(tree.sysfs());
      ASSERT_TRUE(scanned);
      const PciDeviceInfo& found = scanned->front();
      EXPECT_EQ(decoded(found.config, found.capabilities), decoded(whole.config, whole.capabilities))
          << entry.path() << " " << whole.address.to_string();
      EXPECT_EQ(found.capabilities.anomalies, whole.capabilities.anomalies) << entry.path();
      ++compared;
    }
  }
  EXPECT_GT(compared, 50);
}

}  // namespace
}  // namespace vm_platform
