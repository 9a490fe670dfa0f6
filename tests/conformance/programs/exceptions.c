// Every exception that code can cause, with its error code, CR2 and the address it reports.
#include "../runtime/runtime.h"

static u64 no_idt[2];

static void reset_fpu(void) {
  static const u32 mxcsr = 0x1f80;
  asm volatile("fninit; ldmxcsr %0" ::"m"(mxcsr));
}
static void divide(void) {
  RUN(M64, "div by zero", "xor ecx, ecx; div ecx");
  RUN(M64, "div overflow", "mov edx, 5; mov ecx, 5; div ecx");
  RUN(M64, "div 8", "mov eax, 0x1000; mov cl, 0x10; div cl");
  RUN(M64, "idiv min", "mov eax, 0x80000000; cdq; mov ecx, -1; idiv ecx");
  RUN(M64, "idiv 64 min", "mov eax, 1; shl rax, 63; cqo; mov rcx, -1; idiv rcx");
  RUN(M64, "idiv 16 ok", "mov ax, -100; cwd; mov cx, 7; idiv cx");
  RUN(M32, "aam 0", "aam 0");
  RUN(M32, "aam 10", "mov al, 123; aam");
}
static void traps(void) {
  RUN(M64, "int3", "nop; int3; nop");
  RUN(M64, "int 3", "nop; .byte 0xcd, 3; nop");
  RUN(M64, "int1", ".byte 0xf1; nop");
  RUN(M64U, "int3 user", "int3");
  RUN(M64U, "int 0x81 user", "int 0x81");
  RUN(M64U, "int 14 user", "int 14");
  RUN(M64, "int 0x81", "int 0x81");
  RUN(M32, "into not", "xor eax, eax; into; nop");
  RUN(M32, "into", "mov eax, 0x7fffffff; inc eax; into; nop");
  RUN(M32U, "into user", "mov eax, 0x7fffffff; inc eax; into; nop");
  RUN(M64, "into 64", ".byte 0xce");
  RUN(M32, "bound in", "push 20; push 10; mov eax, 15; bound eax, [esp]");
  RUN(M32, "bound below", "push 20; push 10; mov eax, 9; bound eax, [esp]");
  RUN(M32, "bound above", "push 20; push -10; mov eax, 21; bound eax, [esp]");
  RUN(M32, "bound 16", "push 0x00050001; mov eax, 6; bound ax, [esp]");
}
static void undefined(void) {
  RUN(M64, "ud2", "nop; ud2");
  RUN(M64, "ud1", ".byte 0x0f, 0xb9, 0xc0");
  RUN(M64, "lock add reg", ".byte 0xf0, 0x01, 0xc0");
  RUN(M64, "lock mov", ".byte 0xf0, 0x89, 0x04, 0x24");
  RUN(M64, "lock cmp", ".byte 0xf0, 0x39, 0x04, 0x24");
  RUN(M64, "lock bt", ".byte 0xf0, 0x0f, 0xa3, 0x04, 0x24");
  RUN(M64, "lock nop", ".byte 0xf0, 0x90");
  RUN(M64, "push es 64", ".byte 0x06");
  RUN(M64, "pusha 64", ".byte 0x60");
  RUN(M64, "daa 64", ".byte 0x27");
  RUN(M64, "aam 64", ".byte 0xd4, 10");
  RUN(M64, "salc 64", ".byte 0xd6");
  RUN(M64, "far jmp imm 64", ".byte 0xea, 0, 0, 0, 0, 8, 0");
  RUN(M64, "les 64 is vex", ".byte 0xc4, 0xe2, 0x79, 0x00, 0x00");
  RUN(M64, "82 group", ".byte 0x82, 0xc0, 1");
  RUN(M64, "mov cs", "mov eax, 16; .byte 0x8e, 0xc8");
  RUN(M64, "mov seg 6", ".byte 0x8e, 0xf0");
  RUN(M64, "mov from seg 7", ".byte 0x8c, 0xf8");
  RUN(M64, "mov cr1", ".byte 0x0f, 0x20, 0xc8");
  RUN(M64, "mov cr5", ".byte 0x0f, 0x22, 0xe8");
  RUN(M64, "lea reg", ".byte 0x8d, 0xc0");
  RUN(M64, "group 5 /7", ".byte 0xff, 0xf8");
  RUN(M64, "call far reg", ".byte 0xff, 0xd8");
  RUN(M64, "cmpxchg8b reg", ".byte 0x0f, 0xc7, 0xc8");
  RUN(M64, "invlpg reg", ".byte 0x0f, 0x01, 0xfa");
  RUN(M64, "sysenter-like 0f 04", ".byte 0x0f, 0x04");
  RUN(M64, "0f ff", ".byte 0x0f, 0xff, 0xc0");
  RUN(M64, "rsm", ".byte 0x0f, 0xaa");
  RUN(M32, "arpl exists", "mov eax, 0x10; mov ecx, 3; arpl ax, cx");
  RUN(REAL, "arpl real", ".byte 0x63, 0xc8");
  RUN(REAL, "lldt real", "lldt ax");
  RUN(REAL, "str real", "str ax");
  RUN(REAL, "verr real", "verr ax");
  RUN(REAL, "lar real", "lar ax, cx");
  RUN(M64, "16 bytes", ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
  RUN(M64, "15 bytes", ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
  RUN(M64, "prefixed ud2", ".byte 0x66, 0xf3, 0x48, 0x0f, 0x0b");
}
static void fpu(void) {
  const u64 cr0 = read_cr0();
  write_cr0(cr0 | 8);
  RUN(M64, "fld ts", "fld1");
  RUN(M64, "sse ts", "addps xmm0, xmm0");
  RUN(M64, "mmx ts", "paddb mm0, mm0");
  RUN(M64, "fwait ts", "fwait");
  RUN(M64, "fxsave ts", "sub rsp, 512; and rsp, -16; fxsave [rsp]");
  RUN(M64, "ldmxcsr ts", "push 0x1f80; ldmxcsr [rsp]");
  RUN(M64, "clts", "clts; fld1; fstp st(0)");
  write_cr0(cr0 | 8 | 2);
  RUN(M64, "fwait ts mp", "fwait");
  write_cr0((cr0 & ~10UL) | 4);
  RUN(M64, "fld em", "fld1");
  RUN(M64, "sse em", "addps xmm0, xmm0");
  RUN(M64, "mmx em", "paddb mm0, mm0");
  RUN(M64, "fwait em", "fwait");
  write_cr0(cr0);
  const u64 cr4 = read_cr4();
  write_cr4(cr4 & ~0x200UL);
  RUN(M64, "sse without osfxsr", "addps xmm0, xmm0");
  RUN(M64, "movnti without osfxsr", "movnti [rsp-8], rax");
  RUN(M64, "crc32 without osfxsr", "crc32 eax, ecx");
  RUN(M64, "lfence without osfxsr", "lfence");
  RUN(M64, "mmx without osfxsr", "paddb mm0, mm0; emms");
  write_cr4(cr4);
  RUN(M64, "x87 divide masked", "fninit; fld1; fldz; fdivp; fnstsw ax; fninit");
  RUN(M64, "x87 divide", "fninit; push 0x37b; fldcw [rsp]; fld1; fldz; fdivp; fnstsw ax; fwait");
  RUN(M64, "x87 pending at next", "fninit; push 0x37b; fldcw [rsp]; fld1; fldz; fdivp; nop; fld1");
  RUN(M64, "x87 pending fnclex", "fninit; push 0x37b; fldcw [rsp]; fld1; fldz; fdivp; fnclex; fwait; fninit");
  RUN(M64, "x87 pending then int ok", "fninit; push 0x37b; fldcw [rsp]; fld1; fldz; fdivp; nop; fninit");
  RUN(M64, "x87 invalid stack", "fninit; push 0x37e; fldcw [rsp]; fstp st(0); fwait");
  reset_fpu();
  RUN(M64, "sse divide masked", "push 0x1f80; ldmxcsr [rsp]; xorps xmm0, xmm0; pcmpeqd xmm1, xmm1; divps xmm1, xmm0; stmxcsr [rsp]; pop rax");
  RUN(M64, "sse divide", "push 0x1d80; ldmxcsr [rsp]; mov eax, 1; cvtsi2ss xmm1, eax; xorps xmm0, xmm0; divss xmm1, xmm0");
  RUN(M64, "sse denormal memory", "push 0x1e80; ldmxcsr [rsp]; push 1; xorps xmm0, xmm0; addss xmm0, [rsp]");
  write_cr4(cr4 & ~0x400UL);
  RUN(M64, "sse divide without osxmmexcpt", "push 0x1d80; ldmxcsr [rsp]; mov eax, 1; cvtsi2ss xmm1, eax; xorps xmm0, xmm0; divss xmm1, xmm0");
  write_cr4(cr4);
  RUN(M64, "ldmxcsr reserved", "push 0x10000; ldmxcsr [rsp]");
  RUN(M64, "ldmxcsr", "push 0x1f80; ldmxcsr [rsp]");
  reset_fpu();
  RUN(M64, "movaps misaligned", "movaps xmm0, [rsp+8]; movaps xmm0, [rsp+1]");
  RUN(M64, "addps misaligned", "addps xmm0, [rsp+4]");
  RUN(M64, "movups misaligned", "movups xmm0, [rsp+4]");
  RUN(M64, "fxsave misaligned", "fxsave [rsp-520]");
  RUN(M64, "cmpxchg16b misaligned", "lock cmpxchg16b [rsp-24]");
  RUN(M64, "movntdqa misaligned", "movntdqa xmm0, [rsp+8]");
}
static void alignment(void) {
  const u64 cr0 = read_cr0();
  write_cr0(cr0 | 0x40000);
  in.rflags = 2;
  setup(M64U);
#define AC(name, text) RUNP(M64U, name, in.rflags |= 0x40000, text)
  AC("ac aligned", "mov eax, [rsp]; mov rax, [rsp+8]; mov ax, [rsp+2]");
  AC("ac dword", "mov eax, [rsp+2]");
  AC("ac word", "mov ax, [rsp+1]");
  AC("ac qword at 4", "mov rax, [rsp+4]");
  AC("ac write", "mov [rsp+6], rax");
  AC("ac rmw", "add dword ptr [rsp+1], 1");
  AC("ac push", "lea rsp, [rsp+1]; push rax");
  AC("ac movups", "movups xmm0, [rsp+1]");
  AC("ac fld 80", "fninit; fld tbyte ptr [rsp+2]");
  AC("ac string", "lea rsi, [rsp+1]; lodsd");
  RUNP(M64, "ac ring 0", in.rflags |= 0x40000, "mov eax, [rsp+2]");
  write_cr0(cr0);
  AC("ac without am", "mov eax, [rsp+2]");
}
static void pages(void) {
  map(0, POOL, P | W | U);
  map(1, 0, 0);
  map(2, POOL, P | U);
  RUN(M64, "read absent", "mov eax, [0x40001234]");
  RUN(M64, "write absent", "mov [0x40001234], eax");
  RUN(M64, "write read only", "mov [0x40002010], eax");
  RUN(M64U, "user read absent", "mov eax, [0x40001234]");
  RUN(M64U, "user write read only", "mov [0x40002010], eax");
  RUN(M64U, "user read supervisor", "mov eax, [0x100000]");
  RUN(M64U, "user write supervisor", "mov [0x100000], eax");
  RUN(M64, "jump absent", "mov eax, 0x40001100; jmp rax");
  RUN(M64, "call absent", "mov eax, 0x40001100; call rax");
  RUN(M64U, "user jump supervisor", "mov eax, 0x100000; jmp rax");
  RUN(M64, "read noncanonical", "mov rax, 0x800000000000; mov eax, [rax]");
  RUN(M64, "rsp noncanonical", "mov rsp, 0x800000000000; pop rax");
  RUN(M64, "rbp noncanonical", "mov rbp, 0x800000000000; mov eax, [rbp]");
  RUN(M64, "rsp based noncanonical", "mov rsp, 0x800000000000; mov eax, [rsp]");
  RUN(M64, "push noncanonical", "mov rsp, 0x800000000008; push rax; push rax");
  RUN(M64, "last canonical crossing", "mov rax, 0x7ffffffffffc; mov rax, [rax]");
  RUN(M64, "jump noncanonical", "mov rax, 0x800000000000; jmp rax");
  RUN(M64, "call noncanonical", "mov rax, 0x800000000000; call rax");
  RUN(M64, "ret noncanonical", "mov rax, 0x800000000000; push rax; ret");
  RUN(M64, "wrap", "mov rax, -4; mov rax, [rax]");
}
static void doubled(void) {
  // A gate that is not present, then one that is no gate: what delivery itself faults with.
  set_gate(0x90, 0, KCS64, 0, 0x0e);
  RUN(M64, "gate absent", "int 0x90");
  set_gate(0x90, 0, KCS64, 0, 0x82);
  RUN(M64, "gate type", "int 0x90");
  set_gate(0x90, 0, 0, 0, 0x8e);
  RUN(M64, "gate null cs", "int 0x90");
  set_gate(0x90, 0, KDS, 0, 0x8e);
  RUN(M64, "gate data cs", "int 0x90");
  set_gate(0x90, 0, KCS32, 0, 0x8e);
  RUN(M64, "gate cs 32", "int 0x90");
  set_gate(0x90, 0, 0x1f8, 0, 0x8e);
  gdt[63] = 0x002f1b000000ffff;
  RUN(M64, "gate cs absent", "int 0x90");
  set_gate(0x90, 0, 0x200, 0, 0x8e);
  RUN(M64, "gate cs beyond", "int 0x90");
  set_gate(0x90, 0x800000000000, KCS64, 0, 0x8e);
  RUN(M64, "gate noncanonical", "int 0x90");
  const u64 saved[2] = {idt[28], idt[29]};
  idt[28] &= ~(0x80UL << 40);  // page fault → #NP → double fault
  RUN(M64, "page fault undeliverable", "mov eax, [0x40001234]");
  idt[28] = saved[0];
  const u64 de[2] = {idt[0], idt[1]};
  idt[0] &= ~(0x80UL << 40);  // #DE then #NP: contributory twice
  RUN(M64, "divide undeliverable", "xor ecx, ecx; div ecx");
  idt[0] = de[0];
  const u64 ud = idt[12];
  idt[12] &= ~(0x80UL << 40);  // #UD is benign: #NP is delivered
  RUN(M64, "ud undeliverable", "ud2");
  idt[12] = ud;
  const u8 ist = (u8)(idt[12] >> 32);
  idt[12] &= ~(7UL << 32);
  RUN(M64, "ud with bad stack", "mov rsp, 0x40001800; ud2");
  RUN(M64, "ud with noncanonical stack", "mov rsp, 0x800000000000; ud2");
  idt[12] |= (u64)ist << 32;
  no_idt[0] = 0;
  asm volatile("sidt %0" : "=m"(*(char(*)[10])((char*)no_idt)));
  struct __attribute__((packed)) { u16 limit; u64 base; } small = {0x6f, (u64)idt};  // up to vector 6
  small.limit = 0x90 * 16 - 1;
  asm volatile("lidt %0" ::"m"(small));
  RUN(M64, "beyond idt", "int 0x90");
  small.limit = 4095;
  asm volatile("lidt %0" ::"m"(small));
}
void test_main(void) {
  divide();
  traps();
  undefined();
  fpu();
  alignment();
  pages();
  doubled();
}
