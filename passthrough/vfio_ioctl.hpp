// ioctl on a descriptor, repeated when a signal interrupts it.
#pragma once

#include <sys/ioctl.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

template <typename T>
int vfio_ioctl(int descriptor, unsigned long request, T argument) {
  int result = 0;
  do {
    result = ::ioctl(descriptor, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

/// Asks twice: the kernel says in `argsz` how long its answer is, and some drivers refuse to be offered more than that.
/// `T` starts with `__u32 argsz`; `ask` fills in what identifies the question.
template <typename T>
Result<std::vector<std::byte>> vfio_ask(int descriptor, unsigned long request, const T& ask, const char* operation,
                                        const std::string& subject) {
  std::vector<std::byte> answer(sizeof(T));
  for (;;) {
    T head = ask;
    head.argsz = static_cast<decltype(head.argsz)>(answer.size());
    std::memcpy(answer.data(), &head, sizeof(T));
    if (vfio_ioctl(descriptor, request, answer.data()) < 0) return fail(VmError::from_os(errno, operation, subject));
    std::memcpy(&head, answer.data(), sizeof(T));
    if (head.argsz <= answer.size() || head.argsz > (1U << 20)) return answer;
    answer.assign(head.argsz, std::byte{});
  }
}

}  // namespace vm_platform
