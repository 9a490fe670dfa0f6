#include "os/linux/uffd.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "os/mapping.hpp"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

namespace vm_platform::uffd {
namespace {

Descriptor raw_open() {
  // System calls of ours that write into the memory count too, so faults of the kernel are wanted; without the right
  // to those (vm.unprivileged_userfaultfd=0) there is the device node, and then nothing.
  Descriptor made(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (made) return made;
  const int error = errno;
  const Descriptor device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) {
    constexpr unsigned long kUserfaultfdNew = 0xAA00;  // USERFAULTFD_IOC_NEW, _IO(0xAA, 0)
    made = Descriptor(::ioctl(device.get(), kUserfaultfdNew, O_CLOEXEC | O_NONBLOCK));
    if (made) return made;
  }
  errno = error;
  return made;
}

}  // namespace

std::uint64_t features() {
  const Descriptor probe = raw_open();
  uffdio_api api{.api = UFFD_API, .features = 0, .ioctls = 0};
  return probe && ::ioctl(probe.get(), UFFDIO_API, &api) == 0 ? api.features : 0;
}

Result<Descriptor> open(std::uint64_t wanted) {
  Descriptor made = raw_open();
  // Where writes are only recorded no fault is delivered, so those of the kernel need not be asked for to count.
  if (!made && (wanted & kFeatureWpAsync) != 0) {
    const int flags = O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY;
    made = Descriptor(static_cast<int>(::syscall(SYS_userfaultfd, flags)));
  }
  if (!made) {
    return fail(VmError::from_os(errno, "userfaultfd", "")
                    .with_hint("allow it: sysctl -w vm.unprivileged_userfaultfd=1, or run with CAP_SYS_PTRACE"));
  }
  uffdio_api api{.api = UFFD_API, .features = wanted, .ioctls = 0};
  if (::ioctl(made.get(), UFFDIO_API, &api) == 0) return made;
  return fail(ErrorCode::Unsupported, "userfaultfd", "features", "this kernel does not have them");
}

Result<void> watch(const Descriptor& uffd, std::span<std::byte> range) {
  uffdio_register request{.range = {.start = reinterpret_cast<std::uintptr_t>(range.data()), .len = range.size()},
                          .mode = UFFDIO_REGISTER_MODE_WP,
                          .ioctls = 0};
  if (::ioctl(uffd.get(), UFFDIO_REGISTER, &request) == 0) return {};
  return fail(VmError::from_os(errno, "UFFDIO_REGISTER", describe_range("memory", range.size(), range.data())));
}

void unwatch(const Descriptor& uffd, std::span<std::byte> range) {
  uffdio_range request{.start = reinterpret_cast<std::uintptr_t>(range.data()), .len = range.size()};
  (void)::ioctl(uffd.get(), UFFDIO_UNREGISTER, &request);
}

Result<void> protect(const Descriptor& uffd, const std::byte* from, std::uint64_t size, bool on) {
  uffdio_writeprotect request{.range = {.start = reinterpret_cast<std::uintptr_t>(from), .len = size},
                              .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
  while (::ioctl(uffd.get(), UFFDIO_WRITEPROTECT, &request) != 0) {
    if (errno == EAGAIN || errno == EINTR) continue;  // the mapping is changing under us
    return fail(VmError::from_os(errno, "UFFDIO_WRITEPROTECT", describe_range("memory", size, from)));
  }
  return {};
}

}  // namespace vm_platform::uffd
