#include "engine/soft/native_fault.hpp"

#include <ucontext.h>

#include "engine/soft/entry.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kPageFault = 14;

// Initial-exec: a dynamic TLS access could allocate, in a signal handler.
thread_local __attribute__((tls_model("initial-exec"))) Cpu* current_cpu = nullptr;

FaultAction on_fault(Fault& fault, void*) noexcept {
  const auto& registers = static_cast<const ucontext_t*>(fault.native_context())->uc_mcontext.gregs;
  const auto trap = static_cast<std::uint64_t>(registers[REG_TRAPNO]);
  if (current_cpu == nullptr || trap == kPageFault) return FaultAction::Pass;
  current_cpu->exit_value = fault.pc();
  current_cpu->scratch[12] = trap;
  fault.set_pc(vmp_soft_thunk_table[kThunkNativeFault]);
  return FaultAction::Resume;
}

}  // namespace

Result<SignalHandler> handle_native_faults(std::span<const std::byte> code) {
  return SignalHandler::install(FaultScope::caused_by(code, FaultKind::Memory | FaultKind::Bus | FaultKind::Arithmetic |
                                                                FaultKind::IllegalInstruction),
                                on_fault, nullptr);
}

NativeFaultScope::NativeFaultScope(Cpu& cpu) { current_cpu = &cpu; }

NativeFaultScope::~NativeFaultScope() { current_cpu = nullptr; }

}  // namespace vm_platform::soft
