// The system calls that VFIO and iommufd are made of, behind an interface so that tests can stand in for a kernel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// Stateless; may be used from several threads. What a descriptor names is read, written and mapped directly.
class VfioSystem {
 public:
  VfioSystem() = default;
  VfioSystem(const VfioSystem&) = delete;
  VfioSystem& operator=(const VfioSystem&) = delete;
  virtual ~VfioSystem() = default;

  /// open(2) for reading and writing, closed on exec: a descriptor that the caller owns, or -1 and errno.
  virtual int open(const char* path) = 0;
  /// ioctl(2), repeated when a signal interrupts it.
  virtual int ioctl(int descriptor, unsigned long request, void* argument) = 0;

  /// For the requests whose argument is a number.
  int ioctl_value(int descriptor, unsigned long request, std::uintptr_t value) {
    return ioctl(descriptor, request, reinterpret_cast<void*>(value));  // NOLINT(performance-no-int-to-ptr)
  }
  /// This host's own.
  static VfioSystem& kernel();
};

/// Asks twice: the kernel says in `argsz` how long its answer is, and some drivers refuse to be offered more than that.
/// `T` starts with `__u32 argsz`; `ask` fills in what identifies the question.
template <typename T>
Result<std::vector<std::byte>> vfio_ask(VfioSystem& system, int descriptor, unsigned long request, const T& ask,
                                        const char* operation, const std::string& subject) {
  std::vector<std::byte> answer(sizeof(T));
  for (;;) {
    T head = ask;
    head.argsz = static_cast<decltype(head.argsz)>(answer.size());
    std::memcpy(answer.data(), &head, sizeof(T));
    if (system.ioctl(descriptor, request, answer.data()) < 0) return fail(VmError::from_os(errno, operation, subject));
    std::memcpy(&head, answer.data(), sizeof(T));
    if (head.argsz <= answer.size() || head.argsz > (1U << 20)) return answer;
    answer.assign(head.argsz, std::byte{});
  }
}

}  // namespace vm_platform
