// How long a plan takes for a group of 16 functions: on a made-up sysfs tree, with this host's own processes looked
// through for who uses them. Prints milliseconds.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vm_platform/passthrough.hpp>

#include "passthrough/test_tree.hpp"

int main() {
  using namespace vm_platform;
  const test::FakeTree tree;
  for (int function = 0; function < 16; ++function) {
    tree.device({.address = "0000:3b:0" + std::to_string(function / 8) + "." + std::to_string(function % 8),
                 .driver = "mlx5_core",
                 .group = 7,
                 .config = test::ConfigBuilder().header(0x15b3, 0x1017, 0x020000).express(0).bytes()});
  }
  tree.file("sys/bus/pci/drivers/vfio-pci/bind", "");
  PassthroughOptions options;
  options.sysfs = tree.sysfs();
  const PassthroughManager manager(options);
  const PciAddress address{0, 0x3b, 0, 0};
  double best = 1e9;
  for (int round = 0; round < 20; ++round) {
    const auto start = std::chrono::steady_clock::now();
    const auto plan = manager.plan({&address, 1});
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    if (!plan || plan->devices.size() != 16) {
      std::fprintf(stderr, "plan_benchmark: %s\n", plan ? "a device is missing" : plan.error().message().c_str());
      return 1;
    }
    best = std::min(best, took.count());
  }
  std::printf("%.3f\n", best);
  return 0;
}
