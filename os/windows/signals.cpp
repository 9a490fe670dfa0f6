// Fault handlers as one vectored exception handler. Chaining is Windows' own: what we pass on goes to the next vectored
// handler, to structured handlers and to the crash reporter.
#include <windows.h>

#include <mutex>
#include <utility>
#include <vm_platform/signals.hpp>

#include "os/fault_table.hpp"

namespace vm_platform {
namespace {

std::mutex& registration() {
  static std::mutex mutex;
  return mutex;
}

void* g_handler = nullptr;  // under the lock
int g_registered = 0;
/// How deep this thread is in handlers. A TLS slot of the system: C++ thread-locals allocate on first use.
DWORD g_depth = TLS_OUT_OF_INDEXES;

bool kind_of(unsigned long code, FaultKind& kind) {
  switch (code) {
    case EXCEPTION_ACCESS_VIOLATION:
    case EXCEPTION_GUARD_PAGE: kind = FaultKind::Memory; return true;
    case EXCEPTION_IN_PAGE_ERROR:
    case EXCEPTION_DATATYPE_MISALIGNMENT: kind = FaultKind::Bus; return true;
    case EXCEPTION_INT_DIVIDE_BY_ZERO:
    case EXCEPTION_INT_OVERFLOW:
    case EXCEPTION_FLT_DENORMAL_OPERAND:
    case EXCEPTION_FLT_DIVIDE_BY_ZERO:
    case EXCEPTION_FLT_INEXACT_RESULT:
    case EXCEPTION_FLT_INVALID_OPERATION:
    case EXCEPTION_FLT_OVERFLOW:
    case EXCEPTION_FLT_STACK_CHECK:
    case EXCEPTION_FLT_UNDERFLOW: kind = FaultKind::Arithmetic; return true;
    case EXCEPTION_ILLEGAL_INSTRUCTION:
    case EXCEPTION_PRIV_INSTRUCTION: kind = FaultKind::IllegalInstruction; return true;
    case EXCEPTION_BREAKPOINT:
    case EXCEPTION_SINGLE_STEP: kind = FaultKind::Trap; return true;
    default: return false;
  }
}

LONG CALLBACK on_exception(EXCEPTION_POINTERS* pointers) {
  FaultKind kind{};
  if (!kind_of(pointers->ExceptionRecord->ExceptionCode, kind)) return EXCEPTION_CONTINUE_SEARCH;
  const DWORD last_error = ::GetLastError();
  LONG answer = EXCEPTION_CONTINUE_SEARCH;
  if (::TlsGetValue(g_depth) == nullptr) {  // a fault inside a handler is not for the handlers
    ::TlsSetValue(g_depth, &g_depth);
    Fault fault(kind, pointers->ExceptionRecord, pointers->ContextRecord);
    if (fault_table().dispatch(fault) == FaultAction::Resume) answer = EXCEPTION_CONTINUE_EXECUTION;
    ::TlsSetValue(g_depth, nullptr);
  }
  ::SetLastError(last_error);
  return answer;
}

}  // namespace

Result<SignalHandler> SignalHandler::install(const FaultScope& scope, FaultFunction function, void* user) {
  if (function == nullptr || static_cast<unsigned>(scope.kinds) == 0 || scope.address_begin >= scope.address_end ||
      scope.pc_begin >= scope.pc_end)
    return fail(ErrorCode::InvalidArgument, "register fault handler", "", "empty scope, or no function");
  const std::lock_guard lock(registration());
  const int slot = fault_table().add(scope, function, user);
  if (slot < 0) return fail(ErrorCode::Busy, "register fault handler", "", "all 128 places are taken");
  if (g_depth == TLS_OUT_OF_INDEXES) g_depth = ::TlsAlloc();
  if (g_handler == nullptr) g_handler = ::AddVectoredExceptionHandler(1, on_exception);
  if (g_handler == nullptr) {
    fault_table().remove(slot);
    return fail(VmError::from_last_error(::GetLastError(), "AddVectoredExceptionHandler", ""));
  }
  ++g_registered;
  SignalHandler handler;
  handler.slot_ = slot;
  return handler;
}

SignalHandler::SignalHandler(SignalHandler&& other) noexcept : slot_(std::exchange(other.slot_, -1)) {}
SignalHandler& SignalHandler::operator=(SignalHandler&& other) noexcept {
  std::swap(slot_, other.slot_);
  return *this;
}
SignalHandler::~SignalHandler() {
  if (slot_ < 0) return;
  const std::lock_guard lock(registration());
  fault_table().remove(slot_);
  if (--g_registered == 0 && g_handler != nullptr) {
    ::RemoveVectoredExceptionHandler(g_handler);
    g_handler = nullptr;
  }
}

struct AlternateStack::State {
  ULONG previous = 0;
};
AlternateStack::AlternateStack() noexcept = default;
AlternateStack::AlternateStack(AlternateStack&&) noexcept = default;
AlternateStack& AlternateStack::operator=(AlternateStack&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
AlternateStack::~AlternateStack() {
  if (!state_ || state_->previous == 0) return;
  ULONG size = state_->previous;
  ::SetThreadStackGuarantee(&size);
}
Result<AlternateStack> AlternateStack::create(std::uint64_t size) {
  auto room = static_cast<ULONG>(size);
  if (::SetThreadStackGuarantee(&room) == 0)
    return fail(VmError::from_last_error(::GetLastError(), "SetThreadStackGuarantee", "this thread"));
  AlternateStack stack;
  stack.state_ = std::make_unique<State>(State{room});
  return stack;
}
Result<void> ensure_alternate_stack() { return {}; }

}  // namespace vm_platform
