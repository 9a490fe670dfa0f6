// Faults of this process (bad memory accesses, arithmetic, illegal instructions) handed to whoever owns the address.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// Kinds of fault; a handler can take several, joined with `|`.
enum class FaultKind : std::uint8_t {
  Memory = 1,              ///< SIGSEGV; Windows: EXCEPTION_ACCESS_VIOLATION, EXCEPTION_GUARD_PAGE.
  Bus = 2,                 ///< SIGBUS; Windows: EXCEPTION_IN_PAGE_ERROR, EXCEPTION_DATATYPE_MISALIGNMENT.
  Arithmetic = 4,          ///< SIGFPE: integer division, unmasked floating-point exceptions.
  IllegalInstruction = 8,  ///< SIGILL.
  Trap = 16,               ///< SIGTRAP: breakpoints and single steps.
};
[[nodiscard]] constexpr FaultKind operator|(FaultKind a, FaultKind b) noexcept {
  return static_cast<FaultKind>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
[[nodiscard]] constexpr bool contains(FaultKind set, FaultKind kind) noexcept {
  return (static_cast<unsigned>(set) & static_cast<unsigned>(kind)) != 0;
}

/// What the faulting instruction wanted of the address.
enum class FaultAccess : std::uint8_t { Unknown, Read, Write, Execute };

/// One fault, as a handler sees it: where, why, and the registers of the thread that caused it. Changes to registers
/// take effect when the handler answers `Resume`. Valid only during the call.
class Fault {
 public:
  Fault(FaultKind kind, void* information, void* context) noexcept
      : kind_(kind), information_(information), context_(context) {}

  [[nodiscard]] FaultKind kind() const noexcept { return kind_; }
  /// The address that could not be used; of `Arithmetic`, `IllegalInstruction` and `Trap` the instruction's.
  /// Meaningless where `address_known()` is false (x86-64 reports no address for a non-canonical one, nor for a
  /// misaligned one).
  [[nodiscard]] std::uintptr_t address() const noexcept;
  [[nodiscard]] bool address_known() const noexcept;
  /// Read from the page-fault error code (x86-64), ESR (aarch64) or the exception record (Windows).
  [[nodiscard]] FaultAccess access() const noexcept;
  /// Whether the fault came from an instruction and not from `kill()` or `raise()`.
  [[nodiscard]] bool synchronous() const noexcept;

  /// The instruction that faulted; of a trap where the thread would go on (Linux on x86-64: behind the breakpoint).
  [[nodiscard]] std::uintptr_t pc() const noexcept;
  void set_pc(std::uintptr_t pc) noexcept;
  [[nodiscard]] std::uintptr_t sp() const noexcept;
  void set_sp(std::uintptr_t sp) noexcept;
  /// General registers by their number in machine code: x86-64 0 rax, 1 rcx, 2 rdx, 3 rbx, 4 rsp, 5 rbp, 6 rsi, 7 rdi,
  /// 8 to 15 r8 to r15; aarch64 0 to 30 x0 to x30, 31 sp. Other numbers read 0 and ignore writes.
  [[nodiscard]] std::uint64_t general(unsigned number) const noexcept;
  void set_general(unsigned number, std::uint64_t value) noexcept;
  /// RFLAGS, or PSTATE on aarch64.
  [[nodiscard]] std::uint64_t flags() const noexcept;
  void set_flags(std::uint64_t flags) noexcept;

  /// si_code (`FPE_INTDIV`, `SEGV_MAPERR` …); on Windows the exception code.
  [[nodiscard]] int code() const noexcept;
  /// POSIX: `ucontext_t*`, with vector registers and MXCSR behind `uc_mcontext.fpregs`; Windows: `CONTEXT*`.
  [[nodiscard]] void* native_context() const noexcept { return context_; }
  /// POSIX: `siginfo_t*`; Windows: `EXCEPTION_RECORD*`.
  [[nodiscard]] void* native_information() const noexcept { return information_; }

 private:
  FaultKind kind_;
  void* information_;
  void* context_;
};

/// What a handler answers.
enum class FaultAction : std::uint8_t {
  Resume,  ///< Handled: continue with the registers as they are now.
  Pass,    ///< Not mine: the next handler for the address, and then whoever was there before.
};

/// Called in signal context on the alternate stack where the thread has one: only async-signal-safe work, no locks that
/// the interrupted code may hold, no `longjmp` and no exceptions out of it (to leave generated code, `set_pc` and
/// `set_general`). A fault inside it goes to the previous handler, not back to it; nor may that one leave by `longjmp`
/// then: a handler that is left so counts as running for ever, and unregistering it never returns.
using FaultFunction = FaultAction (*)(Fault& fault, void* user) noexcept;

/// Which faults a handler gets.
struct FaultScope {
  FaultKind kinds = FaultKind::Memory;
  /// The address that was touched must be in here …
  std::uintptr_t address_begin = 0;
  std::uintptr_t address_end = UINTPTR_MAX;
  /// … and the instruction that did it in here. Faults without a known address match only full address ranges.
  std::uintptr_t pc_begin = 0;
  std::uintptr_t pc_end = UINTPTR_MAX;

  /// Faults that touch `range`.
  static FaultScope touching(std::span<const std::byte> range, FaultKind kinds = FaultKind::Memory) noexcept;
  /// Faults that instructions in `code` cause, whatever they touch.
  static FaultScope caused_by(std::span<const std::byte> code, FaultKind kinds) noexcept;
};

/// A registered fault handler; the destructor unregisters it.
///
/// Handlers of the process (sigaction) are installed with the first registration for a kind and put back with the last,
/// unless somebody else has installed theirs over ours meanwhile (then ours stays below and passes everything on).
/// Where somebody has put the default action (or none) over ours, the next registration for the kind installs it again.
/// A foreign handler over ours is trusted to call what it found: whether it does cannot be seen, and where it does not,
/// no handler registered here is asked.
/// Every fault that no scope matches, or all handlers pass on, goes to what was installed before, with the same
/// arguments, signal mask and stack; where that is the default, the process ends with the registers of the fault in its
/// core dump. On Windows this is a vectored exception handler.
///
/// Where scopes overlap, the latest registration is asked first. At most 128 handlers at a time. Registering and
/// unregistering may be done by any thread, but not from within a handler; unregistering waits until no thread is in
/// the handler any more.
class SignalHandler {
 public:
  /// `InvalidArgument` for an empty scope or no function, `Busy` when all 128 places are taken.
  static Result<SignalHandler> install(const FaultScope& scope, FaultFunction function, void* user);

  SignalHandler() = default;
  SignalHandler(SignalHandler&& other) noexcept;
  SignalHandler& operator=(SignalHandler&& other) noexcept;
  ~SignalHandler();

 private:
  int slot_ = -1;
};

/// `SignalHandler::install` for memory faults (SIGSEGV; on Windows access violations) that touch `range`; also gives
/// this thread an alternate stack. Other threads that may fault where their stack cannot hold the handler call
/// `ensure_alternate_stack` themselves. Errors as of `install`, and those of memory for the stack.
Result<SignalHandler> register_sigsegv_handler(std::span<const std::byte> range, FaultFunction function, void* user);

/// A stack of its own for this thread's fault handlers, so that a fault on a full or foreign stack can be handled. Has
/// a guard page below. Belongs to the thread that made it; the destructor (on the same thread) puts back what was
/// there, unless the thread's stack is another by then; a newer one then puts back what this one would have. Windows
/// has no such stacks: `create` reserves room on the normal one there (SetThreadStackGuarantee).
class AlternateStack {
 public:
  /// `size` bytes besides what the kernel needs for the register frame.
  static Result<AlternateStack> create(std::uint64_t size = 64 * kKiB);
  AlternateStack(AlternateStack&&) noexcept;
  AlternateStack& operator=(AlternateStack&&) noexcept;
  ~AlternateStack();

 private:
  struct State;
  AlternateStack() noexcept;
  std::unique_ptr<State> state_;
};

/// Makes sure that this thread has an alternate stack of at least the usual size until it ends: keeps one that is there
/// already and is large enough (a sanitizer's, a runtime's), else makes one.
Result<void> ensure_alternate_stack();

}  // namespace vm_platform
