// Breakpoints of the debug registers: on instructions, data of each length and ports; what DR6 says of them, RF, the general
// detect bit, the shadow of MOV SS, and what may be written where.
#include "../runtime/runtime.h"

static u64 trace[32], reasons[32];
static unsigned traced;
static u64 read_dr6(void) { u64 v; asm volatile("mov %%dr6, %0" : "=r"(v)); return v; }
static u64 read_dr7(void) { u64 v; asm volatile("mov %%dr7, %0" : "=r"(v)); return v; }
static void write_dr6(u64 v) { asm volatile("mov %0, %%dr6" ::"r"(v)); }
static void write_dr7(u64 v) { asm volatile("mov %0, %%dr7" ::"r"(v)); }
static void set(unsigned number, u64 address) {
  switch (number) {
    case 0: asm volatile("mov %0, %%dr0" ::"r"(address)); break;
    case 1: asm volatile("mov %0, %%dr1" ::"r"(address)); break;
    case 2: asm volatile("mov %0, %%dr2" ::"r"(address)); break;
    default: asm volatile("mov %0, %%dr3" ::"r"(address)); break;
  }
}
static bool goes_on(struct cpu* c) {
  if (c->vector != 1 && c->vector != 3) return false;
  if (traced < 32) {
    trace[traced] = c->rip;
    reasons[traced] = c->vector == 3 ? 3 : read_dr6() & 0xffff;
  }
  ++traced;
  if (c->vector == 1) write_dr6(0xffff0ff0);
  c->rflags |= 0x10000;
  return traced < 30;
}
static void* data;
// Runs with DR7 as given; each stop is shown as its place and the bits of DR6 that are not always set.
static void watched_in(const char* name, enum mode mode, const char* code, u64 dr7, u64 flags) {
  setup(mode);
  in.gpr[RDI] = in.gpr[RSI] = (u64)data + (mode == M64U ? USER_ALIAS : 0);
  in.gpr[RAX] = 0x1234;
  in.gpr[RCX] = 4;
  in.rflags |= flags;
  traced = 0;
  hook = goes_on;
  write_dr6(0xffff0ff0);
  write_dr7(dr7 | 0x400);
  run(code);
  const u64 after = read_dr7();
  write_dr7(0x400);
  hook = 0;
  say("%s:", name);
  const u64 start = mode == M64U ? (u64)code + USER_ALIAS : (u64)code;
  for (unsigned i = 0; i < traced && i < 30; ++i) say(" +%x/%x", trace[i] - start, reasons[i] & ~0xff0UL);
  say(" end %x", out.vector);
  if (after != (dr7 | 0x400)) say(" dr7 %x", after);
  put("\n");
}
#define WATCH(name, dr7, text) watched_in(name, M64, CODE(".code64", text), dr7, 0)

static void instructions(void) {
  static const char* code;
  code = CODE(".code64", "nop; mov ecx, 3; 1: dec ecx; jnz 1b; nop; nop");
  set(0, (u64)code + 1);
  watched_in("first byte", M64, code, 1, 0);
  set(0, (u64)code + 2);
  watched_in("second byte", M64, code, 1, 0);
  set(0, (u64)code + 6);
  watched_in("in a loop", M64, code, 1, 0);
  watched_in("global", M64, code, 2, 0);
  watched_in("off", M64, code, 0, 0);
  watched_in("of two bytes", M64, code, 1 | 4 << 16, 0);
  set(1, (u64)code + 6);
  set(2, (u64)code + 10);
  watched_in("two at one place, one at another", M64, code, 0x15, 0);
  watched_in("one of them not enabled", M64, code, 0x11, 0);
  watched_in("with single steps", M64, code, 0x10, 0x100);
  set(0, (u64)code + USER_ALIAS + 1);
  watched_in("in user code", M64U, code, 1, 0);
  set(0, (u64)code);
  watched_in("resume flag at the start", M64, code, 1, 0x10000);
  watched_in("at the start", M64, code, 1, 0);
  code = CODE(".code64", "nop; int3; nop; mov eax, ss; mov ss, eax; nop; nop");
  set(0, (u64)code + 1);
  watched_in("on int3", M64, code, 1, 0);
  set(0, (u64)code + 7);
  watched_in("after mov ss", M64, code, 1, 0);
  code = CODE(".code64", "nop; rep stosb; nop");
  set(0, (u64)code + 1);
  watched_in("on a repeated instruction", M64, code, 1, 0);
  code = CODE(".code64", "nop; ud2");
  set(0, (u64)code + 1);
  watched_in("on an invalid one", M64, code, 1, 0);
}
static void accesses(void) {
  static u8 bytes[64] __attribute__((aligned(64)));
  data = bytes;
  set(0, (u64)bytes + 8);
#define EACH(text) \
  WATCH(text " write 1", 0x00010001, text); WATCH(text " write 2", 0x00050001, text); WATCH(text " write 4", 0x000d0001, text); \
  WATCH(text " write 8", 0x00090001, text); WATCH(text " rw 1", 0x00030001, text); WATCH(text " rw 4", 0x000f0001, text)
  EACH("mov [rdi+8], al; nop; nop");
  EACH("mov [rdi+7], al; nop; nop");
  EACH("mov [rdi+7], ax; nop; nop");
  EACH("mov [rdi+9], eax; nop; nop");
  EACH("mov [rdi+4], rax; nop; nop");
  EACH("mov [rdi+12], rax; nop; nop");
  EACH("mov ecx, [rdi+8]; nop; nop");
  EACH("mov rcx, [rdi+1]; nop; nop");
  EACH("lock xadd [rdi+8], eax; nop; nop");
  EACH("add byte ptr [rdi+11], 1; nop; nop");
  EACH("movups [rdi], xmm0; nop; nop");
  EACH("movups xmm0, [rdi+2]; nop; nop");
  EACH("lea rcx, [rdi+8]; nop; nop");
  EACH("lea rdi, [rdi+6]; rep stosb; nop; nop");
  EACH("push rsp; pop rcx; mov rsp, rsp; nop");
  WATCH("string read", 0x00030001, "lea rsi, [rsi+6]; lea rdi, [rdi+32]; rep movsb; nop; nop");
  WATCH("no length of 3", 0x00010001, "mov [rdi+10], al; nop");
  set(0, (u64)bytes + 10);
  WATCH("unaligned address, length 4", 0x000d0001, "mov [rdi+8], al; nop; nop; mov [rdi+11], al; nop; nop");
  set(0, (u64)bytes + 8);
  set(1, (u64)bytes + 9);
  WATCH("two of them", 0x00110005, "mov [rdi+8], ax; nop; nop");
  WATCH("the other would, but is not enabled", 0x00110001, "mov [rdi+8], ax; nop; nop");
  WATCH("with a fault", 0x00010001, "mov [rdi+8], al; ud2");
  WATCH("in the instruction that faults", 0x00030001, "xor ecx, ecx; mov eax, 0x500; div byte ptr [rdi+8]");
  WATCH("mov ss puts it off", 0x00030001, "mov edx, 0x10; mov [rdi+8], edx; nop; mov ss, [rdi+8]; nop; nop");
  WATCH("compare that fails", 0x00010001, "mov eax, 99; cmpxchg [rdi+8], cl; nop; nop");
  WATCH("bt", 0x00030001, "mov ecx, 65; bt [rdi], rcx; nop; nop");
  WATCH("nothing is repeated", 0x00030001, "lea rdi, [rdi+8]; xor ecx, ecx; rep stosb; nop");
  set(0, (u64)bytes + 8 + USER_ALIAS);
  watched_in("in user code", M64U, CODE(".code64", "mov [rdi+8], al; nop; nop"), 0x00010001, 0);
  watched_in("a write and single steps in user code", M64U, CODE(".code64", "mov [rdi+8], al; nop"), 0x00010001, 0x100);
}
static void ports(void) {
  const u64 cr4 = read_cr4();
  set(0, 0x80);
  WATCH("port without de", 0x00020001, "out 0x80, al; nop; nop");
  write_cr4(cr4 | 8);
  WATCH("port", 0x00020001, "out 0x80, al; nop; nop");
  WATCH("port in", 0x00020001, "in al, 0x80; nop; nop");
  WATCH("other port", 0x00020001, "out 0x81, al; nop; nop");
  WATCH("word below", 0x00020001, "out 0x7f, ax; nop; nop");
  WATCH("two ports", 0x00060001, "out 0x81, al; nop; nop");
  WATCH("string to a port", 0x00020001, "mov edx, 0x80; mov ecx, 2; rep outsb; nop; nop");
  write_cr4(cr4);
}
static void registers(void) {
  const u64 cr4 = read_cr4();
  RUN(M64, "dr6 reserved", "mov rax, 0xffffffff; mov dr6, rax; mov rcx, dr6; xor eax, eax; mov dr6, rax; mov rdx, dr6; xor eax, eax");
  RUN(M64, "dr7 reserved", "mov rax, 0xd7ff; mov dr7, rax; mov rcx, dr7; mov eax, 0x400; mov dr7, rax; xor eax, eax; mov dr7, rax; mov rdx, dr7");
  RUN(M64, "dr6 upper", "mov rax, 0x100000000; mov dr6, rax");
  RUN(M64, "dr7 upper", "mov rax, 0x100000000; mov dr7, rax");
  RUN(M64, "dr0 upper", "mov rax, 0x123456789abcdef0; mov dr0, rax; mov rcx, dr0; xor eax, eax; mov dr0, rax");
  RUN(M64, "dr4", "mov rax, dr4; mov rcx, dr6; sub rax, rcx; xor ecx, ecx");
  RUN(M64, "dr5", "mov rax, dr5; mov rcx, dr7; sub rax, rcx; xor ecx, ecx");
  write_cr4(cr4 | 8);
  RUN(M64, "dr4 with de", "mov rax, dr4");
  RUN(M64, "dr5 with de", "mov dr5, rax");
  write_cr4(cr4);
  RUN(M64, "dr8", ".byte 0x44, 0x0f, 0x21, 0xc0");
  RUN(M64, "dr8 write", ".byte 0x44, 0x0f, 0x23, 0xc0");
  RUN(M64U, "user", "mov rax, dr6");
  RUN(M64, "lock", ".byte 0xf0; mov rax, dr6");
  RUN(M32, "compatibility mode", "mov eax, 0xffffffff; mov dr0, eax; mov ecx, dr0; xor eax, eax; mov dr0, eax");
  // General detect: the next access to any of them is a fault, and the handler may look.
  static const char* code;
  code = CODE(".code64", "nop; mov rax, dr0; mov rax, dr7; nop");
  data = 0;
  watched_in("general detect", M64, code, 0x2000, 0);
  code = CODE(".code64", "nop; .byte 0xf1; nop");
  watched_in("int1", M64, code, 0, 0);
  code = CODE(".code64", "push 0x102; popfq; nop; nop; push 2; popfq; nop");
  watched_in("single steps by popf", M64, code, 0, 0);
}
void test_main(void) {
  instructions();
  accesses();
  ports();
  registers();
}
