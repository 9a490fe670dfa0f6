#include "os/linux/kvm_probe.hpp"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vm_platform/memory.hpp>

#include "os/linux/descriptor.hpp"
#include "os/timer_host.hpp"

namespace vm_platform {
namespace {

// A program whose timer is faster than what it interrupts is waited for no longer.
constexpr int kMostInterruptions = 1000;

/// KVM's ioctls have one optional argument, a number or a pointer. Any of them may end with EINTR, also where the
/// program has no handler: KVM_CREATE_VM, for one, takes locks that a waiting signal breaks off.
template <typename Argument = int>
int call(const Descriptor& on, unsigned long request, Argument argument = 0) {
  for (int interruptions = 0;; ++interruptions) {
    const int result = ::ioctl(on.get(), request, argument);
    if (result >= 0 || errno != EINTR || interruptions == kMostInterruptions) return result;
  }
}

#if defined(__x86_64__)

// A guest of one page of code and three page tables that map its first 2 MiB onto themselves (AMD64 volume 2, 5.3).
constexpr std::uint64_t kCode = 0x4000, kPml4 = 0x1000, kPdpt = 0x2000, kPd = 0x3000, kGuestSize = 0x5000;
// 64-bit code, because an emulated KVM may run 16-bit code well enough:
//   mov ecx, rounds;  1: dec rcx; jnz 1b;  2: out 0x10, al; jmp 2b
constexpr std::uint32_t kRounds = 3000;
constexpr std::uint64_t kInstructions = 2 * std::uint64_t{kRounds} + 2;
constexpr std::array<std::uint8_t, 14> kProgram = {0xb9, kRounds & 0xff, kRounds >> 8, 0,    0,    0x48, 0xff,
                                                   0xc9, 0x75,           0xfb,         0xe6, 0x10, 0xeb, 0xfc};
constexpr std::uint64_t kLoopEnd = kCode + 10;
constexpr int kExits = 15;
/// Real hardware runs this loop at thousands of millions per second, software inside the kernel at one or two; a good
/// nested one loses little. Whatever is below was not worth having.
constexpr double kEmulationSpeed = 60;

bool enter_long_mode(const Descriptor& vcpu) {
  kvm_sregs special{};
  if (call(vcpu, KVM_GET_SREGS, &special) != 0) return false;
  const auto segment = [](std::uint8_t type, std::uint16_t selector, bool code) {
    kvm_segment value{};
    value.limit = 0xffffffff;
    value.selector = selector;
    value.type = type;
    value.present = 1;
    value.s = 1;
    value.g = 1;
    value.l = code ? 1 : 0;
    value.db = code ? 0 : 1;
    return value;
  };
  special.cs = segment(11, 8, true);
  special.ds = special.es = special.fs = special.gs = special.ss = segment(3, 16, false);
  special.cr3 = kPml4;
  special.cr4 |= 1U << 5;              // PAE
  special.cr0 |= 1U | 1U << 31;        // PE, PG
  special.efer |= 1U << 8 | 1U << 10;  // LME, LMA
  return call(vcpu, KVM_SET_SREGS, &special) == 0;
}

bool jump(const Descriptor& vcpu, std::uint64_t to) {
  kvm_regs registers{};
  registers.rip = to;
  registers.rflags = 2;
  return call(vcpu, KVM_SET_REGS, &registers) == 0;
}

std::string run_guest(const Descriptor& kvm, const Descriptor& vm, KvmState& state) {
  auto memory = MappedMemory::create_private(kGuestSize);
  if (!memory) return memory.error().message();
  const auto put = [&](std::uint64_t at, std::uint64_t value) { std::memcpy(memory->data() + at, &value, 8); };
  put(kPml4, kPdpt | 3);
  put(kPdpt, kPd | 3);
  put(kPd, 0x83);  // present, writable, 2 MiB page
  std::memcpy(memory->data() + kCode, kProgram.data(), kProgram.size());
  kvm_userspace_memory_region region{.slot = 0,
                                     .flags = 0,
                                     .guest_phys_addr = 0,
                                     .memory_size = kGuestSize,
                                     .userspace_addr = reinterpret_cast<std::uintptr_t>(memory->data())};
  if (call(vm, KVM_SET_USER_MEMORY_REGION, &region) != 0) return std::string("memory: ") + std::strerror(errno);
  const Descriptor vcpu(call(vm, KVM_CREATE_VCPU));
  if (!vcpu) return std::string("vCPU: ") + std::strerror(errno);
  const int length = call(kvm, KVM_GET_VCPU_MMAP_SIZE);
  void* mapped = length <= 0 ? MAP_FAILED
                             : ::mmap(nullptr, static_cast<std::size_t>(length), PROT_READ | PROT_WRITE, MAP_SHARED,
                                      vcpu.get(), 0);
  if (mapped == MAP_FAILED) return std::string("vCPU: ") + std::strerror(errno);
  const auto* run = static_cast<const kvm_run*>(mapped);
  std::string problem;
  std::array<std::uint64_t, kExits> exits{};
  if (!enter_long_mode(vcpu)) problem = std::string("vCPU registers: ") + std::strerror(errno);
  // -2: once around without the loop, which lets the host build its page tables; -1: the loop; from 0 on: exits.
  int interruptions = 0;
  for (int i = -2; i < kExits && problem.empty(); ++i) {
    if (i < 0 && !jump(vcpu, i == -2 ? kLoopEnd : kCode)) problem = std::string("registers: ") + std::strerror(errno);
    const std::uint64_t begin = timer_host::monotonic_ns();
    if (::ioctl(vcpu.get(), KVM_RUN, 0) != 0) {
      // A signal, or the kernel's own work in its place: again, and what is timed from its beginning.
      if (errno == EINTR && ++interruptions <= kMostInterruptions) {
        --i;
        continue;
      }
      problem = std::string("KVM_RUN: ") + std::strerror(errno);
    } else if (run->exit_reason != KVM_EXIT_IO) {
      problem = "the guest stopped with exit " + std::to_string(run->exit_reason);
    }
    const std::uint64_t took = std::max<std::uint64_t>(timer_host::monotonic_ns() - begin, 1);
    if (i == -2) continue;
    if (i == -1) {
      state.million_instructions_per_second = static_cast<double>(kInstructions) * 1000 / static_cast<double>(took);
    } else {
      exits[static_cast<std::size_t>(i)] = took;
    }
  }
  ::munmap(mapped, static_cast<std::size_t>(length));
  if (!problem.empty()) return problem;
  std::ranges::sort(exits);
  state.exit_ns = exits[kExits / 2];
  state.measured = true;
  // The loop's own speed: without the price of the one entry and exit around it.
  const double loop_ns = static_cast<double>(kInstructions) * 1000 / state.million_instructions_per_second;
  const double pure_ns = std::max(loop_ns - static_cast<double>(state.exit_ns), 1.0);
  state.million_instructions_per_second = static_cast<double>(kInstructions) * 1000 / pure_ns;
  state.emulated = state.million_instructions_per_second < kEmulationSpeed;
  return {};
}

#else

std::string run_guest(const Descriptor&, const Descriptor&, KvmState&) {
  return "the speed is measured on x86-64 only";
}

#endif

}  // namespace

KvmState probe_kvm(const std::string& device, bool measure) {
  KvmState state;
  const Descriptor kvm(::open(device.c_str(), O_RDWR | O_CLOEXEC));
  if (!kvm) {
    state.os_error = errno;
    state.present = errno != ENOENT && errno != ENOTDIR && errno != ENODEV && errno != ENXIO;
    state.detail = device + ": " + std::strerror(errno);
    return state;
  }
  const int version = call(kvm, KVM_GET_API_VERSION);
  state.present = version >= 0;
  if (version != KVM_API_VERSION) {
    state.detail = device + (version < 0 ? " is not KVM" : " has version " + std::to_string(version));
    return state;
  }
  const Descriptor vm(call(kvm, KVM_CREATE_VM));
  if (!vm) {
    state.os_error = errno;
    state.detail = std::string("KVM_CREATE_VM: ") + std::strerror(errno) +
                   (errno == EBUSY ? " (another hypervisor, such as VirtualBox, holds the processor)" : "");
    return state;
  }
  state.usable = true;
  state.detail = "API version " + std::to_string(version);
  if (!measure) return state;
  if (const std::string problem = run_guest(kvm, vm, state); !problem.empty()) state.detail = problem;
  return state;
}

}  // namespace vm_platform
