// Control registers, MSRs and XSAVE: what may be written and what each write faults with.
#include "../runtime/runtime.h"

static void control_registers(void) {
  RUN(M64, "cr0 pg off in 64", "mov rax, cr0; btr rax, 31; mov cr0, rax");
  RUN(M64, "cr0 pe off", "mov rax, cr0; btr rax, 0; mov cr0, rax");
  RUN(M64, "cr0 nw without cd", "mov rax, cr0; bts rax, 29; mov cr0, rax");
  RUN(M64, "cr0 cd", "mov rcx, cr0; mov rax, rcx; bts rax, 30; mov cr0, rax; mov rax, cr0; shr rax, 29; mov cr0, rcx; and eax, 3; xor ecx, ecx");
  RUN(M64, "cr0 high", "mov rax, cr0; bts rax, 40; mov cr0, rax");
  RUN(M64, "cr4 pae off", "mov rax, cr4; btr rax, 5; mov cr4, rax");
  RUN(M64, "cr4 reserved 15", "mov rax, cr4; bts rax, 15; mov cr4, rax");
  RUN(M64, "cr4 reserved 40", "mov rax, cr4; bts rax, 40; mov cr4, rax");
  RUN(M64, "cr3 reserved", "mov rax, cr3; bts rax, 60; mov cr3, rax");
  RUN(M64, "cr8", "mov eax, 5; mov cr8, rax; mov rcx, cr8; xor eax, eax; mov cr8, rax");
  RUN(M64, "cr8 reserved", "mov eax, 16; mov cr8, rax");
  RUN(M64, "lmsw cannot clear pe", "smsw eax; and eax, 0xfffe; lmsw ax; smsw eax; and eax, 1");
  RUN(M64, "lmsw ts", "smsw eax; or eax, 8; lmsw ax; smsw ecx; clts; smsw eax; and eax, 0xf; and ecx, 0xf");
  RUN(M64, "smsw 64", "smsw rax; shr rax, 31");
  RUN(M64, "clts", "clts");
  RUN(M64, "dr6 dr7", "mov rax, dr6; mov rcx, dr7");
  RUN(M64, "dr7 high", "mov rax, 0x100000400; mov dr7, rax");
  RUN(M64, "dr6 high", "mov rax, 0x100000000; mov dr6, rax");
  RUN(M64, "dr0", "mov rax, 0x12345; mov dr0, rax; mov rcx, dr0; xor eax, eax; mov dr0, rax");
  RUN(M64, "dr4 without de", "mov rax, dr4; mov rcx, dr6; sub rax, rcx; xor ecx, ecx");
  const u64 cr4 = read_cr4();
  write_cr4(cr4 | 8);
  RUN(M64, "dr4 with de", "mov rax, dr4");
  write_cr4(cr4);
}
static void msrs(void) {
#define WRITE(name, index, high, low) RUN(M64, name, "mov ecx, " #index "; mov edx, " #high "; mov eax, " #low "; wrmsr; xor eax, eax; xor edx, edx; rdmsr; xor ecx, ecx")
  RUN(M64, "efer", "mov ecx, 0xc0000080; rdmsr; xor ecx, ecx");
  RUN(M64, "efer lme off", "mov ecx, 0xc0000080; rdmsr; btr eax, 8; wrmsr");
  RUN(M64, "efer reserved", "mov ecx, 0xc0000080; rdmsr; bts eax, 1; wrmsr");
  RUN(M64, "efer high", "mov ecx, 0xc0000080; rdmsr; mov edx, 1; wrmsr");
  RUN(M64, "efer lma ignored", "mov ecx, 0xc0000080; rdmsr; btr eax, 10; wrmsr; rdmsr; xor ecx, ecx");
  WRITE("star", 0xc0000081, 0x00230010, 0x12345678);
  WRITE("lstar", 0xc0000082, 0xffff8000, 0x1000);
  WRITE("lstar noncanonical", 0xc0000082, 0x8000, 0);
  WRITE("cstar", 0xc0000083, 0, 0x1000);
  WRITE("sfmask", 0xc0000084, 0, 0x47700);
  WRITE("fs base", 0xc0000100, 0x7fff, 0xfffff000);
  WRITE("fs base noncanonical", 0xc0000100, 0x8000, 0);
  WRITE("gs base noncanonical", 0xc0000101, 0xffff7fff, 0);
  WRITE("kernel gs base", 0xc0000102, 0xffffffff, 0x80000000);
  WRITE("kernel gs base noncanonical", 0xc0000102, 0x8000, 0);
  WRITE("tsc aux", 0xc0000103, 0, 0x1234);
  RUN(M64, "rdtscp aux", "rdtscp; xor eax, eax; xor edx, edx");
  WRITE("pat", 0x277, 0x00070406, 0x00070106);
  WRITE("pat bad type", 0x277, 0, 2);
  WRITE("pat reserved", 0x277, 0x10000000, 0);
  WRITE("pat reset", 0x277, 0x00070406, 0x00070406);
  WRITE("sysenter cs", 0x174, 0, 0x10);
  WRITE("sysenter esp", 0x175, 0, 0x1000);
  WRITE("sysenter eip noncanonical", 0x176, 0x8000, 0);
  WRITE("mtrr def type", 0x2ff, 0, 0xc06);
  WRITE("mtrr def type bad", 0x2ff, 0, 0xc02);
  RUN(M64, "unknown read", "mov ecx, 0x12345; rdmsr");
  RUN(M64, "unknown write", "mov ecx, 0x12345; wrmsr");
  RUN(M64, "unknown high read", "mov ecx, 0xc0001234; rdmsr");
  wrmsr(0xc0000100, 0);
}
static u8 area[4096] __attribute__((aligned(64)));
static void xsave(void) {
  RUN(M64, "xgetbv without osxsave", "xor ecx, ecx; xgetbv");
  RUN(M64, "xsave without osxsave", "xsave [rsp]");
  RUN(M64, "avx without osxsave", "vaddps ymm0, ymm1, ymm2");
  write_cr4(read_cr4() | 0x40000);
  RUN(M64, "xcr0 at reset", "xor ecx, ecx; xgetbv");
  RUN(M64, "avx without xcr0", "vaddps ymm0, ymm1, ymm2");
#define XSETBV(name, index, high, low) RUN(M64, name, "mov ecx, " #index "; mov edx, " #high "; mov eax, " #low "; xsetbv; xgetbv")
  XSETBV("xcr0 without x87", 0, 0, 2);
  XSETBV("xcr0 zero", 0, 0, 0);
  XSETBV("xcr0 avx without sse", 0, 0, 5);
  XSETBV("xcr0 high", 0, 0x80000000, 7);
  XSETBV("xcr1", 1, 0, 7);
  XSETBV("xcr0 x87 sse", 0, 0, 3);
  RUN(M64, "avx with sse only", "vaddps xmm0, xmm1, xmm2");
  XSETBV("xcr0 all", 0, 0, 7);
  RUN(M64, "avx", "vaddps ymm0, ymm1, ymm2");
  u32 r[4];
  cpuid(0xd, 0, r);
  say("xsave size now %d\n", (u64)r[1]);
  cpuid(0xd, 2, r);
  say("avx state %d at %d\n", (u64)r[0], (u64)r[1]);
  cpuid(1, 0, r);
  say("osxsave %d\n", (u64)(r[2] >> 27 & 1));
  static u64 values[4] = {0x1111111122222222, 0x3333333344444444, 0x5555555566666666, 0x7777777788888888};
  asm volatile("vmovdqu %0, %%ymm3; fninit; fld1" ::"m"(values));
  memset(area, 0xee, sizeof area);
  memset(area + 512, 0, 64);
  asm volatile("xsave %0" : "+m"(area) : "a"(7), "d"(0));
  say("xsave: bv %x bytes %x %x, st0 %x, ftw %x\n", *(u64*)(area + 512), *(u64*)(area + 160 + 48), *(u64*)(area + 576 + 48), *(u64*)(area + 32), (u64)area[4]);
  memset(area + 576, 0xee, 256);
  asm volatile("xsave %0" : "+m"(area) : "a"(3), "d"(0));
  say("xsave without avx: bv %x high %x\n", *(u64*)(area + 512), *(u64*)(area + 576 + 48));
  asm volatile("xsave %0" : "+m"(area) : "a"(7), "d"(0));
  *(u64*)(area + 160 + 48) = 0x9999;
  *(u64*)(area + 512) = 2;  // only SSE comes from memory, AVX and x87 are initialised
  asm volatile("xrstor %1; vmovdqu %%ymm3, %0; fnstenv %2" : "=m"(values), "+m"(area), "=m"(area[1024]) : "a"(7), "d"(0));
  say("xrstor: %x %x %x %x, x87 tags %x\n", values[0], values[1], values[2], values[3], (u64) * (u16*)(area + 1024 + 8));
  asm volatile("fninit");
#define HEADER(name, offset, value) do { memset(area + 512, 0, 64); area[512] = 7; *(u64*)(area + offset) = value; setup(M64); \
    in.gpr[RDI] = (u64)area; in.gpr[RAX] = 7; in.gpr[RDX] = 0; run(CODE(".code64", "xrstor [rdi]")); say("%s: %x %x\n", name, out.vector, out.error); } while (0)
  HEADER("xrstor bv beyond xcr0", 512, 15);
  HEADER("xrstor header 16", 528, 1);
  HEADER("xrstor mxcsr reserved", 24, 0x1000000000000000 | 0x10000);
  *(u32*)(area + 24) = 0x1f80;
  HEADER("xrstor ok", 512, 7);
  asm volatile("vzeroall; fninit");
  setup(M64);
  in.gpr[RDI] = (u64)area + 8;
  run(CODE(".code64", "xsave [rdi]"));
  say("xsave misaligned: %x %x\n", out.vector, out.error);
  write_cr0(read_cr0() | 8);
  RUN(M64, "xsave ts", "lea rsp, [rsp-1024]; and rsp, -64; xsave [rsp]; ");
  RUN(M64, "avx ts", "vaddps ymm0, ymm1, ymm2");
  RUN(M64, "avx gpr only ts", "andn eax, ecx, edx");
  write_cr0(read_cr0() & ~8UL);
  RUN(M32, "avx compat", "vaddps ymm0, ymm1, ymm2");
  RUN(REAL, "avx real", ".byte 0xc5, 0xf4, 0x58, 0xc2");
}
void test_main(void) {
  control_registers();
  msrs();
  xsave();
}
