// Virtual functions in VFIO's hands: one whose physical function has its own driver, and those of a physical function
// that vfio-pci drives too, which need a token. Run by tests/lab/sriov.sh with the addresses in VF and VFIO_PF.
#include <array>
#include <vm_platform/sriov.hpp>

#include "tests/lab/vfio_lab.hpp"

namespace vm_platform::lab {
namespace {

VfioOptions with_token(std::optional<std::string> token) {
  VfioOptions options;
  options.vf_token = std::move(token);
  return options;
}

TEST(Vf, OpensResetsAndHasTheInterruptsItWasGiven) {
  OPEN(vf, "VF");
  const auto bar = vf.device->map(0, 0, kPageSize);
  ASSERT_TRUE(bar) << bar.error().message();
  constexpr std::uint64_t kStatus = 0x1c;  // the one register that a controller without resources answers for
  EXPECT_NE(bar->load<std::uint32_t>(kStatus), 0xffffffffU);
  ASSERT_TRUE(vf.device->can_reset());
  EXPECT_TRUE(vf.device->reset());
  const auto msix = vf.device->irq_info(VfioIrq::Msix);
  ASSERT_TRUE(msix);
  const Event event;
  const auto on = vf.device->enable_irq(VfioIrq::Msix, std::array{event.get()});
  // Without flexible resources assigned to it the controller has no vectors: that is an answer, not a failure.
  EXPECT_EQ(on.has_value(), msix->count != 0);
  if (!on) {
    EXPECT_EQ(on.error().code(), ErrorCode::Unsupported);
  }
  EXPECT_EQ(vf.device->irq_info(VfioIrq::Intx)->count, 0U) << "virtual functions have no INTx";
  EXPECT_EQ(vf.device->set_vf_token("6ba7b810-9dad-11d1-80b4-00c04fd430c8").error().code(), ErrorCode::Unsupported);
}

TEST(Vf, OfAPhysicalFunctionInVfioNeedTheToken) {
  OPEN(pf, "VFIO_PF");
  const std::string token = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
  const auto set = pf.device->set_vf_token(token);
  ASSERT_TRUE(set) << set.error().message();
  auto manager = VfManager::open(std::getenv("VFIO_PF"));
  ASSERT_TRUE(manager) << manager.error().message();
  const auto made = manager->resize(2);
  ASSERT_TRUE(made) << made.error().message();
  const auto functions = manager->list();
  ASSERT_TRUE(functions);
  const PciAddress vf = functions->front().address.value();
  EXPECT_EQ(functions->front().driver, "vfio-pci") << "those of a physical function in VFIO stay with it";
  for (const char* wrong : {"", "00000000-0000-0000-0000-000000000001"}) {
    auto host = VfioHost::open(with_token(*wrong == '\0' ? std::nullopt : std::optional<std::string>(wrong)));
    ASSERT_TRUE(host);
    const auto refused = (*host)->open_device(vf);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::PermissionDenied) << refused.error().message();
    EXPECT_THAT(refused.error().message(), testing::HasSubstr("VF token"));
  }
  {
    auto host = VfioHost::open(with_token(token));
    ASSERT_TRUE(host);
    const auto opened = (*host)->open_device(vf);
    ASSERT_TRUE(opened) << opened.error().message();
    EXPECT_EQ((*opened)->config_space()->u16(0), 0x1b36) << "VFIO fills in the identity that a function itself lacks";
  }
}

}  // namespace
}  // namespace vm_platform::lab
