// See runtime.h.
#include "runtime.h"

#include <stdarg.h>

u64 gdt[64] __attribute__((aligned(16)));
u64 idt[512] __attribute__((aligned(16)));
static u64 pdpt[512] __attribute__((aligned(4096)));
static u64 pd[4][512] __attribute__((aligned(4096)));
u64 window_pt[512] __attribute__((aligned(4096)));
u64* const window_pd = pd[1];
struct tss tss64 __attribute__((aligned(16)));
u32 tss32[32];
u8 ist_stack[8192] __attribute__((aligned(16)));

struct cpu in, out;
u64 flags_shown = 0x267700;  // all but the arithmetic ones, RF and VIF
bool quiet_registers;
bool (*hook)(struct cpu*);
bool running;  // for the stubs: a snippet is

extern struct cpu low_ctx;
extern const u64 long_stubs[256];
extern const u32 legacy_stubs[256];
extern const u16 real_stubs[256];
extern u64 legacy_idt[256];
void run_long(void);
void run_legacy(void);
void load_tables(void);

// ---- output ---------------------------------------------------------------------------------------------------------
static void put_char(char c) {
  while (!(in8(0x3fd) & 0x20)) {
  }
  out8(0x3f8, (u8)c);
}
void put(const char* text) {
  for (; *text; ++text) {
    if (*text == '\n') put_char('\r');
    put_char(*text);
  }
}
static void put_number(u64 v, unsigned base) {
  char digits[24];
  int n = 0;
  do {
    digits[n++] = "0123456789abcdef"[v % base];
    v /= base;
  } while (v);
  while (n) put_char(digits[--n]);
}
void say(const char* f, ...) {
  va_list list;
  va_start(list, f);
  for (; *f; ++f) {
    if (*f != '%') {
      const char one[2] = {*f, 0};
      put(one);
      continue;
    }
    ++f;
    if (*f == 's') put(va_arg(list, const char*));
    else if (*f == 'c') put_char((char)va_arg(list, int));
    else put_number(va_arg(list, u64), *f == 'x' ? 16 : 10);
  }
  va_end(list);
}
_Noreturn void finish(unsigned status) {
  // Let the last byte leave the transmitter.
  while (!(in8(0x3fd) & 0x40)) {
  }
  out32(0xf4, status);
  for (const char* p = "Shutdown"; *p; ++p) out8(0x8900, (u8)*p);  // Bochs
  for (;;) asm volatile("cli; hlt");
}
void* memset(void* at, int value, unsigned long size) {
  void* p = at;
  asm volatile("rep stosb" : "+D"(p), "+c"(size) : "a"(value) : "memory");
  return at;
}
void* memcpy(void* to, const void* from, unsigned long size) {
  void* p = to;
  asm volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(size)::"memory");
  return to;
}
u64 hash(const void* data, unsigned long size) {  // FNV-1a
  u64 h = 0xcbf29ce484222325;
  for (const u8* p = data; size--; ++p) h = (h ^ *p) * 0x100000001b3;
  return h;
}

// ---- tables ---------------------------------------------------------------------------------------------------------
u64 descriptor(u32 base, u32 limit, u32 attributes) {
  u64 d = (u64)(attributes & 0xf0ff) << 40;
  return d | (limit & 0xffff) | (u64)(limit >> 16 & 0xf) << 48 | (u64)(base & 0xffffff) << 16 | (u64)(base >> 24) << 56;
}
void set_gate(unsigned vector, u64 handler, u16 selector, u8 ist, u8 type) {
  idt[2 * vector] = (handler & 0xffff) | (u64)selector << 16 | (u64)(ist & 7) << 32 | (u64)type << 40 | (handler >> 16 & 0xffff) << 48;
  idt[2 * vector + 1] = handler >> 32;
}
void map(unsigned page, u64 physical, u64 flags) {
  window_pt[page] = physical | flags;
  invlpg(WINDOW + page * 4096UL);
}

static void set_up_tables(void) {
  memset(pml4, 0, 4096);
  gdt[KCS64 / 8] = 0x00af9b000000ffff;
  gdt[KDS / 8] = 0x00cf93000000ffff;
  gdt[KCS32 / 8] = 0x00cf9b000000ffff;
  gdt[UCS32 / 8] = 0x00cffb000000ffff;
  gdt[UDS / 8] = 0x00cff3000000ffff;
  gdt[UCS64 / 8] = 0x00affb000000ffff;
  gdt[CS16_LOW / 8] = 0x00009b000000ffff;
  gdt[DS16_LOW / 8] = 0x000093000000ffff;
  gdt[TSS64 / 8] = descriptor((u32)(u64)&tss64, sizeof tss64 - 1, 0x89);
  gdt[TSS32 / 8] = descriptor((u32)(u64)tss32, sizeof tss32 - 1, 0x89);
  gdt[62] = gdt[TSS32 / 8];  // for the way back
  tss64.rsp[0] = PRIVILEGE_STACK;
  tss64.ist[0] = (u64)ist_stack + sizeof ist_stack;
  tss64.iomap = 104;
  memset(tss64.bitmap, 0xff, sizeof tss64.bitmap);
  tss32[2] = KDS;
  tss32[25] = 104 << 16;
  for (unsigned v = 0; v < 256; ++v) {
    const u8 dpl = v == 3 || v == 4 || v == 0x80 ? 0x60 : 0;
    set_gate(v, long_stubs[v], KCS64, 1, 0x8e | dpl);
    legacy_idt[v] = (legacy_stubs[v] & 0xffff) | KCS32 << 16 | (u64)(0x8e | dpl) << 40 | (u64)(legacy_stubs[v] >> 16) << 48;
  }
  for (unsigned i = 0; i < 4; ++i) {
    pdpt[i] = (u64)pd[i] | P | W | U;
    for (u64 j = 0; j < 512; ++j) pd[i][j] = (i * 512UL + j) << 21 | P | W | PS | A | D;
  }
  pd[1][0] = (u64)window_pt | P | W | U;
  for (u64 j = 0; j < 8; ++j) pd[3][j] = j << 21 | P | W | U | PS | A | D;
  pml4[0] = (u64)pdpt | P | W | U;
}

void runtime_start(void) {
  set_up_tables();
  write_cr3((u64)pml4);
  load_tables();
  asm volatile("lldt %w0" ::"r"(0));
  out8(0x21, 0xff);  // both PICs masked
  out8(0xa1, 0xff);
  out8(0x3f9, 0);  // 16550: no interrupts, 115200 8n1, FIFO
  out8(0x3fb, 0x80);
  out8(0x3f8, 1);
  out8(0x3f9, 0);
  out8(0x3fb, 3);
  out8(0x3fa, 7);
  test_main();
  put("end\n");
  finish(0);
}

// ---- running --------------------------------------------------------------------------------------------------------
void setup(enum mode mode) {
  for (u64 i = 0; i < 16; ++i) in.gpr[i] = 0x1111111100000000 * (i & 7) + 0x01010101 * (i + 0x10);
  const bool user = mode == M64U || mode == M32U || mode == M16U || mode == L32U;
  if (mode >= M32)
    for (u64 i = 0; i < 16; ++i) in.gpr[i] &= 0xffffffff;
  memset(user_stack, 0, 4096);
  memset(kernel_stack, 0, 4096);
  in.rflags = 2;
  in.mode = mode;
  in.ss = in.ds = in.es = in.fs = in.gs = user ? UDS : KDS;
  static const u16 code[] = {KCS64, UCS64, KCS32, UCS32, KCS16, UCS16, KCS32, UCS32, KCS16, 0x0a00, 0x0a00};
  in.cs = code[mode];
  in.gpr[RSP] = user ? (u64)user_stack + 2048 + USER_ALIAS : (u64)kernel_stack + 2048;
  if (mode >= L32) in.gpr[RSP] = user ? (u64)user_stack + 2048 : 0x8800;
  in.cr0 = 0x33;
  in.cr3 = in.cr4 = 0;
  if (mode == REAL || mode == V86) {
    if (mode == REAL) in.cr0 = 0x32;
    else in.rflags = 0x23002;  // VM, IOPL 3
    in.ss = in.ds = in.es = in.fs = in.gs = 0x0b00;
    in.gpr[RSP] = 0x800;
  }
}

// What a pushed RIP of `code`'s first byte reads as in this mode.
static u64 entry_point(const char* code) {
  switch (in.mode) {
    case M64U: case M32U: return (u64)code + USER_ALIAS;
    case M16: case L16: gdt[KCS16 / 8] = descriptor((u32)(u64)code, 0xffff, 0x9b); return 0;
    case M16U: gdt[UCS16 / 8] = descriptor((u32)((u64)code + USER_ALIAS), 0xffff, 0xfb); return 0;
    case REAL: case V86: memcpy((void*)0xa000, code, 512); return 0;
    default: return (u64)code;
  }
}

static bool is_legacy(void) { return in.mode >= L32; }

void run(const char* code) {
  in.rip = entry_point(code);
  running = true;
  if (is_legacy()) {
    if (in.mode == REAL)
      for (unsigned v = 0; v < 256; ++v) *(volatile u32*)(v * 4UL) = real_stubs[v];
    low_ctx = in;
    tss32[1] = 0x9800;
    gdt[TSS32 / 8] &= ~(2UL << 40);
    run_legacy();
    out = low_ctx;
    gdt[TSS64 / 8] &= ~(2UL << 40);
    load_tables();
  } else {
    run_long();
  }
  running = false;
  out.mode = in.mode;
}

static void put_vector(u64 v, u64 error) {
  static const char* const names[] = {"DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "9",  "TS",
                                      "NP", "SS", "GP",  "PF", "15", "MF", "AC", "MC", "XM", "20", "CP"};
  if (v > 21) {
    say("int %x", v);
    return;
  }
  say("#%s", names[v]);
  if (v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21) say("(%x)", error);
  if (v == 14) say(" cr2=%x", out.cr2);
}

void report(const char* name, const char* code) {
  static const char* const names[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di",
                                      "8",  "9",  "10", "11", "12", "13", "14", "15"};
  say("%s: ", name);
  if (out.vector == ENDED) put("ok");
  else {
    put_vector(out.vector, out.error);
    const u64 start = code ? entry_point(code) : 0;
    if (out.rip - start < 4096) say(" at +%x", out.rip - start);
    else if (out.rip - (start - USER_ALIAS) < 4096) say(" at +%x (kernel)", out.rip - start + USER_ALIAS);
    else say(" at %x", out.rip);
  }
  if (out.cs != in.cs) say(" cs=%x", out.cs);
  if (out.ss != in.ss) say(" ss=%x", out.ss);
  for (unsigned i = 0; i < 16 && !quiet_registers; ++i) {
    if (in.mode != M64 && in.mode != M64U && i >= 8) break;
    if (i == RSP) {
      if (out.gpr[i] - in.gpr[i] + 4096 > 8192) say(" sp=%x", out.gpr[i]);
      else if (out.gpr[i] != in.gpr[i])
        say(" sp%c%x", out.gpr[i] > in.gpr[i] ? '+' : '-', out.gpr[i] > in.gpr[i] ? out.gpr[i] - in.gpr[i] : in.gpr[i] - out.gpr[i]);
    } else if (out.gpr[i] != in.gpr[i]) {
      say(" %s=%x", names[i], out.gpr[i]);
    }
  }
  if ((out.rflags ^ in.rflags) & flags_shown || flags_shown & 0x8d5) say(" flags=%x", out.rflags & flags_shown);
  put("\n");
}
void run_and_report(const char* name, const char* code) {
  run(code);
  report(name, code);
}

// Called by the long-mode stubs with the frame they made; true: the snippet goes on with `frame`.
bool on_exception(struct cpu* frame) {
  if (hook && running && hook(frame)) return true;
  if (!running) {
    out = *frame;
    put("unexpected ");
    put_vector(frame->vector, frame->error);
    say(" at %x, rsp %x\n", frame->rip, frame->gpr[RSP]);
    finish(3);
  }
  out = *frame;
  return false;
}
