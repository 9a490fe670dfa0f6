// Loading segment registers and using segments: every check, its error code, and limits where they count.
#include "../runtime/runtime.h"

enum { SEL = FREE };  // descriptors under test start here
static void set(unsigned slot, u32 base, u32 limit, u32 attributes) { gdt[SEL / 8 + slot] = descriptor(base, limit, attributes); }
static u64 ldt[8];

static void loads(enum mode mode, const char* name) {
  // Every type and DPL into DS, SS and FS.
  for (u32 type = 0; type < 32; ++type)
    for (u32 dpl = 0; dpl < 4; dpl += 3) {
      set(0, 0, 0xfffff, 0xc080 | type | dpl << 5);
      set(1, 0, 0xfffff, 0xc000 | type | dpl << 5);
      say("%s type %x dpl %x ", name, (u64)type, (u64)dpl);
      quiet_registers = true;
#define LOAD(m, text, what) do { setup(m); in.gpr[RAX] = SEL | dpl; run(CODE(BITS_M64, text)); \
    say("%s:%x/%x ", what, out.vector, out.error); } while (0)
      LOAD(mode, "mov ds, eax", "ds");
      LOAD(mode, "mov ss, eax", "ss");
      LOAD(mode, "or eax, 3; mov fs, eax", "fs3");
      LOAD(mode, "add eax, 8; mov ds, eax", "np");
      LOAD(mode, "add eax, 8; mov ss, eax", "ssnp");
      put("\n");
      quiet_registers = false;
    }
}
static void null_and_limits(void) {
  RUN(M64, "null ds", "xor eax, eax; mov ds, eax; mov eax, 3; mov es, eax; mov fs, eax");
  RUN(M64, "null ss 64", "xor eax, eax; mov ss, eax; push 1; pop rcx");
  RUN(M64, "null ss rpl 1", "mov eax, 1; mov ss, eax");
  RUN(M64U, "null ss user rpl 3", "mov eax, 3; mov ss, eax");
  RUN(M64U, "null ss user rpl 0", "xor eax, eax; mov ss, eax");
  RUN(M32, "null ss 32", "xor eax, eax; mov ss, eax");
  RUN(M32, "null ds use", "xor eax, eax; mov ds, eax; mov ecx, [0x100000]");
  RUN(M32, "null es use", "xor eax, eax; mov es, eax; mov edi, 0x100000; stosb");
  RUN(M64, "beyond gdt", "mov eax, 0x200; mov ds, eax");
  RUN(M64, "beyond gdt fs", "mov eax, 0xfff8; mov fs, eax");
  RUN(M64, "ldt none", "mov eax, 0x84; mov ds, eax");
  RUN(M64, "tss as ds", "mov eax, 0x48; mov ds, eax");
  RUN(M64, "accessed bit", "lea rsi, [gdt+0x80]; mov dword ptr [rsi], 0xffff; mov dword ptr [rsi+4], 0x00cf9200; mov eax, 0x80; mov ds, eax; mov ecx, [rsi+4]; xor esi, esi");
}
static void compat_limits(void) {
  set(0, 0x00800000, 0x0fff, 0x4093);      // byte limit, 32-bit data
  set(1, 0x00800000, 0x0fff, 0x4097);      // expand down: valid above 0fffh
  set(2, 0x00800000, 0x0fff, 0x0097);      // expand down, 16 bit: 1000h to ffffh
  set(3, 0x00800000, 0x0001, 0xc093);      // two pages
  set(4, 0x00800000, 0x0fff, 0x4091);      // read only
  set(5, 0x00800000, 0x0fff, 0x409a);      // code, readable
  set(6, 0x00800000, 0x0fff, 0x4098);      // code, execute only
#define WITH(name, selector, text) RUN(M32, name, "mov eax, " #selector "; mov ds, eax; " text)
  WITH("last byte", 0x80, "mov cl, [0xfff]");
  WITH("beyond by one", 0x80, "mov cl, [0x1000]");
  WITH("dword at end", 0x80, "mov ecx, [0xffc]");
  WITH("dword over end", 0x80, "mov ecx, [0xffd]");
  WITH("write over end", 0x80, "mov [0xffd], ecx");
  WITH("rmw over end", 0x80, "add dword ptr [0xffe], 1");
  WITH("qword over end", 0x80, "mov ebx, 0xff9; fld qword ptr [ebx]");
  WITH("wraps", 0x80, "mov ecx, [0xffffffff]");
  WITH("sse over end", 0x80, "movups xmm0, [0xff1]");
  WITH("expand down below", 0x88, "mov cl, [0xfff]");
  WITH("expand down at", 0x88, "mov ecx, [0x1000]");
  WITH("expand down top", 0x88, "mov ebx, 0xffffffff; nop");
  WITH("expand down 16 at", 0x90, "mov cl, [0x1000]");
  WITH("expand down 16 end", 0x90, "mov cx, [0xfffe]");
  WITH("expand down 16 over", 0x90, "mov ecx, [0xfffe]");
  WITH("granular in", 0x98, "mov ecx, [0x1ffc]");
  WITH("granular over", 0x98, "mov ecx, [0x1ffd]");
  WITH("read only read", 0xa0, "mov ecx, [0]");
  WITH("read only write", 0xa0, "mov [0], ecx");
  WITH("code read", 0xa8, "mov ecx, [0]");
  WITH("code write", 0xa8, "mov [0], ecx");
  RUN(M32, "execute only load", "mov eax, 0xb0; mov ds, eax");
  RUN(M32, "string source", "mov eax, 0x80; mov ds, eax; mov esi, 0xffe; mov edi, 0x801800; mov ecx, 5; rep movsb");
  RUN(M32, "string target", "mov eax, 0x80; mov es, eax; mov esi, 0x801800; mov edi, 0xffd; mov ecx, 5; rep movsb");
  RUN(M32, "es beyond", "mov eax, 0x80; mov es, eax; mov ecx, es:[0x1000]");
  RUN(M32, "fs base", "mov dword ptr [0x800010], 0x12345678; mov eax, 0x80; mov fs, eax; mov ecx, fs:[0x10]");
  RUN(M32, "fs over", "mov eax, 0x80; mov fs, eax; mov ecx, fs:[0x1000]");
  RUN(M32, "cs read", "mov ecx, cs:[0x100000]; xor ecx, ecx");
  RUN(M32, "cs write", "mov cs:[0x800000], ecx");
  RUN(M32, "stack push beyond", "mov eax, 0x80; mov ss, eax; mov esp, 0x1004; push ecx");
  RUN(M32, "stack push in", "mov ebx, esp; mov eax, 0x80; mov ss, eax; mov esp, 0x1000; push ecx; mov ecx, esp; mov eax, 0x10; mov ss, eax; mov esp, ebx; xor ebx, ebx");
  RUN(M32, "stack pop beyond", "mov eax, 0x80; mov ss, eax; mov esp, 0xffe; pop ecx");
  RUN(M32, "ebp beyond", "mov eax, 0x80; mov ss, eax; mov ebp, 0xffd; mov ecx, [ebp]");
  RUN(M32, "call beyond stack", "mov eax, 0x80; mov ss, eax; mov esp, 2; call 1f; 1: nop");
  RUN(M32, "enter beyond", "mov eax, 0x80; mov ss, eax; mov esp, 0x10; enter 0x100, 0; push ecx");
  RUN(M16, "stack wrap 16", "mov eax, 0x90; mov ss, ax; mov sp, 0; push cx; mov bx, sp");
  RUN(M64, "64 ignores limit", "mov eax, 0x80; mov ds, eax; mov ecx, [0x801000]");
  RUN(M64, "64 ignores type", "mov eax, 0xa0; mov ds, eax; mov ecx, 0x1234; mov [0x801000], ecx");
  RUN(M64, "64 fs base", "mov dword ptr [0x800010], 0x12345678; mov eax, 0x80; mov fs, eax; mov ecx, fs:[0x10]; mov ebx, fs:[0x11110]; xor ebx, ebx");
}
static void queries(void) {
  static const u32 kinds[] = {0x4093, 0xc0fb, 0x40fe, 0x4099, 0x0089, 0x008b, 0x0082, 0x008c, 0x008e, 0x008f, 0x0085, 0x0081, 0x0000, 0x4013, 0xc0f1};
  for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; ++i) {
    set(0, 0x123000, 0x4567, kinds[i]);
    gdt[SEL / 8 + 1] = 0;
    say("%x ", (u64)kinds[i]);
    RUNF(M64, "lar lsl verr verw", "mov eax, 0x80; lar ecx, eax; pushfq; pop rsi; lsl edx, eax; pushfq; pop rdi; verr ax; pushfq; pop r8; verw ax; and esi, 0x40; and edi, 0x40; and r8d, 0x40");
    RUNF(M64U, "  user", "mov eax, 0x83; lar ecx, eax; pushfq; pop rsi; lsl edx, eax; pushfq; pop rdi; verr ax; pushfq; pop r8; verw ax; and esi, 0x40; and edi, 0x40; and r8d, 0x40");
  }
  RUN(M64, "lar null", "xor eax, eax; lar ecx, eax; setz bl");
  RUN(M64, "lar beyond", "mov eax, 0x200; lar ecx, eax; setz bl");
  RUN(M64, "lsl 16", "mov eax, 0x18; lsl cx, ax; lar dx, ax");
  RUN(M64, "lsl 64", "mov eax, 0x18; .byte 0x48, 0x0f, 0x03, 0xc8, 0x48, 0x0f, 0x02, 0xd0");
}
static void local(void) {
  ldt[1] = descriptor(0x800000, 0xfff, 0x40f3);
  gdt[LDT64 / 8] = descriptor((u32)(u64)ldt, sizeof ldt - 1, 0x82);
  gdt[LDT64 / 8 + 1] = 0;
  RUN(M64, "lldt", "mov eax, 0x58; lldt ax; sldt ecx; mov eax, 0x0f; mov ds, eax");
  RUN(M32, "ldt use", "mov eax, 0x0f; mov ds, eax; mov ecx, [0xffd]");
  RUN(M64, "ldt beyond", "mov eax, 0x44; mov ds, eax");
  RUN(M64, "ldt empty", "mov eax, 0x14; mov ds, eax");
  RUN(M64, "lldt wrong type", "mov eax, 0x10; lldt ax");
  RUN(M64, "lldt in ldt", "mov eax, 0x0c; lldt ax");
  RUN(M64, "lldt beyond", "mov eax, 0x200; lldt ax");
  gdt[LDT64 / 8] &= ~(0x80UL << 40);
  RUN(M64, "lldt absent", "mov eax, 0x58; lldt ax");
  RUN(M64, "lldt null", "xor eax, eax; lldt ax; mov eax, 0x0c; mov ds, eax");
  RUN(M64, "ltr busy", "mov eax, 0x48; ltr ax");
  RUN(M64, "ltr wrong", "mov eax, 0x10; ltr ax");
  RUN(M64, "ltr null", "xor eax, eax; ltr ax");
  RUN(M64, "ltr beyond", "mov eax, 0x1f8; mov eax, 0x200; ltr ax");
  RUN(M64U, "lldt user", "xor eax, eax; lldt ax");
  RUN(M64, "str", "str ecx; sldt edx");
}
static void real_limits(void) {
  RUN(REAL, "word at ffff", "mov bx, 0xffff; mov ax, [bx]");
  RUN(REAL, "byte at ffff", "mov bx, 0xffff; mov al, [bx]; xor ax, ax");
  RUN(REAL, "dword at fffd", "mov bx, 0xfffd; mov eax, [bx]");
  RUN(REAL, "stack word at ffff", "mov bp, 0xffff; mov ax, [bp]");
  RUN(REAL, "32-bit address", "mov ebx, 0x10000; mov al, [ebx]");
  RUN(REAL, "index wraps", "mov bx, 0xffff; mov si, 0x11; mov byte ptr [0x10], 0x77; mov al, [bx+si]");
  RUN(REAL, "segment value", "mov ax, 0xb01; mov es, ax; mov byte ptr [0x20], 0x55; mov cl, es:[0x10]");
  RUN(L16, "l16 es", "mov word ptr ds:[0x8000], 0x1234; mov cx, ds:[0x8000]");
}
void test_main(void) {
  memset(pool(0), 0, 0x4000);
  loads(M64, "kernel");
  loads(M64U, "user");
  null_and_limits();
  compat_limits();
  queries();
  local();
  real_limits();
}
