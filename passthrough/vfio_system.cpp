#include "passthrough/vfio_system.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace vm_platform {
namespace {

class KernelVfioSystem final : public VfioSystem {
 public:
  int open(const char* path) override { return ::open(path, O_RDWR | O_CLOEXEC); }
  int ioctl(int descriptor, unsigned long request, void* argument) override {
    int result = 0;
    do {
      result = ::ioctl(descriptor, request, argument);
    } while (result < 0 && errno == EINTR);
    return result;
  }
};

}  // namespace

VfioSystem& VfioSystem::kernel() {
  static KernelVfioSystem system;
  return system;
}

}  // namespace vm_platform
