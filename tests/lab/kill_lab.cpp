// Takes or releases a device and kills itself before the N-th step: kill_lab take|force-take|release|recover N STATE
// ADDRESS; or has a device open, as a guest that does not let go of it would: kill_lab hold 0 - ADDRESS
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vm_platform/passthrough.hpp>
#include <vm_platform/vfio.hpp>

int main(int argc, char** argv) {
  using namespace vm_platform;
  if (argc != 5) return 2;
  const std::string verb = argv[1];
  int left = std::atoi(argv[2]);
  const auto address = PciAddress::parse(argv[4]);
  if (!address) return 2;
  PassthroughOptions options;
  options.state = argv[3];
  options.on_step = [&](std::string_view step) {
    if (left-- > 0) return;
    std::printf("killed before: %.*s\n", static_cast<int>(step.size()), step.data());
    std::fflush(stdout);
    ::raise(SIGKILL);
  };
  PassthroughManager manager(options);
  const auto complain = [](const VmError& error) {
    std::printf("%s\n", error.message().c_str());
    return 1;
  };
  if (verb == "hold") {
    auto host = VfioHost::open();
    if (!host) return complain(host.error());
    const auto device = (*host)->open_device(*address);
    if (!device) return complain(device.error());
    std::printf("held\n");
    std::fflush(stdout);
    ::pause();
  }
  if (verb == "take" || verb == "force-take") {
    const auto plan = manager.plan({&*address, 1});
    if (!plan) return complain(plan.error());
    if (const auto taken = manager.take(*plan, verb == "force-take"); !taken) return complain(taken.error());
  } else if (verb == "release") {
    if (const auto released = manager.release(*address); !released) return complain(released.error());
  } else if (const auto recovered = manager.recover(); !recovered) {
    return complain(recovered.error());
  }
  return 0;
}
