#include "engine/soft/entry.hpp"

#include <asm/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>

namespace vm_platform::soft {

static_assert(offsetof(CpuContext, gpr) == CONTEXT_GPR);
static_assert(offsetof(CpuContext, rip) == CONTEXT_RIP);
static_assert(offsetof(CpuContext, arithmetic_flags) == CONTEXT_ARITHMETIC_FLAGS);
static_assert(offsetof(CpuContext, fpu_absent) == CONTEXT_FPU_ABSENT);
static_assert(offsetof(CpuContext, host_rsp) == CONTEXT_HOST_RSP);
static_assert(offsetof(CpuContext, exit_reason) == CONTEXT_EXIT_REASON);
static_assert(offsetof(CpuContext, exit_value) == CONTEXT_EXIT_VALUE);
static_assert(offsetof(CpuContext, thunks) == CONTEXT_THUNKS);
static_assert(offsetof(CpuContext, scratch) == CONTEXT_SCRATCH);
static_assert(offsetof(CpuContext, fpu_mask) == CONTEXT_FPU_MASK);
static_assert(offsetof(CpuContext, xsave) == CONTEXT_XSAVE);
static_assert(sizeof(CpuContext::thunks) / sizeof(std::uint64_t) > kThunkCount);

GsBinding::GsBinding(CpuContext& context) : previous_(0) {
  // The system call works on every kernel; WRGSBASE only where FSGSBASE is enabled. Once per run() it does not matter.
  ::syscall(SYS_arch_prctl, ARCH_GET_GS, &previous_);
  ::syscall(SYS_arch_prctl, ARCH_SET_GS, &context);
}

GsBinding::~GsBinding() { ::syscall(SYS_arch_prctl, ARCH_SET_GS, previous_); }

void prepare_context(CpuContext& context) {
  for (unsigned i = 0; i < kThunkCount; ++i) context.thunks[i] = vmp_soft_thunk_table[i];
  context.thunks[15] = reinterpret_cast<std::uint64_t>(&context);
}

}  // namespace vm_platform::soft
