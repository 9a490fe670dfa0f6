// Non-maskable interrupts: sent by the local APIC to its own CPU; taken whatever IF says, held back from one's delivery until
// the next IRET of any kind, remembered once, and what they do to HLT and to the instruction after MOV SS.
#include "../runtime/runtime.h"

static volatile u32* const apic = (volatile u32*)0xfee00000;
static void send(void) {
  apic[0x310 / 4] = 0;       // to the CPU whose ID is 0
  apic[0x300 / 4] = 0x4400;  // NMI
}
static u64 arrivals, first_at, depth, deepest, again, faults;
static bool on_event(struct cpu* c) {
  if (c->vector == 2) {
    if (++depth > deepest) deepest = depth;
    if (arrivals++ == 0) first_at = c->rip;
    while (again) {  // while it is being handled: held back, and one is remembered
      --again;
      send();
    }
    --depth;
    return arrivals < 10;
  }
  if (c->vector == 6) {
    ++faults;
    c->rip += 2;
    return true;
  }
  return false;
}
static void attempt(const char* name, const char* code, u64 more) {
  setup(M64);
  in.gpr[RDI] = (u64)apic + 0x300;
  in.gpr[RAX] = 0x4400;
  arrivals = first_at = deepest = depth = faults = 0;
  again = more;
  hook = on_event;
  run(code);
  hook = 0;
  say("%s: %d", name, arrivals);
  if (arrivals) say(" first at +%x deepest %d", first_at - (u64)code, deepest);
  if (faults) say(" faults %d", faults);
  say(" end %x cx=%x\n", out.vector, out.gpr[RCX]);
}
#define NMI(name, more, text) attempt(name, CODE(".code64", text), more)
void test_main(void) {
  apic[0xf0 / 4] = 0x1ff;
  apic[0x310 / 4] = 0;
  NMI("if 0", 0, "mov [rdi], eax; mov ecx, 1; mov ecx, 2; mov ecx, 3");
  NMI("if 1", 0, "sti; nop; mov [rdi], eax; mov ecx, 1; mov ecx, 2; cli");

  NMI("one while handling", 1, "mov [rdi], eax; mov ecx, 1; mov ecx, 2; mov ecx, 3");
  NMI("three while handling", 3, "mov [rdi], eax; mov ecx, 1; mov ecx, 2; mov ecx, 3");
  NMI("mov ss", 0, "mov edx, ss; mov [rdi], eax; mov ss, edx; mov ecx, 2; mov ecx, 3");
  NMI("fault and return", 0, "mov [rdi], eax; ud2; mov ecx, 9");

  // Held back from the delivery on: the handler is the snippet's own, and does not return until it wants to.
  const u64 saved[2] = {idt[4], idt[5]};
  static const char* own;
  setup(M64);
  in.gpr[RDI] = (u64)apic + 0x300;
  in.gpr[RAX] = 0x4400;
  in.gpr[RCX] = in.gpr[RDX] = 0;
  // In the handler's second run nothing is sent any more.
  own = CODE(".code64", "cmp ecx, 3; jae 1f; inc ecx; mov [rdi], eax; nop; nop; shl edx, 4; or edx, ecx; iretq; 1: or edx, 0x8000; iretq");
  set_gate(2, (u64)own, KCS64, 0, 0x8e);
  run_and_report("three, one after the other", CODE(".code64", "mov [rdi], eax; nop; nop; nop"));

  // An IRET ends it, whatever it returns from: here from an exception inside of the handler.
  own = CODE(".code64", "cmp ecx, 0; jne 1f; inc ecx; mov [rdi], eax; nop; shl edx, 4; lea rbx, [rip+2f]; mov rsi, rsp; push 0x10; push rsi; push 2; push 8; push rbx; iretq; "
    "2: nop; shl edx, 4; or edx, 2; iretq; 1: or edx, 1; iretq");
  set_gate(2, (u64)own, KCS64, 0, 0x8e);
  setup(M64);
  in.gpr[RDI] = (u64)apic + 0x300;
  in.gpr[RAX] = 0x4400;
  in.gpr[RCX] = in.gpr[RDX] = 0;
  quiet_registers = true;
  run_and_report("iret inside of the handler", CODE(".code64", "mov [rdi], eax; nop; nop; nop"));
  say("order %x\n", out.gpr[RDX]);
  // FAR RET does not end it.
  own = CODE(".code64", "cmp ecx, 0; jne 1f; inc ecx; mov [rdi], eax; nop; shl edx, 4; push 8; lea rbx, [rip+2f]; push rbx; retfq; "
    "2: nop; nop; shl edx, 4; or edx, 2; iretq; 1: or edx, 1; iretq");
  set_gate(2, (u64)own, KCS64, 0, 0x8e);
  setup(M64);
  in.gpr[RDI] = (u64)apic + 0x300;
  in.gpr[RAX] = 0x4400;
  in.gpr[RCX] = in.gpr[RDX] = 0;
  run_and_report("far return inside of the handler", CODE(".code64", "mov [rdi], eax; nop; nop; nop"));
  say("order %x\n", out.gpr[RDX]);
  // An IRET that faults ends it as well? The manual says so of IRET, and means one that is done.
  own = CODE(".code64", "cmp ecx, 0; jne 1f; inc ecx; mov [rdi], eax; nop; shl edx, 4; push 0x10; push rsp; push 2; push 0; push 0; iretq; 1: or edx, 1; iretq");
  set_gate(2, (u64)own, KCS64, 0, 0x8e);
  setup(M64);
  in.gpr[RDI] = (u64)apic + 0x300;
  in.gpr[RAX] = 0x4400;
  in.gpr[RCX] = in.gpr[RDX] = 0;
  run_and_report("iret that faults", CODE(".code64", "mov [rdi], eax; nop; nop; nop"));
  say("order %x\n", out.gpr[RDX]);
  quiet_registers = false;
  idt[4] = saved[0], idt[5] = saved[1];
  // From CPL 3, which reaches the APIC through a page of the window.
  map(7, (u64)apic, P | W | U);
  setup(M64U);
  in.gpr[RDI] = WINDOW + 0x7300;
  in.gpr[RAX] = 0x4400;
  run_and_report("from cpl 3", CODE(".code64", "mov [rdi], eax; nop"));
}
