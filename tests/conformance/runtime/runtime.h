// What a bare test program stands on: output, its own descriptor tables and page tables, and `run`, which executes a
// snippet of code in a chosen mode with chosen registers and says how it ended.
#pragma once
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef _Bool bool;
enum { false, true };

// ---- the machine as the runtime sets it up --------------------------------------------------------------------------
enum selector {
  KCS64 = 0x08, KDS = 0x10, KCS32 = 0x18, UCS32 = 0x20 | 3, UDS = 0x28 | 3, UCS64 = 0x30 | 3,
  KCS16 = 0x38, UCS16 = 0x40 | 3, TSS64 = 0x48, LDT64 = 0x58, TSS32 = 0x68, CS16_LOW = 0x70, DS16_LOW = 0x78,
  FREE = 0x80,  // from here on descriptors are the test's own
};
extern u64 gdt[64];
extern u64 idt[512];
struct __attribute__((packed)) tss { u32 reserved; u64 rsp[3]; u64 reserved1; u64 ist[7]; u64 reserved2; u16 reserved3, iomap; u8 bitmap[128]; };
extern struct tss tss64;
extern u32 tss32[32];

// Physical memory from POOL on (to 16 MiB) belongs to the test. WINDOW is 2 MiB of linear addresses in 4 KiB pages.
// Everything below 16 MiB is also at USER_ALIAS, for CPL 3.
// What results can show stands at fixed addresses, so that they do not depend on the compiler.
#define kernel_stack ((u8*)0x200000UL)
#define user_stack ((u8*)0x201000UL)
#define pml4 ((u64*)0x202000UL)
#define PRIVILEGE_STACK 0x204000UL  // RSP0: the end of a page
#define POOL 0x800000UL
#define WINDOW 0x40000000UL
#define USER_ALIAS 0xc0000000UL
enum { P = 1, W = 2, U = 4, PWT = 8, PCD = 16, A = 32, D = 64, PS = 128, G = 256 };
#define NX (1UL << 63)
extern u64 window_pt[512];
extern u64* const window_pd;  // window_pd[0] holds window_pt
void map(unsigned page, u64 physical, u64 flags);  // page: its number in the window; flushes the page
static inline u8* pool(unsigned page) { return (u8*)(POOL + page * 4096UL); }

// ---- running code ---------------------------------------------------------------------------------------------------
enum mode { M64, M64U, M32, M32U, M16, M16U, L32, L32U, L16, REAL, V86 };
enum reg { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
struct cpu {
  u64 gpr[16], rip, rflags, cs, ss, ds, es, fs, gs;
  u64 vector, error, cr2;                // how it ended: 80h is the normal end
  u64 cr0, cr3, cr4;                     // legacy modes only
  u64 mode;
};
enum { ENDED = 0x80 };
extern struct cpu in, out;
extern u64 flags_shown;                  // of RFLAGS, in reports
extern bool quiet_registers;
// Called first on every exception; true: resume the snippet with *out.
extern bool (*hook)(struct cpu*);

void setup(enum mode mode);              // fills `in` with this mode's segments and distinct register values
void run(const char* code);              // in → out
void report(const char* name, const char* code);
void run_and_report(const char* name, const char* code);

// RUN(mode, "name", "intel syntax"): run it and print one line.
#define CODE(bits, text) ({ const char* code_; \
  asm volatile(".pushsection .snippet,\"ax\"\n .balign 16\n" bits "\n.intel_syntax noprefix\n 77:" text "\n int 0x80\n" \
               ".att_syntax\n.code64\n.popsection\n mov $77b, %k0" : "=r"(code_)); code_; })
#define BITS_M64 ".code64"
#define BITS_M64U ".code64"
#define BITS_M32 ".code32"
#define BITS_M32U ".code32"
#define BITS_M16 ".code16"
#define BITS_M16U ".code16"
#define BITS_L32 ".code32"
#define BITS_L32U ".code32"
#define BITS_L16 ".code16"
#define BITS_REAL ".code16"
#define BITS_V86 ".code16"
#define RUN(m, name, text) (setup(m), run_and_report(name, CODE(BITS_##m, text)))
#define RUNF(m, name, text) (flags_shown |= 0x8d5, RUN(m, name, text), flags_shown &= ~0x8d5UL)
// As RUN, after `prepare` changed `in`.
#define RUNP(m, name, prepare, text) do { setup(m); prepare; run_and_report(name, CODE(BITS_##m, text)); } while (0)

// ---- the rest -------------------------------------------------------------------------------------------------------
void test_main(void);                    // each program's own
void put(const char* text);
void say(const char* format, ...);       // %s %x %d (u64), %c
_Noreturn void finish(unsigned status);
void* memset(void* at, int value, unsigned long size);
void* memcpy(void* to, const void* from, unsigned long size);
u64 hash(const void* data, unsigned long size);
u64 descriptor(u32 base, u32 limit, u32 attributes);  // attributes as in a descriptor's bits 40-55
void set_gate(unsigned vector, u64 handler, u16 selector, u8 ist, u8 type);

static inline void out8(u16 port, u8 v) { asm volatile("outb %0, %1" ::"a"(v), "Nd"(port)); }
static inline u8 in8(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static inline void out32(u16 port, u32 v) { asm volatile("outl %0, %1" ::"a"(v), "Nd"(port)); }
static inline u64 rdmsr(u32 i) { u32 a, d; asm volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(i)); return a | (u64)d << 32; }
static inline void wrmsr(u32 i, u64 v) { asm volatile("wrmsr" ::"c"(i), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); }
static inline u64 read_cr0(void) { u64 v; asm volatile("mov %%cr0, %0" : "=r"(v)); return v; }
static inline u64 read_cr3(void) { u64 v; asm volatile("mov %%cr3, %0" : "=r"(v)); return v; }
static inline u64 read_cr4(void) { u64 v; asm volatile("mov %%cr4, %0" : "=r"(v)); return v; }
static inline void write_cr0(u64 v) { asm volatile("mov %0, %%cr0" ::"r"(v) : "memory"); }
static inline void write_cr3(u64 v) { asm volatile("mov %0, %%cr3" ::"r"(v) : "memory"); }
static inline void write_cr4(u64 v) { asm volatile("mov %0, %%cr4" ::"r"(v) : "memory"); }
static inline void invlpg(u64 a) { asm volatile("invlpg (%0)" ::"r"(a) : "memory"); }
static inline void cpuid(u32 leaf, u32 sub, u32 r[4]) {
  asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}
