// Call gates of long mode and of protected mode, 16 and 32 bit: the checks in their order with their error codes, the stack
// they switch to, parameters, and far returns from where they led.
#include "../runtime/runtime.h"

enum { GATE = FREE, CODE_A = FREE + 0x20, STACK_A = FREE + 0x28 };
static void put_gate(u32 offset, u16 selector, u32 attributes, u8 count) {  // attributes: type, DPL, P as in bits 8 to 15
  gdt[GATE / 8] = (offset & 0xffff) | (u64)selector << 16 | (u64)(count | attributes << 8) << 32 | (u64)(offset >> 16) << 48;
  gdt[GATE / 8 + 1] = 0;
}
static void set_code(u32 attributes) { gdt[CODE_A / 8] = descriptor(0, 0xfffff, attributes); }

// ---- long mode ------------------------------------------------------------------------------------------------------
#define CALL64 "push 0; mov dword ptr [rsp+4], 0x83; call fword ptr [rsp]"
static void long_mode(void) {
  static const char* target;
  target = CODE(".code64", "mov ecx, cs; mov edx, ss; mov rbx, [rsp]; mov rsi, [rsp+8]; mov rdi, rsp");
  put("-- long mode\n");
  put_gate((u32)(u64)target, KCS64, 0xec, 0);
  setup(M64U);
  run(CODE(".code64", CALL64));
  say("inner: end %x cs %x ss %x sp %x ret cs %x flags %x\n", out.vector, out.gpr[RCX], out.gpr[RDX], PRIVILEGE_STACK - out.gpr[RDI], out.gpr[RSI], out.rflags & 0x7700);
  setup(M64);
  run(CODE(".code64", CALL64));
  say("same: end %x cs %x ss %x sp %x\n", out.vector, out.gpr[RCX], out.gpr[RDX], in.gpr[RSP] - out.gpr[RDI]);
  target = CODE(".code64", "mov ecx, cs; retfq");
  put_gate((u32)(u64)target, KCS64, 0xec, 0);
  RUN(M64U, "and back", CALL64 "; nop; mov edx, cs; mov ebx, ss; pop rsi");
  RUN(M64, "and back, same", CALL64 "; nop; mov edx, cs; mov ebx, ss; pop rsi");
  target = CODE(".code64", "mov ecx, cs");
  put_gate((u32)(u64)target, KCS64, 0xec, 0);
  RUN(M64, "far jump", "push 0; mov dword ptr [rsp+4], 0x80; jmp fword ptr [rsp]");
  RUN(M64U, "far jump inner", "push 0; mov dword ptr [rsp+4], 0x83; jmp fword ptr [rsp]");
  put_gate((u32)(u64)target, KCS64, 0x8c, 0);
  RUN(M64U, "dpl of the gate", CALL64);
  put_gate((u32)(u64)target, KCS64, 0xac, 0);
  RUN(M64, "rpl against dpl", CALL64);
  put_gate((u32)(u64)target, KCS64, 0x6c, 0);
  RUN(M64U, "absent", CALL64);
  put_gate((u32)(u64)target, 0, 0xec, 0);
  RUN(M64U, "null code", CALL64);
  put_gate((u32)(u64)target, 3, 0xec, 0);
  RUN(M64U, "null code with rpl", CALL64);
  put_gate((u32)(u64)target, KDS, 0xec, 0);
  RUN(M64U, "data", CALL64);
  put_gate((u32)(u64)target, 0x200, 0xec, 0);
  RUN(M64U, "beyond the table", CALL64);
  put_gate((u32)(u64)target, KCS32, 0xec, 0);
  RUN(M64U, "code of 32 bits", CALL64);
  put_gate((u32)(u64)target, CODE_A | 3, 0xec, 0);
  set_code(0xa01b);
  RUN(M64U, "absent code", CALL64);
  set_code(0xa0fb);
  put_gate((u32)((u64)target + USER_ALIAS), CODE_A, 0xec, 0);
  RUN(M64, "outer code", CALL64);
  RUN(M64U, "code of the same level", CALL64);
  set_code(0xa09f);
  put_gate((u32)((u64)target + USER_ALIAS), CODE_A, 0xec, 0);
  RUN(M64U, "conforming", CALL64);
  set_code(0xe09b);  // L and D
  RUN(M64U, "l and d", CALL64);
  put_gate((u32)(u64)target, KCS64, 0xec, 0);
  gdt[GATE / 8 + 1] = 0x8000;
  RUN(M64U, "offset not canonical", CALL64);
  gdt[GATE / 8 + 1] = 0x80000000000;
  RUN(M64U, "type of the upper half", CALL64);
  put_gate((u32)(u64)target, KCS64, 0xe4, 0);
  RUN(M64U, "16 bit", CALL64);
  put_gate((u32)(u64)target, KCS64, 0xe5, 0);
  RUN(M64U, "task gate", CALL64);
  put_gate((u32)(u64)target, KCS64, 0xec, 0);
  const u64 rsp0 = tss64.rsp[0];
  tss64.rsp[0] = 0x800000000000;
  RUN(M64U, "stack not canonical", CALL64);
  tss64.rsp[0] = WINDOW + 0x100000;
  RUN(M64U, "stack not mapped", CALL64);
  tss64.rsp[0] = PRIVILEGE_STACK - 4;
  RUN(M64U, "stack not aligned", CALL64);
  tss64.rsp[0] = rsp0;
  RUN(M32U, "compatibility mode", "call 0x83:0");
}

// ---- protected mode -------------------------------------------------------------------------------------------------
static void protected_mode(u32 attributes, const char* name) {
  static const char* target;
  const bool wide = attributes & 8;
  say("-- protected mode, %s\n", name);
  set_code(0xc09b);
  gdt[STACK_A / 8] = descriptor(0, 0xfffff, 0xc093);
  // A 16-bit gate has a 16-bit offset: a segment of its own that begins at the code.
  target = CODE(".code32", "mov ecx, cs; mov edx, ss; mov ebx, esp; mov esi, [esp]; mov edi, [esp+4]; mov ebp, [esp+8]; mov eax, [esp+12]");
#define POINT(where, dpl, count) do { \
    const u32 base_ = wide ? 0 : (u32)(u64)(where); \
    gdt[CODE_A / 8] = descriptor(base_, 0xfffff, 0xc09b); \
    put_gate((u32)(u64)(where) - base_, CODE_A, (attributes & 0x8f) | (dpl) << 5, count); } while (0)
  quiet_registers = true;
  POINT(target, 3, 0);
  RUN(L32U, "inner", "call 0x83:0");
  say("cs %x ss %x sp %x, then %x %x\n", out.gpr[RCX], out.gpr[RDX], out.gpr[RBX], out.gpr[RDI], out.gpr[RBP]);
  POINT(target, 3, 2);
  RUN(L32U, "inner with two parameters", "push 0x11112222; push 0x33334444; call 0x83:0");
  say("sp %x %x %x %x\n", out.gpr[RBX], out.gpr[RDI], out.gpr[RBP], out.gpr[RAX]);
  POINT(target, 3, 31);
  RUN(L32U, "inner with 31", "sub esp, 200; call 0x83:0");
  say("sp %x\n", out.gpr[RBX]);
  POINT(target, 3, 2);
  RUN(L32, "same level", "push 0x11112222; push 0x33334444; call 0x80:0");
  say("sp %x %x %x %x\n", out.gpr[RBX], out.gpr[RDI], out.gpr[RBP], out.gpr[RAX]);
  quiet_registers = false;
  target = wide ? CODE(".code32", "mov ecx, cs; retf 8") : CODE(".code32", "mov ecx, cs; .byte 0x66; retf 4");
  POINT(target, 3, 2);
  if (wide) {
    RUN(L32U, "and back", "push 0x11112222; push 0x33334444; call 0x83:0; mov edx, cs; mov ebx, ss");
    RUN(L32, "and back, same level", "push 0x11112222; push 0x33334444; call 0x80:0; mov edx, cs; mov ebx, ss");
  } else {
    // From 16-bit code, whose return address fits.
    RUN(L16, "and back, same level", "push 0x2222; push 0x4444; call 0x80:0; mov dx, cs; mov bx, ss");
  }
  target = CODE(".code32", "nop");
  POINT(target, 3, 0);
  RUN(L32, "far jump", "jmp 0x80:0");
  RUN(L32U, "far jump inner", "jmp 0x83:0");
  POINT(target, 0, 0);
  RUN(L32U, "dpl of the gate", "call 0x83:0");
  RUN(L32, "rpl against dpl", "call 0x83:0");
  put_gate(0, CODE_A, (attributes & 0xf) | 0x60, 0);
  RUN(L32U, "absent", "call 0x83:0");
  put_gate(0, 0, attributes | 0x60, 0);
  RUN(L32U, "null code", "call 0x83:0");
  put_gate(0, KDS, attributes | 0x60, 0);
  RUN(L32U, "data", "call 0x83:0");
  put_gate(0, 0x200, attributes | 0x60, 0);
  RUN(L32U, "beyond the table", "call 0x83:0");
  POINT(target, 3, 0);
  gdt[CODE_A / 8] &= ~(0x80UL << 40);
  RUN(L32U, "absent code", "call 0x83:0");
  POINT(target, 3, 0);
  gdt[CODE_A / 8] |= 0x60UL << 40;
  RUN(L32, "outer code", "call 0x80:0");
  POINT(target, 3, 0);
  gdt[CODE_A / 8] |= 0x04UL << 40;
  RUN(L32U, "conforming", "call 0x83:0");
  POINT(target, 3, 0);
  gdt[CODE_A / 8] = (gdt[CODE_A / 8] & ~0x000f00000000ffffUL & ~(0x80UL << 48));  // a limit of 0
  put_gate(2, CODE_A, attributes | 0x60, 0);
  RUN(L32U, "beyond the code", "call 0x83:0");
  POINT(target, 3, 0);
  // To level 1, whose stack is the test's to spoil.
  gdt[CODE_A / 8] |= 0x20UL << 40;
#define STACK(ss, esp, name) do { tss32[4] = (ss); tss32[3] = (esp); RUN(L32U, name, "call 0x83:0"); } while (0)
  gdt[STACK_A / 8] = descriptor(0, 0xfffff, 0xc0b3);
  STACK(STACK_A | 1, 0x8800, "to level 1");
  STACK(0, 0x8800, "null stack");
  STACK(1, 0x8800, "null stack with rpl");
  STACK(STACK_A, 0x8800, "stack with rpl 0");
  STACK(STACK_A | 3, 0x8800, "stack with rpl 3");
  gdt[STACK_A / 8] = descriptor(0, 0xfffff, 0xc0f3);
  STACK(STACK_A | 1, 0x8800, "stack of the user");
  gdt[STACK_A / 8] = descriptor(0, 0xfffff, 0xc0b1);
  STACK(STACK_A | 1, 0x8800, "read-only stack");
  gdt[STACK_A / 8] = descriptor(0, 0xfffff, 0xc0bb);
  STACK(STACK_A | 1, 0x8800, "code as a stack");
  gdt[STACK_A / 8] = descriptor(0, 0xfffff, 0xc033);
  STACK(STACK_A | 1, 0x8800, "absent stack");
  STACK(0x201, 0x8800, "stack beyond the table");
  gdt[STACK_A / 8] = descriptor(0, 0x87ff, 0x40b3);
  STACK(STACK_A | 1, 0x8800, "stack up to its limit");
  STACK(STACK_A | 1, 0x8801, "stack over its limit");
  STACK(STACK_A | 1, 8, "stack too small");
}
void test_main(void) {
  long_mode();
  protected_mode(0x8c, "32-bit gate");
  protected_mode(0x84, "16-bit gate");
}
