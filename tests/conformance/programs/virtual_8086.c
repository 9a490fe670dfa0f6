// Virtual-8086 mode: what IOPL lets through, interrupts out of it and IRET back into it, segments and their limits, paging
// and the I/O bitmap, instructions that it does not have.
#include "../runtime/runtime.h"

enum { IOPL0 = 0x20002, IOPL3 = 0x23002 };
#define AT(flags, name, text) RUNP(V86, name, in.rflags = flags, text)

static void sensitive(u64 flags, const char* name) {
  say("-- %s\n", name);
  AT(flags, "cli", "cli");
  AT(flags, "sti", "sti; nop");
  AT(flags, "pushf", "pushf; pop ax");
  AT(flags, "pushfd", "pushfd; pop eax");
  AT(flags, "popf", "push 0x7fd7; popf; pushf; pop ax");
  AT(flags, "popfd", "push 0; push 0; mov bp, sp; mov word ptr [bp], 0x7203; mov word ptr [bp+2], 0x3c; popfd; pushfd; pop eax");
  AT(flags, "int 80", "int 0x80");
  AT(flags, "int 81", "int 0x81");
  AT(flags, "int3", "int3");
  AT(flags, "int 3 in two bytes", ".byte 0xcd, 3");
  AT(flags, "int1", ".byte 0xf1");
  AT(flags, "into", "mov al, 0x7f; add al, 1; into; nop");
  AT(flags, "into none", "xor al, al; into; nop");
  AT(flags, "iret", "pushf; push 0xa00; push 0xf; iret; ud2; nop; nop; nop; nop; nop; nop; nop; nop; nop; nop");
  AT(flags, "in without a bit", "mov dx, 0x3fd; in al, dx");
  AT(flags, "out without a bit", "out 0x80, al");
  AT(flags, "insb", "mov dx, 0x3fd; insb");
}
static void everywhere(void) {
  put("-- instructions\n");
  RUN(V86, "hlt", "hlt");
  RUN(V86, "lgdt", "lgdt [bx]");
  RUN(V86, "sgdt", "mov bx, 0x100; sgdt [bx]; mov ax, [bx]");
  RUN(V86, "mov cr0", "mov eax, cr0");
  RUN(V86, "mov to cr3", "mov cr3, eax");
  RUN(V86, "mov dr7", "mov eax, dr7");
  RUN(V86, "clts", "clts");
  RUN(V86, "lmsw", "lmsw ax");
  RUN(V86, "smsw", "smsw ax");
  RUN(V86, "rdmsr", "rdmsr");
  RUN(V86, "wbinvd", "wbinvd");
  RUN(V86, "invlpg", "invlpg [bx]");
  RUN(V86, "lldt", "lldt ax");
  RUN(V86, "ltr", "ltr ax");
  RUN(V86, "sldt", "sldt ax");
  RUN(V86, "str", "str ax");
  RUN(V86, "lar", "lar ax, bx");
  RUN(V86, "lsl", "lsl ax, bx");
  RUN(V86, "verr", "verr ax");
  RUN(V86, "verw", "verw ax");
  RUN(V86, "arpl", "arpl ax, bx");
  RUN(V86, "cpuid", "xor eax, eax; cpuid; xor eax, eax; xor ebx, ebx; xor ecx, ecx; xor edx, edx");
  RUN(V86, "rdtsc", "rdtsc; xor eax, eax; xor edx, edx");
  RUN(V86, "ud2", "nop; ud2");
  RUN(V86, "div", "xor cx, cx; div cx");
  RUN(V86, "bound", "mov bx, 0x100; mov word ptr [bx], 1; mov word ptr [bx+2], 5; mov ax, 7; bound ax, [bx]");
  RUN(V86, "sysenter", ".byte 0x0f, 0x34");
  RUN(V86, "lock", "lock inc word ptr [bx]; nop");
  RUN(V86, "lock register", ".byte 0xf0; inc ax");
  RUN(V86, "enter", "mov bp, 0x700; enter 8, 1; leave");
  RUN(V86, "far call", "push cs; pop ax; .byte 0x9a, 8, 0, 0, 0x0a; nop; pop cx; pop cx");
  RUN(V86, "far return", "push 0xa00; push 8; retf; ud2; nop; nop");
  RUN(V86, "load segments", "mov ax, 0x1234; mov es, ax; mov fs, ax; mov ax, 3; mov gs, ax; push gs; pop cx");
  RUN(V86, "mov to cs", ".byte 0x8e, 0xc8");
  RUN(V86, "ss", "mov ax, ss; mov ss, ax; nop; push ss; pop ax");
}
static void limits(void) {
  put("-- limits\n");
  RUN(V86, "word at ffff", "mov bx, 0xffff; mov ax, [bx]");
  RUN(V86, "byte at ffff", "mov bx, 0xffff; mov al, [bx]; xor ax, ax");
  RUN(V86, "stack word at ffff", "mov bp, 0xffff; mov ax, [bp]");
  RUN(V86, "push at 1", "mov sp, 1; push ax");
  RUN(V86, "push at 0", "mov sp, 0; push ax; mov cx, sp");
  RUN(V86, "32-bit address", "mov ebx, 0x10000; mov al, [ebx]");
  RUN(V86, "jump beyond", "mov eax, 0x10000; jmp eax");
  RUN(V86, "segment over 1 MiB", "mov ax, 0xffff; mov es, ax; mov cx, es:[0x10]; mov dx, 0; mov ds, dx; xor cx, cx");
  RUN(V86, "string", "mov di, 0x200; mov cx, 4; mov al, 0x55; cld; rep stosb; mov ax, [di-2]");
  RUN(V86, "string over the end", "mov di, 0xfffe; mov cx, 4; cld; rep stosb");
}
static void bitmap(void) {
  put("-- i/o bitmap\n");
  u8* const tss = (u8*)tss32;
  static u8 saved[128];
  memcpy(saved, tss, sizeof saved);
  // The bitmap stands at 104, and the segment ends 24 bytes on: ports up to 0xb7.
  memset(tss + 104, 0xff, 24);
  tss[104 + 0x80 / 8] = 0xfe;  // port 80h
  AT(IOPL0, "out 80", "out 0x80, al");
  AT(IOPL3, "out 80, iopl 3", "out 0x80, al");
  AT(IOPL3, "out 81, iopl 3", "out 0x81, al");
  AT(IOPL0, "out word 80", "out 0x80, ax");
  AT(IOPL0, "in 3fd beyond", "mov dx, 0x3fd; in al, dx");
  memcpy(tss, saved, sizeof saved);
}
static u32* const pde = (u32*)(POOL + 0x10000);
static void paging(void) {
  put("-- paging\n");
  u32* const low = (u32*)(POOL + 0x12000);
  memset(pde, 0, 4096);
  for (u32 i = 0; i < 4096; ++i) low[i] = i << 12 | P | W | U;
  for (u32 i = 0; i < 4; ++i) pde[i] = (u32)(u64)(low + i * 1024) | P | W | U;
#define PAGED(name, text) RUNP(V86, name, (in.cr0 |= 0x80010000, in.cr3 = (u64)pde), text)
  PAGED("plain", "mov ax, [bx]; xor ax, ax");
  low[0x20] = 0x20000 | P | W;  // the kernel's: virtual-8086 code is CPL 3
  PAGED("supervisor page", "mov ax, 0x2000; mov es, ax; mov cx, es:[0]");
  low[0x20] = 0x20000 | P | U;
  PAGED("read-only page", "mov ax, 0x2000; mov es, ax; mov es:[0x123], cx");
  low[0x20] = 0x30000 | P | W | U;  // one page shown at another place
  *(volatile u32*)0x30008UL = 0x12345678;
  PAGED("mapped elsewhere", "mov ax, 0x2000; mov es, ax; mov ecx, es:[8]");
  low[0x20] = 0;
  PAGED("over two pages", "mov ax, 0x1fff; mov es, ax; mov ecx, es:[0xe]");
}
// From the kernel into virtual-8086 mode and back, in one snippet of 32-bit code: the frame, and what the segments are.
static void round_trip(void) {
  put("-- round trip\n");
  memcpy((void*)0xa000UL, CODE(".code16", "inc cx; mov ax, ds; mov dx, fs"), 64);
  RUN(L32, "iretd to v86", "push 0x4444; push 0x3333; push 0x2222; push 0x1111; push 0xb00; push 0x700; push 0x23002; push 0xa00; push 0; iretd");
  say("frame: ds %x es %x fs %x gs %x ss %x sp %x\n", out.ds, out.es, out.fs, out.gs, out.ss, out.gpr[RSP] & 0xffff);
  RUN(L32, "iretd, ip beyond the limit", "push 0x4444; push 0x3333; push 0x2222; push 0x1111; push 0xb00; push 0x700; push 0x23002; push 0xa00; push 0x10000; iretd");
  RUN(L32U, "vm flag from cpl 3", "pushfd; or dword ptr [esp], 0x20000; popfd; pushfd; pop eax");
  RUN(L32, "vm flag by popf", "pushfd; or dword ptr [esp], 0x20000; popfd; pushfd; pop eax");
  RUNP(V86, "nested task flag", in.rflags |= 0x4000, "pushf; pop ax");
}
static void gates(void) {
  put("-- gates\n");
  extern u64 legacy_idt[256];
  const u64 saved = legacy_idt[0x81];
  legacy_idt[0x81] |= 0x60UL << 40;
  RUN(V86, "gate of dpl 3", "int 0x81");
  legacy_idt[0x81] = (legacy_idt[0x81] & ~0xffff0000UL) | (u64)UCS32 << 16;  // the handler's code at CPL 3
  RUN(V86, "handler at cpl 3", "int 0x81");
  gdt[FREE / 8] = descriptor(0, 0xfffff, 0xc09f);  // conforming: CPL would stay 3
  legacy_idt[0x81] = (legacy_idt[0x81] & ~0xffff0000UL) | (u64)FREE << 16;
  RUN(V86, "conforming handler", "int 0x81");
  legacy_idt[0x81] = saved & ~(0x80UL << 40);
  RUN(V86, "absent gate", "int 0x81");
  legacy_idt[0x81] = saved;
}
void test_main(void) {
  flags_shown = 0x267700;
  sensitive(IOPL3, "iopl 3");
  sensitive(IOPL0, "iopl 0");
  everywhere();
  limits();
  bitmap();
  paging();
  round_trip();
  gates();
}
