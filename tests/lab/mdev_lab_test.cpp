// Mediated devices: the kernel's samples, whose regions lie where no hardware's do. Run by tests/lab/vfio.sh with the
// UUIDs in the environment.
#include <array>
#include <vm_platform/memory.hpp>

#include "tests/lab/vfio_lab.hpp"

namespace vm_platform::lab {
namespace {

struct Sample {
  const char* variable;
  std::uint16_t vendor, device;
};

class Mdev : public testing::TestWithParam<Sample> {};

TEST_P(Mdev, OpensMapsAndReads) {
  const char* uuid = std::getenv(GetParam().variable);
  if (uuid == nullptr) GTEST_SKIP() << "the sample modules are not here";
  auto host = VfioHost::open();
  ASSERT_TRUE(host) << host.error().message();
  const auto device = (*host)->open_mediated(uuid);
  ASSERT_TRUE(device) << device.error().message();
  const auto config = (*device)->config_space();
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->u16(0), GetParam().vendor);
  EXPECT_EQ(config->u16(2), GetParam().device);
  auto memory = MappedMemory::create_shared(4 * kPageSize, "dma");
  ASSERT_TRUE(memory);
  const auto mapped = (*host)->container().map(Iova(0x100000), memory->bytes(), DmaAccess::ReadWrite);
  EXPECT_TRUE(mapped) << mapped.error().message();
  EXPECT_EQ((*host)->container().unmap(Iova(0x100000), 4 * kPageSize), 4 * kPageSize);
  // Some region besides configuration space can be read, at whatever offset the driver put it.
  std::size_t read = 0;
  for (std::uint32_t index = 0; index < (*device)->region_count(); ++index) {
    const auto region = (*device)->region(index);
    if (!region || index == VfioRegion::kConfig || !region->readable) continue;
    std::uint32_t value = 0;
    if ((*device)->read(index, 0, std::as_writable_bytes(std::span(&value, 1)))) ++read;
    if (!region->mappable) continue;
    const auto bar = (*device)->map(index, 0, kPageSize);
    ASSERT_TRUE(bar) << bar.error().message();
    bar->store<std::uint32_t>(0, 0x11223344);
    EXPECT_EQ(bar->load<std::uint32_t>(0), 0x11223344U);
  }
  EXPECT_GT(read, 0U);
}

INSTANTIATE_TEST_SUITE_P(Samples, Mdev,
                         testing::Values(Sample{"MTTY", 0x4348, 0x3253}, Sample{"MBOCHS", 0x1234, 0x1111},
                                         Sample{"MDPY", 0x1b36, 0x000f}),
                         [](const auto& sample) { return std::string(sample.param.variable); });

}  // namespace
}  // namespace vm_platform::lab
