// The way in and out is a signal: UD2 in `run` raises SIGILL, whose handler replaces the whole interrupted context by
// the sequence's; the exception that ends the sequence comes back the same way. So every register, RSP included, is the
// sequence's own.
#include "tests/random_instructions/native.hpp"

#include <asm/prctl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace vm_platform::random_instructions {
namespace {

constexpr std::array kGregs = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

extern "C" char vmp_native_entry[];  // the UD2

struct Exchange {
  bool inside = false;
  const MachineState* initial = nullptr;
  Outcome* outcome = nullptr;
  gregset_t home_gregs;
  std::array<std::uint8_t, 832> home_xsave;
} exchange;

std::uint8_t* xsave_area(ucontext_t* context) { return reinterpret_cast<std::uint8_t*>(context->uc_mcontext.fpregs); }

// Bytes 464 to 511 belong to the kernel; the header follows them.
void copy_xsave(std::uint8_t* to, const std::uint8_t* from) {
  std::memcpy(to, from, 464);
  std::memcpy(to + 576, from + 576, 256);
}

__attribute__((no_sanitize("address", "thread", "undefined"))) void on_signal(int signal, siginfo_t*, void* raw) {
  auto* context = static_cast<ucontext_t*>(raw);
  auto& gregs = context->uc_mcontext.gregs;
  std::uint8_t* xsave = xsave_area(context);
  if (!exchange.inside) {
    if (gregs[REG_RIP] != reinterpret_cast<greg_t>(vmp_native_entry)) {  // a fault of the program itself
      ::signal(signal, SIG_DFL);
      return;
    }
    std::memcpy(exchange.home_gregs, gregs, sizeof gregs);
    copy_xsave(exchange.home_xsave.data(), xsave);
    const MachineState& s = *exchange.initial;
    for (std::size_t i = 0; i < 16; ++i) gregs[kGregs[i]] = static_cast<greg_t>(s.gpr[i]);
    gregs[REG_RIP] = static_cast<greg_t>(s.rip);
    gregs[REG_EFL] = static_cast<greg_t>(s.rflags | 0x200);
    copy_xsave(xsave, s.xsave.data());
    xsave[512] |= 7;
    exchange.inside = true;
    return;
  }
  MachineState& s = exchange.outcome->state;
  for (std::size_t i = 0; i < 16; ++i) s.gpr[i] = static_cast<std::uint64_t>(gregs[kGregs[i]]);
  s.rip = static_cast<std::uint64_t>(gregs[REG_RIP]);
  s.rflags = static_cast<std::uint64_t>(gregs[REG_EFL]);
  copy_xsave(s.xsave.data(), xsave);
  s.xsave[512] = 7;
  if ((xsave[512] & 4) == 0) std::memset(&s.xsave[576], 0, 256);
  exchange.outcome->vector = static_cast<std::uint64_t>(gregs[REG_TRAPNO]);
  exchange.outcome->error_code = static_cast<std::uint64_t>(gregs[REG_ERR]);
  exchange.outcome->fault_address = static_cast<std::uint64_t>(gregs[REG_CR2]);
  std::memcpy(gregs, exchange.home_gregs, sizeof gregs);
  gregs[REG_RIP] += 2;
  copy_xsave(xsave, exchange.home_xsave.data());
  xsave[512] |= 7;
  exchange.inside = false;
}

stack_t previous_stack = {};  // AddressSanitizer's, which wants it back at the end

void* map_at(std::uint64_t address, std::uint64_t size, int protection) {
  void* at = mmap(reinterpret_cast<void*>(address), size, protection,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);
  if (at != reinterpret_cast<void*>(address)) {
    std::fprintf(stderr, "random_instructions: cannot map %llx natively\n", static_cast<unsigned long long>(address));
    std::exit(2);
  }
  return at;
}

}  // namespace

NativeCpu::NativeCpu() {
  map_at(kCodeBase, kCodePages * 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
  for (std::size_t i = 0; i < kDataPages.size(); ++i)
    if (kDataPages[i] != PageKind::Hole) map_at(kDataBase + 4096 * i, 4096, PROT_READ | PROT_WRITE);
  static std::array<std::uint8_t, 65536> stack;
  const stack_t alternate = {stack.data(), 0, stack.size()};
  sigaltstack(&alternate, &previous_stack);
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigfillset(&action.sa_mask);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP}) sigaction(signal, &action, nullptr);
  syscall(SYS_arch_prctl, ARCH_SET_GS, kGsBase);
}

NativeCpu::~NativeCpu() { sigaltstack(&previous_stack, nullptr); }

Outcome NativeCpu::run(const Sequence& sequence) {
  auto* code = reinterpret_cast<std::uint8_t*>(kCodeBase);
  std::memset(code, 0xcc, kCodePages * 4096);
  std::memcpy(reinterpret_cast<void*>(sequence.initial.rip), sequence.code.data(), sequence.code.size());
  for (std::size_t i = 0; i < kDataPages.size(); ++i) {
    if (kDataPages[i] == PageKind::Hole) continue;
    auto* page = reinterpret_cast<std::uint8_t*>(kDataBase + 4096 * i);
    if (kDataPages[i] == PageKind::ReadOnly) mprotect(page, 4096, PROT_READ | PROT_WRITE);
    std::memcpy(page, &sequence.data[4096 * i], 4096);
    if (kDataPages[i] == PageKind::ReadOnly) mprotect(page, 4096, PROT_READ);
  }
  Outcome outcome;
  exchange.initial = &sequence.initial;
  exchange.outcome = &outcome;
  asm volatile(".globl vmp_native_entry\nvmp_native_entry: ud2" ::: "memory");
  exchange.initial = nullptr;
  exchange.outcome = nullptr;
  return outcome;
}

const std::uint8_t* NativeCpu::data() const { return reinterpret_cast<const std::uint8_t*>(kDataBase); }

}  // namespace vm_platform::random_instructions
