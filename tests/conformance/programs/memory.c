// Every kind of memory access over the edge of two pages, the second of them absent or read-only: the fault, that nothing
// has happened yet, and that the instruction does its work when it is started again with the page there.
#include "../runtime/runtime.h"

enum { FIRST = 32, SECOND = 33 };
#define EDGE (WINDOW + SECOND * 4096UL)
static u64 second_flags;
static unsigned restarts;

static void fill(void) {
  for (u64 i = 0; i < 8192; ++i) pool(FIRST)[i] = (u8)(i * 7 + (i >> 8));
}
static bool repair(struct cpu* c) {
  if (c->vector != 14 || restarts >= 4) return false;
  ++restarts;
  map(SECOND, (u64)pool(SECOND), P | W);
  return true;
}
static void prepare(u64 at, bool stack) {
  fill();
  map(FIRST, (u64)pool(FIRST), P | W);
  map(SECOND, (u64)pool(SECOND), second_flags);
  setup(M64);
  in.gpr[RDI] = in.gpr[RSI] = at;
  in.gpr[R8] = WINDOW + FIRST * 4096UL + 256;  // a place that is there
  if (stack) in.gpr[RSP] = at;
}
static u64 registers(void) {
  u64 h = 0;
  for (unsigned i = 0; i < 16; ++i) h = h * 31 + out.gpr[i] - (i == RSP ? in.gpr[RSP] : 0);
  return h;
}
// `whole`: nothing may be written before the fault.
static void access_at(const char* name, const char* code, long offset, bool stack, bool whole) {
  prepare(EDGE + (u64)offset, stack);
  const u64 before = hash(pool(FIRST), 8192);
  run(code);
  if (offset < 0) say("%s %d-%d: ", name, second_flags, (u64)-offset);
  else say("%s %d+%d: ", name, second_flags, (u64)offset);
  if (out.vector == 14) say("#PF(%x) cr2 edge%c%x", out.error, out.cr2 >= EDGE ? '+' : '-', out.cr2 >= EDGE ? out.cr2 - EDGE : EDGE - out.cr2);
  else say("%x", out.vector);
  if (whole && out.vector == 14) say(" %s, registers %x", hash(pool(FIRST), 8192) == before ? "untouched" : "CHANGED", registers() & 0xffffffff);
  prepare(EDGE + (u64)offset, stack);
  restarts = 0;
  hook = repair;
  run(code);
  hook = 0;
  say(", then %d: %x %x after %d\n", (u64)(out.vector == ENDED), hash(pool(FIRST), 8192) & 0xffffffff, registers() & 0xffffffff, (u64)restarts);
}
static void all_offsets(const char* name, const char* code, long size, bool stack, bool whole) {
  for (long k = size; k > 0; k = k > 4 ? k / 2 : k - 1) access_at(name, code, -k, stack, whole);
  access_at(name, code, 0, stack, whole);
}
#define ACCESS(name, size, text) all_offsets(name, CODE(".code64", text), size, false, true)
#define STACK(name, size, text) all_offsets(name, CODE(".code64", text), size, true, true)
#define LONG(name, size, text) all_offsets(name, CODE(".code64", text), size, false, false)

static void reads(void) {
  ACCESS("mov r64", 8, "mov rax, [rdi]");
  ACCESS("mov r16", 2, "mov ax, [rdi]");
  ACCESS("movzx", 2, "movzx eax, word ptr [rdi]");
  ACCESS("add r, m", 8, "add rax, [rdi]; mov edx, 1");
  ACCESS("cmp", 4, "cmp [rdi], eax; setb dl");
  ACCESS("imul", 8, "imul rax, [rdi], 100");
  ACCESS("movups load", 16, "movups xmm0, [rdi]; movups [r8], xmm0");
  ACCESS("paddd mmx", 8, "pxor mm0, mm0; paddd mm0, [rdi]; movq [r8], mm0; emms");
  ACCESS("fld m80", 10, "fld tbyte ptr [rdi]; fstp tbyte ptr [r8]");
  ACCESS("fld m64", 8, "fld qword ptr [rdi]; fstp qword ptr [r8]");
  ACCESS("bt", 8, "mov ecx, 17; bt [rdi], ecx; setc al");
  STACK("pop", 8, "pop rax; lea rsp, [r8+64]");
  STACK("popfq", 8, "popfq; mov eax, 1");
  ACCESS("push m", 8, "push [rdi]");
  STACK("leave", 8, "mov rbp, rsp; mov rsp, r8; leave; lea rsp, [r8+64]");
  ACCESS("lodsq", 8, "lodsq");
  ACCESS("scasd", 4, "scasd; setz dl");
  ACCESS("movsq from", 8, "mov rdi, r8; movsq");
  ACCESS("cmpsq", 8, "mov rdi, r8; cmpsq; setb dl");
  ACCESS("xlat", 1, "mov rbx, rdi; xor eax, eax; xlatb");
  ACCESS("jmp m", 8, "mov rdx, [rdi]; jmp 1f; 1: nop");
}
static void writes(void) {
  ACCESS("mov store", 8, "mov [rdi], rax");
  ACCESS("mov imm", 4, "mov dword ptr [rdi], 0x12345678");
  ACCESS("setcc", 1, "xor eax, eax; setz [rdi]");
  ACCESS("movups store", 16, "movups xmm0, [r8]; movups [rdi], xmm0");
  ACCESS("movnti", 8, "movnti [rdi], rax");
  ACCESS("fstp m80", 10, "fld1; fstp tbyte ptr [rdi]; fninit");
  ACCESS("fist", 4, "fld1; fistp dword ptr [rdi]; fninit");
  STACK("push", 8, "lea rsp, [rsp+8]; push rax");
  STACK("pushfq", 8, "lea rsp, [rsp+8]; pushfq");
  ACCESS("pop m", 8, "pop [rdi]");
  STACK("enter", 8, "lea rsp, [rsp+8]; enter 0, 0; xor ebp, ebp");
  STACK("call", 8, "lea rsp, [rsp+8]; call 1f; 1: mov dword ptr [rsp], 0; mov dword ptr [rsp+4], 0");
  ACCESS("stosq", 8, "stosq");
  ACCESS("movsq to", 8, "mov rsi, r8; movsq");
  LONG("sgdt", 10, "sgdt [rdi]; mov dword ptr [rdi+2], 0; mov dword ptr [rdi+6], 0");
  LONG("stmxcsr", 4, "stmxcsr [rdi]");
  LONG("fxsave", 512, "and rdi, -16; fxsave [rdi]; lea rcx, [rdi+8]; mov qword ptr [rcx], 0; mov qword ptr [rcx+8], 0");
}
static void read_writes(void) {
  ACCESS("add m, r", 8, "add [rdi], rax");
  ACCESS("inc m16", 2, "inc word ptr [rdi]");
  ACCESS("xchg", 8, "xchg [rdi], rax");
  ACCESS("lock add", 8, "lock add [rdi], rax");
  ACCESS("lock xadd", 4, "lock xadd [rdi], eax");
  ACCESS("cmpxchg equal", 8, "mov rax, [r8]; mov rbx, rax; cmpxchg [rdi], rbx");
  ACCESS("lock cmpxchg8b", 8, "lock cmpxchg8b [rdi]");
  ACCESS("bts", 8, "mov ecx, 17; bts [rdi], rcx; setc al");
  ACCESS("lock btr", 4, "mov ecx, 3; lock btr [rdi], ecx; setc al");
  ACCESS("shl", 8, "shl qword ptr [rdi], 3");
  ACCESS("rcl", 4, "mov cl, 9; rcl dword ptr [rdi], cl");
  ACCESS("shld", 8, "shld [rdi], rax, 12");
  ACCESS("not", 8, "not qword ptr [rdi]");
}
static void repeated(void) {
  LONG("rep movsb from", 16, "mov rdi, r8; mov ecx, 40; rep movsb");
  LONG("rep movsb to", 16, "mov rsi, r8; mov ecx, 40; rep movsb");
  LONG("rep movsq to", 16, "mov rsi, r8; mov ecx, 5; rep movsq");
  LONG("rep stosd", 16, "mov ecx, 9; rep stosd");
  LONG("rep lodsw", 16, "mov ecx, 20; rep lodsw");
  LONG("repe cmpsb", 16, "mov rdi, rsi; mov ecx, 30; repe cmpsb; setz al");
  LONG("repne scasb", 16, "mov ecx, 30; mov eax, 0xff; repne scasb; setz al");
  // The state in the middle of a faulting rep.
  prepare(EDGE - 6, false);
  run(CODE(".code64", "mov ecx, 40; rep stosb"));
  say("rep stosb stops: #%d rcx %x rdi edge+%x\n", out.vector, out.gpr[RCX], out.gpr[RDI] - EDGE);
  prepare(EDGE - 6, false);
  run(CODE(".code64", "mov ecx, 5; rep stosd"));
  say("rep stosd stops: #%d rcx %x rdi edge-%x\n", out.vector, out.gpr[RCX], EDGE - out.gpr[RDI]);
  prepare(EDGE + 6, false);
  run(CODE(".code64", "std; mov ecx, 40; rep stosb; cld"));
  say("backwards: #%d rcx %x rdi edge+%x cr2 edge+%x\n", out.vector, out.gpr[RCX], out.gpr[RDI] - EDGE, out.cr2 - EDGE);
}
void test_main(void) {
  second_flags = 0;
  reads();
  writes();
  read_writes();
  repeated();
  second_flags = P;
  writes();
  read_writes();
  repeated();
}
