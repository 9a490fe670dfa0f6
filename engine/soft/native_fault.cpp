#include "engine/soft/native_fault.hpp"

#include <signal.h>
#include <ucontext.h>

#include <mutex>

#include "engine/soft/entry.hpp"

namespace vm_platform::soft {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS};
struct sigaction previous[NSIG];

thread_local Cpu* current_cpu = nullptr;
thread_local std::uint64_t code_begin = 0;

void chain(int number, siginfo_t* info, void* context) {
  const struct sigaction& action = previous[number];
  if ((action.sa_flags & SA_SIGINFO) != 0) {
    action.sa_sigaction(number, info, context);
  } else if (action.sa_handler == SIG_DFL) {
    // Put the default back and let the instruction fault again, so that the core dump shows it.
    ::sigaction(number, &action, nullptr);
  } else if (action.sa_handler != SIG_IGN) {
    action.sa_handler(number);
  }
}

void handle(int number, siginfo_t* info, void* raw) {
  auto* context = static_cast<ucontext_t*>(raw);
  auto& registers = context->uc_mcontext.gregs;
  const auto pc = static_cast<std::uint64_t>(registers[REG_RIP]);
  if (current_cpu == nullptr || pc - code_begin >= CodeCache::kCodeBytes) {
    chain(number, info, raw);
    return;
  }
  current_cpu->exit_value = pc;
  current_cpu->scratch[12] = static_cast<std::uint64_t>(registers[REG_TRAPNO]);
  registers[REG_RIP] = static_cast<greg_t>(vmp_soft_thunk_table[kThunkNativeFault]);
}

void install() {
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (const int number : kSignals) ::sigaction(number, &action, &previous[number]);
}

}  // namespace

NativeFaultScope::NativeFaultScope(Cpu& cpu, const CodeCache& code) {
  static std::once_flag once;
  std::call_once(once, install);
  current_cpu = &cpu;
  code_begin = code.code_begin();
}

NativeFaultScope::~NativeFaultScope() { current_cpu = nullptr; }

}  // namespace vm_platform::soft
