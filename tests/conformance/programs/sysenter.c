// SYSENTER and SYSEXIT in protected mode: the code and stack segments they make, the flags they change, what they refuse.
#include "../runtime/runtime.h"

static void landing(const char* code, u64 stack) {
  wrmsr(0x174, KCS32);
  wrmsr(0x175, stack);
  wrmsr(0x176, (u64)code);
}
void test_main(void) {
  static const char* entry;
  entry = CODE(".code32", "nop; pushfd; pop eax; mov ebx, ss; mov edx, cs; push ecx; pop ecx");
  landing(entry, (u64)kernel_stack + 1024);
  // The selectors after SYSENTER come from the MSR alone: CS and CS + 8.
  setup(L32U);
  in.rflags = 0x3202 & ~0x200UL;
  run(CODE(".code32", "nop; sysenter"));
  say("sysenter: end %x cs %x ss %x sp %x dx %x bx %x flags %x\n", out.vector, out.cs, out.ss, out.gpr[RSP], out.gpr[RDX], out.gpr[RBX], out.gpr[RAX]);
  setup(L32);
  run(CODE(".code32", "nop; sysenter"));
  say("from cpl 0: end %x cs %x ss %x dx %x bx %x\n", out.vector, out.cs, out.ss, out.gpr[RDX], out.gpr[RBX]);
  wrmsr(0x174, KCS32 | 3);
  setup(L32U);
  run(CODE(".code32", "nop; sysenter"));
  say("rpl in the msr: end %x cs %x ss %x dx %x bx %x\n", out.vector, out.cs, out.ss, out.gpr[RDX], out.gpr[RBX]);
  wrmsr(0x174, 0);
  RUN(L32U, "null cs", "nop; sysenter");
  RUN(L32, "exit with null cs", "nop; sysexit");
  wrmsr(0x174, 3);
  RUN(L32U, "null cs with rpl", "nop; sysenter");
  wrmsr(0x174, 0xffff0000 | KCS32);
  setup(L32U);
  run(CODE(".code32", "nop; sysenter"));
  say("upper bits of the msr: end %x cs %x\n", out.vector, out.cs);
  // SYSEXIT: CS + 16 and CS + 24, with RPL 3; EIP and ESP from EDX and ECX.
  wrmsr(0x174, KCS32 - 0x10 + 3);  // so that CS is 18h + 3 …
  static const char* user;
  user = CODE(".code32", "nop; mov eax, cs; mov ebx, ss; push eax; pop eax");
  setup(L32);
  in.gpr[RDX] = (u64)user;
  in.gpr[RCX] = (u64)user_stack + 2048;
  run(CODE(".code32", "nop; sysexit"));
  say("sysexit: end %x cs %x ss %x sp %x ax %x bx %x\n", out.vector, out.cs, out.ss, out.gpr[RSP] - (u64)user_stack, out.gpr[RAX], out.gpr[RBX]);
  RUN(L32U, "sysexit at cpl 3", "nop; sysexit");
  RUN(REAL, "sysenter in real mode", ".byte 0x0f, 0x34");
  RUN(REAL, "sysexit in real mode", ".byte 0x0f, 0x35");
  // What the MSRs hold.
  wrmsr(0x175, 0x123456789a);
  wrmsr(0x176, 0x7fffffffffff);
  say("msrs %x %x\n", rdmsr(0x175), rdmsr(0x176));
  RUN(M64, "not canonical", "mov ecx, 0x175; xor eax, eax; mov edx, 0x8000; wrmsr");
}
