// Single stepping, breakpoints of the debug registers, the shadow of STI and MOV SS, and interrupts between instructions.
#include "../runtime/runtime.h"

static u64 trace[64];
static unsigned traced;
static bool record(struct cpu* c) {
  if (c->vector != 1) return false;
  if (traced < 64) trace[traced] = c->rip;
  ++traced;
  return traced < 200;
}
static void stepped(const char* name, enum mode mode, const char* code) {
  setup(mode);
  in.rflags |= 0x100;
  traced = 0;
  hook = record;
  run(code);
  hook = 0;
  const u64 start = mode == M64U || mode == M32U ? (u64)code + USER_ALIAS : mode == M16 ? 0 : (u64)code;
  say("%s:", name);
  for (unsigned i = 0; i < traced && i < 64; ++i) {
    if (trace[i] - start < 4096) say(" +%x", trace[i] - start);
    else put(" out");
  }
  u64 dr6;
  asm volatile("mov %%dr6, %0" : "=r"(dr6));
  say(" end %x cx=%x dr6=%x\n", out.vector, out.gpr[RCX], dr6 & 0xffff);
  asm volatile("mov %0, %%dr6" ::"r"(0xffff0ff0UL));
}
#define STEP(name, mode, text) stepped(name, mode, CODE(BITS_##mode, text))

static void tracing(void) {
  STEP("plain", M64, "nop; inc ecx; mov eax, 5; nop");
  STEP("user", M64U, "nop; inc ecx; mov eax, 5; nop");
  STEP("compat", M32, "nop; inc ecx; nop");
  STEP("jumps", M64, "jmp 1f; nop; 1: call 2f; nop; 2: pop rcx; xor ecx, ecx");
  STEP("loop", M64, "mov ecx, 3; 1: loop 1b; nop");
  STEP("mov ss", M64, "mov eax, ss; mov ss, eax; nop; nop");
  STEP("pop ss", M32, "push ss; pop ss; nop; nop");
  STEP("rep", M64, "lea rdi, [rsp-64]; mov ecx, 3; rep stosb; nop");
  STEP("rep none", M64, "lea rdi, [rsp-64]; xor ecx, ecx; rep stosb; nop");
  STEP("int3", M64, "nop; int3; nop");
  STEP("fault", M64, "nop; ud2");
  STEP("popf clears", M64, "push 2; popfq; nop; nop");
  STEP("pushf", M64, "pushfq; pop rcx; and ecx, 0x100; nop");
  STEP("memory", M64, "push rcx; mov [rsp-8], rcx; pop rcx; lock inc dword ptr [rsp-64]; nop");
  STEP("sse", M64, "addps xmm0, xmm0; movups [rsp-32], xmm0; nop");
  setup(M64);
  traced = 0;
  hook = record;
  const char* code = CODE(".code64", "pushfq; or dword ptr [rsp], 0x100; popfq; nop; nop; pushfq; and dword ptr [rsp], 0xfffffeff; popfq; nop");
  run(code);
  hook = 0;
  put("popf sets:");
  for (unsigned i = 0; i < traced; ++i) say(" +%x", trace[i] - (u64)code);
  put("\n");
  asm volatile("mov %0, %%dr6" ::"r"(0xffff0ff0UL));
}
static void resume_flag(void) {
  // The image that faults push has RF set, that of traps does not.
  flags_shown |= 0x10000;
  RUN(M64, "rf on fault", "ud2");
  RUN(M64, "rf on page fault", "mov eax, [0x40001000]");
  RUN(M64, "rf on trap", "int3");
  RUN(M64, "rf on int", "int 0x81");
  flags_shown &= ~0x10000UL;
}

// ---- interrupts: the local APIC sends itself vector 40h while IF is 0 --------------------------------------------------
static volatile u32* const apic = (volatile u32*)0xfee00000;
static u64 arrival, arrivals;
static bool on_interrupt(struct cpu* c) {
  if (c->vector != 0x40) return false;
  arrival = c->rip;
  ++arrivals;
  apic[0xb0 / 4] = 0;
  c->rflags &= ~0x200UL;
  return true;
}
static void pending(const char* name, const char* code) {
  setup(M64);
  arrival = arrivals = 0;
  hook = on_interrupt;
  apic[0x300 / 4] = 0x44040;  // to self, fixed, vector 40h
  run(code);
  hook = 0;
  say("%s: %d", name, arrivals);
  if (arrivals) say(" at +%x", arrival - (u64)code);
  say(" end %x\n", out.vector);
  if (!arrivals) {  // take it now
    hook = on_interrupt;
    setup(M64);
    run(CODE(".code64", "sti; nop; nop; cli"));
    hook = 0;
  }
}
#define PENDING(name, text) pending(name, CODE(".code64", text))
static void shadows(void) {
  apic[0xf0 / 4] = 0x1ff;
  apic[0x80 / 4] = 0;
  PENDING("sti nop nop", "nop; sti; nop; nop; nop");
  PENDING("sti cli", "sti; cli; nop");
  PENDING("sti sti", "sti; sti; nop; nop");
  PENDING("sti mov ss", "mov eax, ss; sti; mov ss, eax; nop; nop");
  PENDING("mov ss first", "mov eax, ss; mov ss, eax; sti; nop; nop");
  PENDING("popf", "push 0x202; popfq; nop; nop");
  PENDING("sti hlt", "sti; hlt; nop");
  PENDING("sti ud2", "sti; ud2");
  PENDING("sti int3", "sti; int3; nop");
  PENDING("iretq", "lea rdx, [rip+1f]; mov rbx, rsp; push 0x10; push rbx; push 0x202; push 8; push rdx; iretq; 1: nop; nop");
  asm volatile("mov %0, %%cr8" ::"r"(4UL));
  PENDING("masked by cr8", "sti; nop; nop; xor eax, eax; mov cr8, rax; nop; nop");
  PENDING("never", "nop; nop");
  PENDING("sti then rep", "lea rdi, [rsp-64]; mov ecx, 5; sti; rep stosb; nop");
  PENDING("sti loop", "mov ecx, 1000; sti; 1: loop 1b; nop");
}
static void breakpoints(void) {
  static u32 data[4];
  const char* code = CODE(".code64", "nop; nop; mov [rdi], eax; nop; mov ecx, [rdi]; nop");
  setup(M64);
  traced = 0;
  hook = record;
  in.gpr[RDI] = (u64)data;
  asm volatile("mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr7" ::"r"((u64)code + 1), "r"(data), "r"(0x00d00405UL));
  in.rflags |= 0;
  // The instruction breakpoint is a fault: the handler goes on with RF set.
  extern bool breakpoint_hook(struct cpu*);
  hook = breakpoint_hook;
  run(code);
  hook = 0;
  asm volatile("mov %0, %%dr7" ::"r"(0x400UL));
  u64 dr6;
  asm volatile("mov %%dr6, %0" : "=r"(dr6));
  put("breakpoints:");
  for (unsigned i = 0; i < traced; ++i) say(" +%x", trace[i] - (u64)code);
  say(" dr6=%x\n", dr6 & 0xffff);
  RUN(M64, "after", "nop");
}
bool breakpoint_hook(struct cpu* c) {
  if (c->vector != 1) return false;
  if (traced < 64) trace[traced++] = c->rip;
  c->rflags |= 0x10000;
  return traced < 20;
}
void test_main(void) {
  tracing();
  resume_flag();
  shadows();
  breakpoints();
}
