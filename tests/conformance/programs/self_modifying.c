// Code that is written while it runs: into the next instruction, within a block, over page boundaries, through another
// linear address, by every kind of store, and code that moves by a change of the page tables.
#include "../runtime/runtime.h"

#define CALL(target) asm volatile("call *%1" : "=a"(result) : "r"(target) : "rcx", "rdx", "memory")
static u64 result;
static void show(const char* name, u64 wanted) { say("%s: %x %s\n", name, result, result == wanted ? "ok" : "STALE"); }

static u8* put_function(u8* at, u32 value) {  // mov eax, value; ret
  at[0] = 0xb8;
  *(u32*)(at + 1) = value;
  at[5] = 0xc3;
  return at;
}
static void rewritten(void) {
  u8* f = put_function(pool(0) + 64, 1);
  u64 bad = 0;
  for (u32 i = 0; i < 2000; ++i) {
    *(u32*)(f + 1) = i;
    CALL(f);
    bad += result != i;
  }
  result = bad;
  show("rewritten 2000 times", 0);
#define STORE(name, text, wanted) do { put_function(f, 0x11111111); CALL(f); asm volatile(text :: "r"(f + 1), "a"(wanted) : "rcx", "rdi", "rsi", "memory", "cc"); CALL(f); show(name, wanted); } while (0)
  STORE("mov", "movl %%eax, (%0)", 0x22222222);
  STORE("two bytes", "movw %%ax, (%0); movw %%ax, 2(%0)", 0x33333333);
  STORE("byte", "movb %%al, (%0); movb %%al, 1(%0); movb %%al, 2(%0); movb %%al, 3(%0)", 0x44444444);
  STORE("xchg", "xchgl %%eax, (%0)", 0x55555555);
  STORE("lock add", "movl $0x44444444, (%0); lock addl $0x22222222, (%0)", 0x66666666);
  STORE("push", "mov %%rsp, %%rcx; lea 8(%0), %%rsp; push %%rax; mov %%rcx, %%rsp; mov %%eax, (%0); movb $0xc3, 4(%0)", 0x77777777);
  STORE("stosd", "mov %0, %%rdi; stosl", 0x88888888UL);
  STORE("rep movsb", "push %%rax; mov %%rsp, %%rsi; mov %0, %%rdi; mov $4, %%ecx; rep movsb; pop %%rax", 0x99999999UL);
  STORE("cmpxchg", "mov %%eax, %%ecx; mov (%0), %%eax; lock cmpxchg %%ecx, (%0)", 0xaaaaaaaaUL);
  STORE("sse", "movd %%eax, %%xmm0; movss %%xmm0, (%0)", 0xbbbbbbbbUL);
  STORE("x87", "push %%rax; fildl (%%rsp); fistpl (%0); pop %%rax", 0x0cccccccUL);
  STORE("bts", "movl $0, (%0); btsl $5, (%0)", 0x20);
  STORE("not", "movl $0x10101010, (%0); notl (%0)", 0xefefefefUL);
  STORE("movnti", "movnti %%eax, (%0)", 0x12121212);
}
static void next_instruction(void) {
  u64 bad = 0;
  for (u32 i = 0; i < 500; ++i) {
    asm volatile("movl %1, 1f+1(%%rip)\n1: mov $0, %%eax" : "=a"(result) : "r"(i) : "memory");
    bad += result != i;
  }
  result = bad;
  show("next instruction", 0);
  asm volatile("movb $0x90, 1f(%%rip)\n xor %%eax, %%eax\n1: inc %%eax\n .byte 0x90" : "=a"(result)::"memory", "cc");
  say("inc becomes nop then prefix: %x\n", result);
  // A loop that counts its own body away.
  asm volatile("xor %%eax, %%eax; mov $10, %%ecx\n1: inc %%eax\n cmp $5, %%ecx\n jne 2f\n movw $0x9066, 1b(%%rip)\n2: loop 1b" : "=a"(result)::"rcx", "memory", "cc");
  show("loop body", 6);
  // Later in the same block, an instruction away and more.
  asm volatile("lea 1f(%%rip), %%rdx; movl $0x1234, 1(%%rdx); nop; nop; imul $3, %%ecx, %%ecx\n1: mov $0, %%eax" : "=a"(result)::"rdx", "rcx", "memory", "cc");
  show("later in the block", 0x1234);
  // rep stosb over the code that follows it: the bytes from 1 on become NOPs.
  asm volatile("xor %%edx, %%edx; lea 1f(%%rip), %%rdi; mov $6, %%ecx; mov $0x90, %%eax; rep stosb\n1: inc %%edx; inc %%edx; inc %%edx\n mov %%rdx, %%rax" : "=a"(result)::"rdx", "rcx", "rdi", "memory", "cc");
  show("rep stosb ahead", 0);
}
static void pages(void) {
  map(16, (u64)pool(16), P | W);
  map(17, (u64)pool(17), P | W);
  map(18, (u64)pool(16), P | W);  // pool 16 again
  // An instruction over the edge of two pages; either half is written.
  for (unsigned split = 1; split < 6; ++split) {
    u8* f = (u8*)WINDOW + 17 * 4096 - split;
    put_function(f, 0x01020304);
    CALL(f);
    u64 bad = result != 0x01020304;
    for (u32 i = 0; i < 50; ++i) {
      f[1 + i % 4] = (u8)(i + 7);
      const u64 wanted = *(u32*)(f + 1);
      CALL(f);
      bad += result != wanted;
    }
    result = bad;
    show("over the edge", 0);
  }
  u8* f = put_function((u8*)WINDOW + 16 * 4096 + 128, 1);
  u64 bad = 0;
  for (u32 i = 0; i < 100; ++i) {
    *(u32*)((u8*)WINDOW + 18 * 4096 + 129) = i;
    CALL(f);
    bad += result != i;
  }
  result = bad;
  show("through an alias", 0);
  // The page is replaced by another one with other code at the same place.
  put_function(pool(17) + 128, 0x17);
  put_function(pool(16) + 128, 0x16);
  CALL(f);
  show("mapped 16", 0x16);
  map(16, (u64)pool(17), P | W);
  CALL(f);
  show("mapped 17", 0x17);
  map(16, (u64)pool(16), P | W);
  CALL(f);
  show("mapped 16 again", 0x16);
  for (u32 i = 0; i < 200; ++i) {
    map(16, (u64)pool(16 + (i & 1)), P | W);
    CALL(f);
    bad += result != 0x16 + (i & 1);
  }
  result = bad;
  show("alternating", 0);
  // Code and data in one page.
  map(16, (u64)pool(16), P | W);
  for (u32 i = 0; i < 1000; ++i) {
    *(volatile u32*)((u8*)WINDOW + 16 * 4096 + 2048 + (i & 255) * 4) = i;
    CALL(f);
    bad += result != 0x16;
  }
  result = bad;
  show("data beside code", 0);
  // Code becomes unreadable, then comes back changed.
  map(16, (u64)pool(16), 0);
  RUN(M64, "code gone", "mov eax, 0x40010080; jmp rax");
  put_function(pool(16) + 128, 0x5555);
  map(16, (u64)pool(16), P | W);
  CALL(f);
  show("came back", 0x5555);
}
static void modes(void) {
  // The same bytes as 64- and as 32-bit code.
  RUN(M64, "48 as prefix", "lea rdi, [rsp-64]; jmp 1f; 1: .byte 0x48, 0xff, 0xc1; xor edi, edi");
  RUN(M32, "48 as dec", ".byte 0x48, 0xff, 0xc1");
  RUN(M16, "16-bit operands", ".byte 0x48, 0xff, 0xc1");
}
void test_main(void) {
  rewritten();
  next_instruction();
  pages();
  modes();
}
