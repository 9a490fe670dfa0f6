// 4-level paging: what each combination of rights allows and the error code where it does not, accessed and dirty bits,
// large pages, reserved bits, SMEP, SMAP, WP, NX, PCID and global pages.
#include "../runtime/runtime.h"

static const char* kinds[] = {"read", "write", "execute"};
static const char* access_code(unsigned kind, enum mode mode) {
  (void)mode;
  return kind == 0 ? CODE(".code64", "mov cl, [rdi]") : kind == 1 ? CODE(".code64", "mov [rdi+0x20], cl") : CODE(".code64", "jmp rdi");
}
static void attempt(unsigned kind, enum mode mode, u64 flags, u64 address) {
  setup(mode);
  in.gpr[RDI] = address;
  in.rflags |= flags;
  run(access_code(kind, mode));
  if (out.vector == ENDED) put(" -");
  else say(" %x%s", out.error, out.vector == 14 ? (out.cr2 == address + (kind == 1) * 0x20 ? "" : "!") : "?");
}
static void rights(const char* name) {
  // Leaf flags × upper flags, three kinds of access, both privileges; the word is the error code, - where allowed.
  for (u64 leaf = 0; leaf < 16; ++leaf)
    for (u64 upper = 0; upper < 8; ++upper) {
      const u64 f = (leaf & 7) | (leaf & 8 ? NX : 0);
      const u64 g = (upper & 3) << 1 | P | (upper & 4 ? NX : 0);
      window_pd[0] = (u64)window_pt | g;
      map(5, (u64)pool(5), f);
      invlpg(WINDOW + 0x5000);
      say("%s leaf %x upper %x:", name, leaf, upper);
      for (unsigned kind = 0; kind < 3; ++kind) {
        attempt(kind, M64, 0, WINDOW + 0x5010);
        attempt(kind, M64U, 0, WINDOW + 0x5010);
      }
      put("\n");
    }
  window_pd[0] = (u64)window_pt | P | W | U;
}
static void smap_ac(void) {
  map(5, (u64)pool(5), P | W | U);
  put("smap with ac:");
  for (unsigned kind = 0; kind < 3; ++kind) attempt(kind, M64, 0x40000, WINDOW + 0x5010);
  put("\n");
  RUN(M64, "stac clac", "mov rdi, 0x40005010; stac; mov cl, [rdi]; clac; mov cl, [rdi]");
  RUN(M64, "smap string", "mov edi, 0x40005010; mov ecx, 3; rep stosb");
  RUN(M64, "smap push", "mov rax, rsp; mov esp, 0x40005010; push rax");
  RUN(M64U, "smap user", "mov rdi, 0x40005010; mov cl, [rdi]; xor ecx, ecx");
  RUN(M64U, "stac user", "stac");
  // An implicit access to a table on a user page: AC does not help.
  ((u64*)pool(5))[1] = descriptor(0, 0xfffff, 0xc093);
  gdt[LDT64 / 8] = descriptor(WINDOW + 0x5000, 0xfff, 0x82);
  gdt[LDT64 / 8 + 1] = 0;
  RUNP(M64, "ldt on user page", in.rflags |= 0x40000, "mov eax, 0x58; lldt ax; mov eax, 0xc; mov ds, eax");
  RUN(M64, "lldt 0", "xor eax, eax; lldt ax");
}
static void accessed_dirty(void) {
  RUN(M64, "a/d setup", "nop");
  for (unsigned kind = 0; kind < 3; ++kind) {
    map(6, (u64)pool(6), P | W | U);
    pool(6)[0x10] = 0xcd;  // int 80h
    pool(6)[0x11] = 0x80;
    window_pd[0] = (u64)window_pt | P | W | U;
    write_cr3(read_cr3());
    attempt(kind, M64U, 0, WINDOW + 0x6010);
    say(" %s: pte %x pde %x\n", kinds[kind], window_pt[6] & 0xfff, window_pd[0] & 0xfff);
  }
  map(6, (u64)pool(6), P | U);
  attempt(1, M64U, 0, WINDOW + 0x6010);
  say(" faulting write: pte %x\n", window_pt[6] & 0xfff);
  map(6, (u64)pool(6), P | W | U);
  attempt(0, M64U, 0, WINDOW + 0x6010);
  attempt(1, M64U, 0, WINDOW + 0x6010);
  say(" read then write: pte %x\n", window_pt[6] & 0xfff);
  map(6, (u64)pool(6), P | W);
  attempt(0, M64U, 0, WINDOW + 0x6010);
  say(" refused read: pte %x\n", window_pt[6] & 0xfff);
  map(6, (u64)pool(6), P | W);
  RUN(M64, "cmpxchg that fails", "mov edi, 0x40006020; mov eax, 0x12345; mov [rdi], eax; xor eax, eax; mov ecx, 1; cmpxchg [rdi], ecx");
  say("pte %x\n", window_pt[6] & 0xfff);
  map(6, (u64)pool(6), P | W);
  RUN(M64, "cmpxchg that fails alone", "mov edi, 0x40006020; xor eax, eax; mov ecx, 1; lock cmpxchg [rdi], ecx");
  say("pte %x\n", window_pt[6] & 0xfff);
  map(6, (u64)pool(6), P);
  RUN(M64, "cmpxchg fails, read only", "mov edi, 0x40006020; xor eax, eax; mov ecx, 1; cmpxchg [rdi], ecx");
  RUN(M64, "rol by 0, read only", "mov edi, 0x40006020; xor ecx, ecx; rol dword ptr [rdi], cl");
  RUN(M64, "bt read only", "mov edi, 0x40006020; xor ecx, ecx; bt [rdi], ecx");
  RUN(M64, "bts read only", "mov edi, 0x40006020; xor ecx, ecx; bts [rdi], ecx");
  RUN(M64, "and read only", "mov edi, 0x40006020; and dword ptr [rdi], 0");
  RUN(M64, "test read only", "mov edi, 0x40006020; test dword ptr [rdi], 0; setz cl");
}
static void large(void) {
  const u64 saved = window_pd[0];
  window_pd[0] = POOL | P | W | U | PS;
  write_cr3(read_cr3());
  RUN(M64U, "2 MiB", "mov dword ptr [0x40000123], 0x1234567; mov ecx, [0x40000123]");
  say("pde %x\n", window_pd[0] & 0xfff);
  window_pd[0] = POOL | P | W | U | PS | 0x2000;  // bit 13 is reserved
  write_cr3(read_cr3());
  RUN(M64, "2 MiB reserved", "mov ecx, [0x40000123]");
  RUN(M64U, "2 MiB reserved write user", "mov [0x40000123], ecx");
  window_pd[0] = saved;
  window_pt[7] = POOL | P | W | U | 1UL << 51;
  write_cr3(read_cr3());
  RUN(M64, "pte reserved", "mov ecx, [0x40007123]");
  window_pt[7] = POOL | W | U | 1UL << 51;
  RUN(M64, "absent with reserved", "mov ecx, [0x40007123]");
  pml4[2] = pml4[0] | PS;
  RUN(M64, "pml4e ps", "mov rcx, 0x10000000000; mov ecx, [rcx]");
  pml4[2] = 0;
  RUN(M64, "pml4e absent", "mov rcx, 0x10000000000; mov ecx, [rcx]");
}
static void remap(void) {
  *(u32*)pool(8) = 0x1111;
  *(u32*)pool(9) = 0x2222;
  map(8, (u64)pool(8), P | W | U);
  RUN(M64, "before", "mov ecx, [0x40008000]");
  map(8, (u64)pool(9), P | W | U);
  RUN(M64, "after invlpg", "mov ecx, [0x40008000]");
  window_pt[8] = (u64)pool(8) | P | W | U;
  write_cr3(read_cr3());
  RUN(M64, "after cr3", "mov ecx, [0x40008000]");
  window_pt[8] = (u64)pool(9) | P | W | U | G;
  write_cr3(read_cr3());
  write_cr4(read_cr4() | 0x80);
  RUN(M64, "global", "mov ecx, [0x40008000]");
  window_pt[8] = (u64)pool(8) | P | W | U | G;
  invlpg(WINDOW + 0x8000);
  RUN(M64, "global after invlpg", "mov ecx, [0x40008000]");
  window_pt[8] = (u64)pool(9) | P | W | U;
  write_cr4(read_cr4() & ~0x80UL);
  RUN(M64, "global after pge off", "mov ecx, [0x40008000]");
  window_pt[8] = 0;
  invlpg(WINDOW + 0x8000);
  RUN(M64, "gone", "mov ecx, [0x40008000]");
  window_pt[8] = (u64)pool(8) | P | W | U;  // absent to present needs no flush
  RUN(M64, "came", "mov ecx, [0x40008000]");
  // Two names of one page.
  map(9, (u64)pool(8), P | W | U);
  RUN(M64, "alias", "mov dword ptr [0x40008040], 0x77; mov ecx, [0x40009040]; mov dword ptr [0x40009040], 0x99; mov edx, [0x40008040]");
}
static void pcid(void) {
  u32 r[4];
  cpuid(1, 0, r);
  if (!(r[2] >> 17 & 1)) {
    put("no pcid\n");
    return;
  }
  RUN(M64, "pcide with pcid in cr3", "mov rax, cr3; or rax, 1; mov cr3, rax; mov rcx, cr4; bts rcx, 17; mov cr4, rcx");
  write_cr3((u64)pml4);
  write_cr4(read_cr4() | 1 << 17);
  static u64 other[512] __attribute__((aligned(4096))), other_pdpt[512] __attribute__((aligned(4096))),
      other_pd[512] __attribute__((aligned(4096))), other_pt[512] __attribute__((aligned(4096)));
  memcpy(other_pdpt, (void*)(pml4[0] & ~0xfffUL), 4096);
  other[0] = (u64)other_pdpt | P | W | U;
  other_pdpt[1] = (u64)other_pd | P | W | U;
  other_pd[0] = (u64)other_pt | P | W | U;
  other_pt[10] = (u64)pool(9) | P | W;
  map(10, (u64)pool(8), P | W);
  for (int i = 0; i < 3; ++i) {
    write_cr3((u64)pml4 | 1);
    RUN(M64, "pcid 1", "mov ecx, [0x4000a000]");
    write_cr3((u64)other | 2);
    RUN(M64, "pcid 2", "mov ecx, [0x4000a000]");
    write_cr3((u64)pml4 | 1 | (1UL << 63));
    RUN(M64, "pcid 1 kept", "mov ecx, [0x4000a000]; mov rax, cr3; shr rax, 63");
    write_cr3((u64)other | 2 | (1UL << 63));
    RUN(M64, "pcid 2 kept", "mov ecx, [0x4000a000]");
  }
  other_pt[10] = (u64)pool(8) | P | W;
  write_cr3((u64)other | 2);  // flushes
  RUN(M64, "pcid 2 flushed", "mov ecx, [0x4000a000]");
  window_pt[10] = (u64)pool(9) | P | W;
  struct { u64 id, address; } d = {1, WINDOW + 0xa000};
  cpuid(7, 0, r);
  if (r[1] >> 10 & 1) {
    asm volatile("invpcid %0, %1" ::"m"(d), "r"(0UL));
    write_cr3((u64)pml4 | 1 | (1UL << 63));
    RUN(M64, "pcid 1 invpcid", "mov ecx, [0x4000a000]");
    RUN(M64, "invpcid type 4", "mov eax, 4; push 0; push 0; invpcid rax, [rsp]");
    RUN(M64, "invpcid reserved", "xor eax, eax; push 0; mov ecx, 0x1000; push rcx; invpcid rax, [rsp]");
    RUN(M64, "invpcid noncanonical", "xor eax, eax; mov rcx, 0x800000000000; push rcx; push 0; invpcid rax, [rsp]");
    RUN(M64U, "invpcid user", "xor eax, eax; push 0; push 0; invpcid rax, [rsp]");
  }
  write_cr3((u64)pml4);
  RUN(M64, "pae off with pcide", "mov rax, cr4; btr rax, 5; mov cr4, rax");
  write_cr4(read_cr4() & ~(1UL << 17));
}
void test_main(void) {
  pool(5)[0x10] = 0xcd;
  pool(5)[0x11] = 0x80;
  wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
  rights("wp nx");
  write_cr0(read_cr0() & ~0x10000UL);
  rights("nx");
  write_cr0(read_cr0() | 0x10000);
  write_cr4(read_cr4() | 1 << 20);
  rights("wp nx smep");
  write_cr4(read_cr4() | 1 << 21);
  rights("wp nx smep smap");
  smap_ac();
  write_cr4(read_cr4() & ~(3UL << 20));
  accessed_dirty();
  large();
  remap();
  pcid();
  wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800UL);
  map(5, (u64)pool(5), P | W | U | NX);
  RUN(M64, "nx bit without nxe", "mov cl, [0x40005000]");
}
