// 5-level paging: switched on outside of long mode only, which addresses are canonical with it, the fifth table's entries,
// and where instructions check addresses of 57 bits.
#include "../runtime/runtime.h"

extern u32 long_cr3, long_cr4;
#define pml5 ((u64*)(POOL + 0x10000))
#define other_pml4 ((u64*)(POOL + 0x11000))

static void inside(void) {
  say("cr4 %x cr3 %x\n", read_cr4(), read_cr3() - (u64)pml5);
  *(u64*)pool(1) = 0x1122334455667788;
  RUN(M64, "as before", "mov ecx, [0x801000]");
  RUN(M64, "last of the lower half", "mov rdi, 0xffffffffffffff; mov cl, [rdi]");
  RUN(M64, "not canonical", "mov rdi, 0x100000000000000; mov cl, [rdi]");
  RUN(M64, "not canonical by one byte", "mov rdi, 0xfffffffffffffd; mov ecx, [rdi]");
  RUN(M64, "first of the upper half", "mov rdi, 0xff00000000000000; mov cl, [rdi]");
  RUN(M64, "canonical with 48 bits no more", "mov rdi, 0xffff7fffffffffff; mov cl, [rdi]");
  RUN(M64, "48 bits and one", "mov rdi, 0x800000000000; mov cl, [rdi]");
  // What the fifth level maps: the same again, from 2^48 on.
  other_pml4[0] = pml4[0];
  pml5[1] = (u64)other_pml4 | P | W | U;
  RUN(M64U, "second entry", "mov rdi, 0x1000000801000; mov rcx, [rdi]; mov [rdi+8], rcx");
  RUN(M64, "second entry of the kernel", "mov rdi, 0x1000000801000; mov rcx, [rdi]; mov rdx, [rdi+8]");
  say("pml5e %x pml4e %x\n", pml5[1] & 0xfff, other_pml4[0] & 0xfff);
  RUN(M64, "jump there", "mov rdi, 0x1000000000000; lea rsi, [rip+1f]; add rdi, rsi; jmp rdi; ud2; 1: lea rcx, [rip]; shr rcx, 32; xor esi, esi; xor edi, edi");
  pml5[1] = (u64)other_pml4 | P | U;
  invlpg(0x1000000801000);
  RUN(M64, "read only", "mov rdi, 0x1000000801000; mov [rdi], ecx");
  pml5[1] = (u64)other_pml4 | P | W;
  invlpg(0x1000000801000);
  RUN(M64U, "supervisor", "mov rdi, 0x1000000801000; mov ecx, [rdi]");
  pml5[1] = (u64)other_pml4 | P | W | U | NX;
  invlpg(0x1000000801000);
  RUN(M64, "nx", "mov rdi, 0x1000000801000; jmp rdi");
  pml5[1] = 0;
  invlpg(0x1000000801000);
  RUN(M64, "absent", "mov rdi, 0x1000000801000; mov ecx, [rdi]");
  pml5[1] = (u64)other_pml4 | P | W | U | PS;
  invlpg(0x1000000801000);
  setup(M64);
  in.gpr[RDI] = 0x1000000801000;
  run(CODE(".code64", "mov ecx, [rdi]"));
  say("size bit: vector %x reserved %d\n", out.vector, out.error >> 3 & 1);
  pml5[1] = 0;
  // Registers that hold addresses.
  RUN(M64, "fs base", "mov ecx, 0xc0000100; xor eax, eax; mov edx, 0x00800000; wrmsr; rdmsr; mov ebx, edx; xor eax, eax; xor edx, edx; wrmsr");
  RUN(M64, "fs base not canonical", "mov ecx, 0xc0000100; xor eax, eax; mov edx, 0x01000000; wrmsr");
  RUN(M64, "invlpg not canonical", "mov rdi, 0x100000000000000; invlpg [rdi]");
  RUN(M64, "return to 57 bits", "mov rdx, 0x80000000000000; push 8; push rdx; retfq");
  RUN(M64, "return to 58", "mov rdx, 0x100000000000000; push 8; push rdx; retfq");
  RUN(M64, "stack of 57 bits", "mov rbx, rsp; mov rsp, 0x80000000000000; mov rcx, rsp; mov rsp, rbx; xor ebx, ebx");
  RUN(M64, "switching it off", "mov rax, cr4; btr rax, 12; mov cr4, rax");
  // A descriptor of 16 bytes with a base of 57 bits.
  gdt[LDT64 / 8] = descriptor(0, 0xfff, 0x82);
  gdt[LDT64 / 8 + 1] = 0x00800000;
  RUN(M64, "ldt base", "mov eax, 0x58; lldt ax; sldt ecx; xor eax, eax; lldt ax");
  gdt[LDT64 / 8 + 1] = 0x01000000;
  RUN(M64, "ldt base not canonical", "mov eax, 0x58; lldt ax");
}
void test_main(void) {
  u32 r[4];
  cpuid(7, 0, r);
  say("la57: %d\n", (u64)(r[2] >> 16 & 1));
  cpuid(0x80000008, 0, r);
  say("linear bits: %d\n", (u64)(r[0] >> 8 & 0xff));
  wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
  RUN(M64, "cr4 in long mode", "mov rax, cr4; bts rax, 12; mov cr4, rax");
  RUN(M64, "without it: 49 bits", "mov rdi, 0x800000000000; mov cl, [rdi]");
  memset(pml5, 0, 8192);
  pml5[0] = (u64)pml4 | P | W | U;
  // Through protected mode: the way back into long mode loads what stands in these two.
  setup(L32);
  in.gpr[RAX] = (u32)(u64)pml5;
  run(CODE(".code32", "mov long_cr3, eax; or dword ptr [long_cr4], 0x1000"));
  inside();
  setup(L32);
  in.gpr[RAX] = (u32)(u64)pml4;
  run(CODE(".code32", "mov long_cr3, eax; and dword ptr [long_cr4], 0xffffefff"));
  RUN(M64, "off again: 49 bits", "mov rdi, 0x800000000000; mov cl, [rdi]");
}
