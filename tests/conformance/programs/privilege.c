// CPL 3 and its gates: privileged instructions, IOPL and the I/O bitmap, UMIP, CR4 bits, system calls and returns, stack
// switches through the TSS and the IST.
#include "../runtime/runtime.h"

static void privileged(enum mode mode) {
  (void)mode;
  RUN(M64U, "hlt", "hlt");
  RUN(M64U, "cli", "cli");
  RUN(M64U, "sti", "sti");
  RUN(M64U, "mov from cr0", "mov rax, cr0");
  RUN(M64U, "mov to cr3", "mov cr3, rax");
  RUN(M64U, "mov from cr8", "mov rax, cr8");
  RUN(M64U, "mov from dr7", "mov rax, dr7");
  RUN(M64U, "clts", "clts");
  RUN(M64U, "lmsw", "lmsw ax");
  RUN(M64U, "invd", "invd");
  RUN(M64U, "wbinvd", "wbinvd");
  RUN(M64U, "invlpg", "invlpg [rax]");
  RUN(M64U, "rdmsr", "mov ecx, 0xc0000080; rdmsr");
  RUN(M64U, "wrmsr", "mov ecx, 0xc0000080; wrmsr");
  RUN(M64U, "lgdt", "lgdt [rsp]");
  RUN(M64U, "lidt", "lidt [rsp]");
  RUN(M64U, "ltr", "ltr ax");
  RUN(M64U, "swapgs", "swapgs");
  RUN(M64U, "sysret", ".byte 0x0f, 0x07");
  RUN(M64U, "xsetbv", "xsetbv");
  RUN(M64U, "iretq to kernel", "mov rax, rsp; push 0x10; push rax; push 2; push 8; push 0; iretq; xor eax, eax");
  RUN(M64U, "in", "in al, 0x61");
  RUN(M64U, "out", "out 0x61, al");
  RUN(M64U, "in dx", "mov edx, 0x3fd; in al, dx");
  RUN(M64U, "insb", "mov edx, 0x3fd; lea rdi, [rsp]; insb");
  RUN(M64U, "outsb", "mov edx, 0x3fd; lea rsi, [rsp]; outsb");
  RUN(M32U, "hlt 32", "hlt");
  RUN(M32U, "mov ds kernel", "mov eax, 0x10; mov ds, eax");
}
static void io_bitmap(void) {
  tss64.bitmap[0x80 / 8] &= ~1;        // port 80h
  tss64.bitmap[0x90 / 8] &= 0xfc;      // 90h and 91h
  RUN(M64U, "bitmap out 80", "out 0x80, al");
  RUN(M64U, "bitmap out 81", "out 0x81, al");
  RUN(M64U, "bitmap word at 80", "out 0x80, ax");
  RUN(M64U, "bitmap word at 90", "out 0x90, ax");
  RUN(M64U, "bitmap dword at 90", "out 0x90, eax");
  RUN(M64U, "bitmap beyond", "mov edx, 0x1000; out dx, al");
  RUNP(M64U, "iopl 3", in.rflags |= 0x3000, "out 0x81, al; cli; sti; cli; pushfq; pop rax; and eax, 0x3200");
  RUNP(M64U, "iopl 1", in.rflags |= 0x1000, "cli");
  RUNP(M64U, "popf at cpl 3", in.rflags |= 0x1000, "push 0x3a00; popfq; pushfq; pop rax; and eax, 0x3e00");
  RUNP(M64U, "popf at iopl 3", in.rflags |= 0x3000, "push 0x0200; popfq; pushfq; pop rax; and eax, 0x3e00");
  RUN(M64, "popf at cpl 0", "push 0x3000; popfq; pushfq; pop rax; and eax, 0x3200; push 2; popfq");
  RUN(M64, "popf other bits", "push -1; and dword ptr [rsp], 0x3fcaff; popfq; pushfq; pop rax; push 2; popfq; and eax, 0x3fc000");
  RUN(M64, "popfw", "push 0x0800; popfw; pushfw; pop ax; pop cx; pop cx; pop cx");
}
static void umip(void) {
  RUN(M64U, "sgdt", "sgdt [rsp]; mov ax, [rsp]; xor eax, eax");
  RUN(M64U, "smsw", "smsw eax; and eax, 0xffff");
  RUN(M64U, "str", "str eax");
  const u64 cr4 = read_cr4();
  u32 r[4];
  cpuid(7, 0, r);
  if (!(r[2] >> 2 & 1)) {
    put("no umip\n");
    return;
  }
  write_cr4(cr4 | 0x800);
  RUN(M64U, "umip sgdt", "sgdt [rsp]");
  RUN(M64U, "umip sidt", "sidt [rsp]");
  RUN(M64U, "umip sldt", "sldt eax");
  RUN(M64U, "umip str", "str eax");
  RUN(M64U, "umip smsw", "smsw eax");
  RUN(M64, "umip kernel", "str eax; sldt ecx");
  write_cr4(cr4);
}
static void cr4_bits(void) {
  const u64 cr4 = read_cr4();
  RUN(M64U, "rdtsc", "rdtsc; xor eax, eax; xor edx, edx");
  write_cr4(cr4 | 4);
  RUN(M64U, "rdtsc tsd", "rdtsc");
  RUN(M64U, "rdtscp tsd", "rdtscp");
  RUN(M64, "rdtsc tsd kernel", "rdtsc; xor eax, eax; xor edx, edx");
  write_cr4(cr4);
  RUN(M64U, "rdfsbase off", "rdfsbase rax");
  RUN(M64, "wrgsbase off", "wrgsbase rax");
  write_cr4(cr4 | 0x10000);
  RUN(M64U, "fsgsbase", "mov eax, 0x1234; wrfsbase rax; xor eax, eax; rdfsbase rax; mov ecx, 0x77; wrgsbase ecx; rdgsbase rdx");
  RUN(M64U, "wrfsbase noncanonical", "mov rax, 0x800000000000; wrfsbase rax");
  RUN(M64U, "wrfsbase 32", "mov rax, 0x8000000000001234; wrfsbase eax; rdfsbase rcx");
  RUN(M32, "rdfsbase 32", ".byte 0xf3, 0x0f, 0xae, 0xc0");
  write_cr4(cr4);
  wrmsr(0xc0000100, 0);
  wrmsr(0xc0000101, 0x1000);
  wrmsr(0xc0000102, 0x2000);
  RUN(M64, "swapgs", "swapgs; mov ecx, 0xc0000101; rdmsr; mov ebx, eax; mov ecx, 0xc0000102; rdmsr");
  wrmsr(0xc0000101, 0);
  RUN(M32, "swapgs 32", ".byte 0x0f, 0x01, 0xf8");
}
extern const char syscall_landing[];
asm(".pushsection .text\nsyscall_landing: int $0x80\n.popsection");
static void system_calls(void) {
  const u64 efer = rdmsr(0xc0000080);
  RUN(M64U, "syscall without sce", "syscall");
  RUN(M64, "sysret without sce", ".byte 0x0f, 0x07");
  wrmsr(0xc0000080, efer | 1);
  wrmsr(0xc0000081, (u64)(UCS32 & ~3) << 48 | (u64)KCS64 << 32);
  wrmsr(0xc0000082, (u64)syscall_landing);
  wrmsr(0xc0000084, 0x700);
  flags_shown |= 0x8d5;
  setup(M64U);
  in.rflags = 0xed7;
  run(CODE(".code64", "nop; syscall"));
  say("syscall: vector %x cs %x ss %x r11 %x rcx-rip %x flags %x\n", out.vector, out.cs, out.ss, out.gpr[R11],
      out.gpr[RCX] - in.rip, out.rflags & flags_shown);
  setup(M64);
  in.gpr[R11] = 0x202ed7 & ~0x200;
  static const char* target;
  target = CODE(".code64", "nop");
  in.gpr[RCX] = (u64)target + USER_ALIAS;
  in.rflags = 2;
  run(CODE(".code64", "lea rsp, [rsp-64]; .byte 0x48, 0x0f, 0x07"));
  say("sysretq: vector %x cs %x ss %x rip %x flags %x\n", out.vector, out.cs, out.ss, out.rip - (u64)target - USER_ALIAS, out.rflags & flags_shown);
  setup(M64);
  in.gpr[R11] = 2;
  target = CODE(".code32", "nop");
  in.gpr[RCX] = (u64)target + USER_ALIAS;
  run(CODE(".code64", ".byte 0x0f, 0x07"));
  say("sysretl: vector %x cs %x ss %x rip %x\n", out.vector, out.cs, out.ss, out.rip - (u64)target - USER_ALIAS);
  flags_shown &= ~0x8d5UL;
  RUNP(M64, "sysretq noncanonical", in.gpr[RCX] = 0x800000000000, ".byte 0x48, 0x0f, 0x07");
  wrmsr(0xc0000080, efer);
}
static void stack_switch(void) {
  // INT from CPL 3 without an IST: RSP0, aligned; from CPL 0: the same stack, aligned to 16.
  const u64 saved = idt[2 * 0x80];
  idt[2 * 0x80] &= ~(7UL << 32);
  setup(M64U);
  in.gpr[RSP] -= 3;
  run(CODE(".code64", "nop"));
  report("rsp0", 0);
  setup(M64);
  in.gpr[RSP] -= 5;
  run(CODE(".code64", "nop"));
  report("same stack", 0);
  idt[2 * 0x80] = saved;
  const u64 rsp0 = tss64.rsp[0];
  idt[2 * 6] &= ~(7UL << 32);
  tss64.rsp[0] = WINDOW + 0x100000;  // not mapped: the fault is in the delivery
  RUN(M64U, "rsp0 not mapped", "nop; ud2");
  tss64.rsp[0] = rsp0;
  idt[2 * 6] |= 2UL << 32;
  tss64.ist[1] = WINDOW + 0x100000;
  RUN(M64, "ist not mapped", "nop; ud2");
  idt[2 * 6] = (idt[2 * 6] & ~(7UL << 32)) | 1UL << 32;
}
static void returns(void) {
  quiet_registers = true;  // they hold addresses
#define FRAME(name, mode, ss, flags, cs, text) RUN(mode, name, "lea rdx, [rip+9f]; mov rbx, rsp; push " #ss "; push rbx; push " #flags "; push " #cs "; push rdx; " text "; ud2; 9: nop; xor edx, edx; xor ebx, ebx")
  FRAME("iretq same", M64, 0x10, 2, 8, "iretq");
  FRAME("iretq null ss", M64, 0, 2, 8, "iretq");
  FRAME("iretq null cs", M64, 0x10, 2, 0, "iretq; xor edx, edx; xor ebx, ebx");
  FRAME("iretq data cs", M64, 0x10, 2, 0x10, "iretq");
  FRAME("iretq ss rpl", M64, 0x2b, 2, 8, "iretq");
  FRAME("iretq cs beyond", M64, 0x10, 2, 0x200, "iretq");
  FRAME("iretq user from user", M64U, 0x2b, 2, 0x33, "iretq");
  FRAME("iretq nt", M64, 0x10, 2, 8, "pushfq; or dword ptr [rsp], 0x4000; popfq; iretq");
  quiet_registers = false;
  RUN(M64, "retf same", "lea rdx, [rip+9f]; push 8; push rdx; retfq; ud2; 9: xor edx, edx");
  RUN(M64, "retf 16", "lea rdx, [rip+9f]; push 0; push 0; push 8; push rdx; retfq 16; ud2; 9: xor edx, edx");
  RUN(M64, "retf to compat", "lea edx, [rip+9f]; push 0x18; push rdx; retfq; ud2; 9: .code32; dec edx; xor edx, edx; int 0x80; .code64");
  RUN(M64, "retf bad cs", "push 0x10; push 0; retfq");
  RUN(M64, "retf null", "push 0; push 0; retfq");
  RUN(M64U, "retf to kernel", "push 8; push 0; retfq");
  RUN(M64, "far jmp mem", "lea edx, [rip+9f]; push 0; mov [rsp], edx; mov dword ptr [rsp+4], 8; jmp fword ptr [rsp]; ud2; 9: xor edx, edx");
  RUN(M64, "far jmp mem 64", "lea edx, [rip+9f]; push 8; push rdx; .byte 0x48, 0xff, 0x2c, 0x24; ud2; 9: xor edx, edx");
  RUN(M64, "far jmp to tss", "push 0; mov dword ptr [rsp+4], 0x48; jmp fword ptr [rsp]");
  RUN(M64, "far jmp null", "push 0; push 0; jmp fword ptr [rsp]");
  RUN(M64, "far call mem", "lea edx, [rip+9f]; push 0; mov [rsp], edx; mov dword ptr [rsp+4], 8; call fword ptr [rsp]; 9: pop rdx; pop rcx; xor edx, edx; xor ecx, ecx");
  RUN(M32, "far jmp imm", "jmp 0x18:9f; ud2; 9: nop");
  RUN(M32, "far call imm and retf", "call 0x18:9f; jmp 8f; 9: retf; 8: nop");
  RUN(M32, "far jmp to 64", "jmp 8:9f; ud2; 9: .code64; mov rax, -1; inc eax; int 0x80; .code32");
  RUN(M32, "iretd", "mov edx, offset 9f; pushfd; push 0x18; push edx; iretd; ud2; 9: xor edx, edx");
  RUN(M32U, "retf outer from user", "push 0x18; push 0; retf");
}
void test_main(void) {
  privileged(M64U);
  io_bitmap();
  umip();
  cr4_bits();
  system_calls();
  stack_switch();
  returns();
}
