// Task switches of protected mode: jumps, calls and returns to tasks of 32 and 16 bits, task gates in the GDT and the IDT,
// busy bits, the link and the nested-task flag, what is saved and loaded, and the faults before and after the switch.
#include "../runtime/runtime.h"

enum { TASK = FREE, GATE = FREE + 8, OTHER_CODE = FREE + 0x10, OTHER_DATA = FREE + 0x18, OTHER_LDT = FREE + 0x20, SMALL = FREE + 0x28 };
struct tss_32 { u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, gpr[8], es, cs, ss, ds, fs, gs, ldt; u16 trap, io; };
struct __attribute__((packed)) tss_16 { u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, gpr[8], es, cs, ss, ds, ldt; };
static struct tss_32* const task = (struct tss_32*)(POOL + 0x4000);
static struct tss_16* const narrow = (struct tss_16*)(POOL + 0x5000);
static struct tss_32* const old = (struct tss_32*)tss32;
extern u64 legacy_idt[256];
static bool wide;

#define TASK_CODE (POOL + 0x8000)  // where the task's code is copied to

static void fresh(const char* code) {
  memcpy((void*)TASK_CODE, code, 64);
  memset(task, 0, 4096);
  memset(narrow, 0, 4096);
  task->eip = TASK_CODE;
  task->eflags = 2;
  for (unsigned i = 0; i < 8; ++i) task->gpr[i] = 0x20202020 + i;
  task->gpr[4] = (u32)(u64)kernel_stack + 0xc00;
  task->cs = KCS32;
  task->es = task->ss = task->ds = task->fs = task->gs = KDS;
  task->esp0 = 0x9800;
  task->ss0 = KDS;
  task->io = 104;
  // The 16-bit one runs 32-bit code in a segment that begins at it.
  gdt[OTHER_CODE / 8] = descriptor(TASK_CODE, 0xffff, 0x409b);
  narrow->ip = 0;
  narrow->flags = 2;
  for (unsigned i = 0; i < 8; ++i) narrow->gpr[i] = (u16)(0x3030 + i);
  narrow->gpr[4] = 0x8700;
  narrow->cs = OTHER_CODE;
  narrow->es = narrow->ds = KDS;
  narrow->ss = DS16_LOW;  // the upper half of ESP is ones
  gdt[TASK / 8] = wide ? descriptor((u32)(u64)task, 0x67, 0x89) : descriptor((u32)(u64)narrow, 0x2b, 0x81);
  gdt[GATE / 8] = (u64)TASK << 16 | 0xe5UL << 40;
  gdt[OTHER_DATA / 8] = descriptor(0, 0xfffff, 0xc093);
  gdt[OTHER_LDT / 8] = 0;
}
static void show(void) {
  const u64 now = gdt[TASK / 8] >> 40 & 0xff, was = gdt[TSS32 / 8] >> 40 & 0xff;
  say("   new %x old %x link %x nt %d\n", now, was, (u64)(wide ? task->link : narrow->link), out.rflags >> 14 & 1);
}
#define SWITCH(name, prepare, text) do { fresh(CODE(".code32", "mov ebp, cr0; and ebp, 8; nop")); prepare; RUN(L32, name, text); show(); } while (0)

static void ways(void) {
  flags_shown |= 0x8d5;
  SWITCH("jump", , "mov ecx, 0x77; jmp 0x80:0");
  say("   saved: eip %x cx %x flags %x cs %x ss %x\n", (u64)old->eip - in.rip, (u64)old->gpr[1], (u64)old->eflags, (u64)old->cs, (u64)old->ss);
  SWITCH("call", , "mov ecx, 0x77; stc; call 0x80:0");
  say("   saved: eip %x cx %x flags %x\n", (u64)old->eip - in.rip, (u64)old->gpr[1], (u64)old->eflags);
  SWITCH("jump by a gate", , "jmp 0x88:0");
  SWITCH("call by a gate", , "call 0x88:0");
  legacy_idt[0x81] = (u64)TASK << 16 | 0xe5UL << 40;
  SWITCH("interrupt by a gate", , "nop; int 0x81");
  say("   saved: eip %x\n", (u64)old->eip - in.rip);
  const u64 saved = legacy_idt[13];
  legacy_idt[13] = (u64)TASK << 16 | 0x85UL << 40;
  fresh(CODE(".code32", "mov ecx, [esp]; mov edx, esp"));
  RUN(L32, "fault by a gate", "nop; mov eax, 0x202; mov ds, eax");
  say("   error %x sp %x, saved: eip %x\n", out.gpr[RCX], out.gpr[RDX], (u64)old->eip - in.rip);
  legacy_idt[13] = saved;
  // There and back: IRET with the nested-task flag.
  fresh(CODE(".code32", "mov ecx, 5; iretd; mov ecx, 6; iretd"));
  RUN(L32, "call and return, twice", "call 0x80:0; nop; call 0x80:0; mov ebx, [0x804028]");
  show();
  say("   saved: eip of the task - its start %x flags %x cx %x\n", wide ? task->eip - TASK_CODE : narrow->ip,
      (u64)(wide ? task->eflags : narrow->flags), (u64)(wide ? task->gpr[1] : narrow->gpr[1]));
  flags_shown &= ~0x8d5UL;
  fresh(CODE(".code32", "jmp 0x68:0"));
  RUN(L32, "jump and jump back", "jmp 0x80:0; nop; mov ecx, 3");
  show();
  fresh(CODE(".code32", "nop"));
  RUN(L32, "return that is not nested", "pushfd; or dword ptr [esp], 0x4000; popfd; iretd");
  show();
  SWITCH("return to one that is not busy", old->link = TASK, "pushfd; or dword ptr [esp], 0x4000; popfd; iretd");
  SWITCH("return to one that is", (old->link = TASK, gdt[TASK / 8] |= 2UL << 40), "pushfd; or dword ptr [esp], 0x4000; popfd; iretd");
  old->link = 0;
  SWITCH("from cpl 0 by far return", , "push 0x80; push 0; retf");
  fresh(CODE(".code32", "nop"));
  RUN(L32U, "user jump, dpl 0", "jmp 0x80:0");
  RUN(L32U, "user jump, gate of dpl 3", "jmp 0x88:0");
  show();
  fresh(CODE(".code32", "nop"));
  gdt[TASK / 8] |= 0x60UL << 40;
  RUN(L32U, "user jump, dpl 3", "jmp 0x83:0");
  fresh(CODE(".code32", "nop"));
  RUN(L16, "from 16-bit code", "jmp 0x80:0");
}
static void before(void) {
  SWITCH("busy", gdt[TASK / 8] |= 2UL << 40, "jmp 0x80:0");
  SWITCH("absent", gdt[TASK / 8] &= ~(0x80UL << 40), "jmp 0x80:0");
  SWITCH("itself", , "jmp 0x68:0");
  SWITCH("too small", gdt[TASK / 8] -= 1, "jmp 0x80:0");
  SWITCH("data", gdt[TASK / 8] = descriptor(0, 0xfffff, 0xc093), "jmp 0x80:0");
  SWITCH("gate to nothing", gdt[GATE / 8] = 0xe5UL << 40, "jmp 0x88:0");
  SWITCH("gate to data", gdt[GATE / 8] = (u64)KDS << 16 | 0xe5UL << 40, "jmp 0x88:0");
  SWITCH("gate to the local table", gdt[GATE / 8] = (u64)(TASK | 4) << 16 | 0xe5UL << 40, "jmp 0x88:0");
  SWITCH("gate beyond the table", gdt[GATE / 8] = (u64)0x200 << 16 | 0xe5UL << 40, "jmp 0x88:0");
  SWITCH("absent gate", gdt[GATE / 8] &= ~(0x80UL << 40), "jmp 0x88:0");
  SWITCH("call, busy", gdt[TASK / 8] |= 2UL << 40, "call 0x80:0");
  SWITCH("interrupt, busy", (gdt[TASK / 8] |= 2UL << 40, legacy_idt[0x81] = (u64)TASK << 16 | 0xe5UL << 40), "int 0x81");
  SWITCH("interrupt, absent", (gdt[TASK / 8] &= ~(0x80UL << 40)), "int 0x81");
  SWITCH("interrupt, gate to data", legacy_idt[0x81] = (u64)KDS << 16 | 0xe5UL << 40, "int 0x81");
}
#define AFTER(name, field, value) SWITCH(name, if (wide) task->field = (value); else narrow->field = (u16)(value), "jmp 0x80:0")
static void after(void) {
  // Faults after the switch are the new task's.
  AFTER("null cs", cs, 0);
  AFTER("data as cs", cs, KDS);
  AFTER("cs of another level", cs, UCS32 & ~3);
  AFTER("cs beyond the table", cs, 0x200);
  AFTER("ds beyond the table", ds, 0x200);
  AFTER("null ds", ds, 0);
  AFTER("system segment in es", es, TSS64);
  if (wide) {  // the stack segment is not loaded yet, and the 16-bit task's ESP leads nowhere without it
    AFTER("ldt beyond the table", ldt, 0x200);
    AFTER("data as ldt", ldt, KDS);
    AFTER("ldt in the local table", ldt, 0x0c);
    SWITCH("absent ldt", (gdt[OTHER_LDT / 8] = descriptor(POOL + 0x6000, 0x0f, 0x02), task->ldt = OTHER_LDT), "jmp 0x80:0");
  }
  gdt[OTHER_LDT / 8] = 0;
  SWITCH("ldt", (gdt[OTHER_LDT / 8] = descriptor(POOL + 0x6000, 0x0f, 0x82), *(u64*)(POOL + 0x6008) = descriptor(0, 0xfffff, 0xc0f3),
    wide ? (void)(task->ldt = OTHER_LDT, task->ds = 0x0f) : (void)(narrow->ldt = OTHER_LDT, narrow->ds = 0x0f)), "jmp 0x80:0");
  SWITCH("absent ds", (gdt[OTHER_DATA / 8] = descriptor(0, 0xfffff, 0xc013), wide ? (void)(task->ds = OTHER_DATA) : (void)(narrow->ds = OTHER_DATA)), "jmp 0x80:0");
  SWITCH("absent cs", (gdt[OTHER_DATA / 8] = descriptor(0, 0xfffff, 0xc01b), wide ? (void)(task->cs = OTHER_DATA) : (void)(narrow->cs = OTHER_DATA)), "jmp 0x80:0");
  SWITCH("conforming cs", (gdt[OTHER_DATA / 8] = wide ? descriptor(0, 0xfffff, 0xc09f) : (gdt[OTHER_CODE / 8] | 4UL << 40), wide ? (void)(task->cs = OTHER_DATA) : (void)(narrow->cs = OTHER_DATA)), "jmp 0x80:0");
  if (wide) {
    SWITCH("eip beyond cs", (gdt[OTHER_DATA / 8] = descriptor(0, 0xff, 0x409b), task->cs = OTHER_DATA), "jmp 0x80:0");
    SWITCH("trap bit", task->trap = 1, "jmp 0x80:0");
    u64 dr6;
    asm volatile("mov %%dr6, %0" : "=r"(dr6));
    say("   dr6 %x\n", dr6 & 0xffff);
    asm volatile("mov %0, %%dr6" ::"r"(0xffff0ff0UL));
    SWITCH("flags", task->eflags = 0xffffbcd7 & ~0x20000, "jmp 0x80:0");
    asm volatile("mov %0, %%dr6" ::"r"(0xffff0ff0UL));
    SWITCH("user task", (task->cs = UCS32, task->ss = task->ds = task->es = task->fs = task->gs = UDS, task->gpr[4] = (u32)(u64)user_stack + 1024), "jmp 0x80:0");
    memcpy((void*)0xa000UL, CODE(".code16", "nop"), 16);
    SWITCH("virtual-8086 task", (task->eflags = 0x23002, task->eip = 0, task->cs = 0xa00, task->ss = task->ds = 0xb00, task->es = 0x1111, task->fs = 0x2222, task->gs = 0x3333, task->gpr[4] = 0x600), "jmp 0x80:0");
    say("   es %x fs %x gs %x\n", out.es, out.fs, out.gs);
  }
  quiet_registers = true;
  // Its stack may be what is wrong: with handlers that are tasks of their own.
  static struct tss_32* const handler = (struct tss_32*)(POOL + 0x7000);
  for (unsigned v = 10; v < 14; ++v) legacy_idt[v] = (u64)SMALL << 16 | 0x85UL << 40;
#define STACK(name, prepare) do { \
    fresh(CODE(".code32", "nop")); \
    memset(handler, 0, 4096); \
    handler->eip = (u32)(u64)CODE(".code32", "pop ecx"); \
    handler->eflags = 2; handler->gpr[4] = 0x8600; handler->cs = KCS32; handler->es = handler->ss = handler->ds = KDS; handler->io = 104; \
    gdt[SMALL / 8] = descriptor((u32)(u64)handler, 0x67, 0x89); \
    prepare; RUN(L32, name, "jmp 0x80:0"); \
    say("   error %x link %x, saved: cs %x ss %x ds %x\n", out.gpr[RCX], (u64)handler->link, (u64)(wide ? task->cs : narrow->cs), (u64)(wide ? task->ss : narrow->ss), (u64)(wide ? task->ds : narrow->ds)); } while (0)
#define SET(field, value) (wide ? (void)(task->field = (value)) : (void)(narrow->field = (u16)(value)))
  STACK("null ss", SET(ss, 0));
  STACK("code as ss", SET(ss, KCS32));
  STACK("ss of another level", SET(ss, UDS));
  STACK("ss with another rpl", SET(ss, KDS | 3));
  STACK("ss beyond the table", SET(ss, 0x200));
  STACK("absent ss", (gdt[OTHER_DATA / 8] = descriptor(0, 0xfffff, 0xc013), SET(ss, OTHER_DATA)));
  STACK("absent ds, by a task", (gdt[OTHER_DATA / 8] = descriptor(0, 0xfffff, 0xc013), SET(ds, OTHER_DATA)));
  STACK("null cs, by a task", SET(cs, 0));
  quiet_registers = false;
}
static void paging(void) {
  // Each task has a CR3 of its own.
  u32* const first = (u32*)(POOL + 0x10000);
  u32* const second = (u32*)(POOL + 0x11000);
  for (unsigned i = 0; i < 4; ++i) first[i] = second[i] = i << 22 | P | W | U | PS;
  first[4] = 0 | P | W | U | PS;
  second[4] = 1U << 22 | P | W | U | PS;
  *(volatile u32*)0x500UL = 0x1111;
  *(volatile u32*)0x400500UL = 0x2222;
  fresh(CODE(".code32", "mov ecx, [0x1000500]; mov eax, cr3; iretd"));
  task->cr3 = (u32)(u64)second;
  setup(L32);
  in.cr0 |= 0x80000000;
  in.cr4 = 0x10;
  in.cr3 = (u64)first;
  old->cr3 = (u32)in.cr3;
  run_and_report("cr3", CODE(".code32", "mov ebx, [0x1000500]; call 0x80:0; mov edx, [0x1000500]; mov eax, cr3"));
  say("   the task saw %x under %x; its cr3 field %x\n", (u64)(wide ? task->gpr[1] : narrow->gpr[1]), (u64)(wide ? task->gpr[0] : narrow->gpr[0]), (u64)task->cr3);
}
void test_main(void) {
  u64 saved[256];
  memcpy(saved, legacy_idt, sizeof saved);
  for (unsigned i = 0; i < 2; ++i) {
    wide = i == 0;
    say("-- to a task of %d bits\n", wide ? 32UL : 16UL);
    ways();
    memcpy(legacy_idt, saved, sizeof saved);
    before();
    memcpy(legacy_idt, saved, sizeof saved);
    after();
    memcpy(legacy_idt, saved, sizeof saved);
    paging();
  }
}
