// What the lab's tests share: a device opened by an address in the environment, an event to wait for.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vm_platform/pci.hpp>

#include "passthrough/sysfs.hpp"

namespace vm_platform::lab {

/// An eventfd, and whether it was signalled.
class Event {
 public:
  Event() : descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  [[nodiscard]] int get() const { return descriptor_.get(); }
  bool wait(int milliseconds = 3000) const {
    pollfd poll_descriptor{descriptor_.get(), POLLIN, 0};
    if (::poll(&poll_descriptor, 1, milliseconds) != 1) return false;
    std::uint64_t count = 0;
    return ::read(descriptor_.get(), &count, sizeof count) == sizeof count && count > 0;
  }

 private:
  Descriptor descriptor_;
};

struct Opened {
  std::unique_ptr<VfioHost> host;
  std::unique_ptr<VfioDevice> device;
};

inline Opened open_device(const char* variable) {
  Opened opened;
  const char* address = std::getenv(variable);
  if (address == nullptr) return opened;
  auto host = VfioHost::open();
  EXPECT_TRUE(host) << host.error().message();
  if (!host) return opened;
  auto device = (*host)->open_device(*PciAddress::parse(address));
  EXPECT_TRUE(device) << device.error().message();
  if (!device) return opened;
  opened.host = std::move(*host);
  opened.device = std::move(*device);
  return opened;
}

#define OPEN(name, variable)                                                            \
  auto name = open_device(variable);                                                    \
  if (std::getenv(variable) == nullptr) GTEST_SKIP() << "no " << (variable) << " here"; \
  ASSERT_NE(name.device, nullptr)

inline void bus_master_on(VfioDevice& device) {
  const auto command = device.config_read(4, 2);
  ASSERT_TRUE(command);
  ASSERT_TRUE(device.config_write(4, 2, *command | 6));
}

/// The function that the lab's script names in `variable`.
inline PciAddress address(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? PciAddress{} : PciAddress::parse(text).value_or(PciAddress{});
}

}  // namespace vm_platform::lab
