// Paging outside of long mode and pages of every size: 32-bit tables with 4 KiB and 4 MiB pages, PAE tables with 4 KiB and
// 2 MiB pages and the four PDPTEs, 1 GiB pages of long mode; what each combination of rights allows, error codes, accessed
// and dirty bits, reserved bits.
#include "../runtime/runtime.h"

// Page tables of the test. The 4 KiB pages at WINDOW, 4 MiB (or 2) of them, are mapped by `leaf`.
static u32* const pde = (u32*)(POOL + 0x10000);
static u32* const pte = (u32*)(POOL + 0x11000);
static u32* const low = (u32*)(POOL + 0x12000);  // four tables: the first 16 MiB one to one
static u64* const pdpte = (u64*)(POOL + 0x20000);
static u64* const low_pd = (u64*)(POOL + 0x21000);
static u64* const window_directory = (u64*)(POOL + 0x22000);
static u64* const window_table = (u64*)(POOL + 0x23000);
static u64 cr4;
static bool pae;

static void make_tables(void) {
  memset(pde, 0, 4096);
  memset(pte, 0, 4096);
  for (u32 i = 0; i < 4096; ++i) low[i] = i << 12 | P | W | U;
  for (u32 i = 0; i < 4; ++i) pde[i] = (u32)(u64)(low + i * 1024) | P | W | U;
  pde[WINDOW >> 22] = (u32)(u64)pte | P | W | U;
  memset(pdpte, 0, 4096);
  memset(low_pd, 0, 4096);
  memset(window_directory, 0, 4096);
  memset(window_table, 0, 4096);
  for (u64 i = 0; i < 8; ++i) low_pd[i] = i << 21 | P | W | U | PS;
  window_directory[0] = (u64)window_table | P | W | U;
  pdpte[0] = (u64)low_pd | P;
  pdpte[1] = (u64)window_directory | P;
}
static void paged(enum mode mode) {
  setup(mode);
  in.cr0 |= read_cr0() & 0x10000;  // WP as it is now
  in.cr0 |= 0x80000000;
  in.cr4 = cr4;
  in.cr3 = pae ? (u64)pdpte : (u64)pde;
}
#define TRY(mode, name, text) do { paged(mode); run_and_report(name, CODE(".code32", text)); } while (0)

static const char* access_code(unsigned kind) {
  return kind == 0 ? CODE(".code32", "mov cl, [edi]") : kind == 1 ? CODE(".code32", "mov [edi+0x20], cl") : CODE(".code32", "jmp edi");
}
static void attempt(unsigned kind, enum mode mode, u64 address) {
  paged(mode);
  in.gpr[RDI] = address;
  run(access_code(kind));
  if (out.vector == ENDED) put(" -");
  else say(" %x%s", out.error, out.vector == 14 ? (out.cr2 == address + (kind == 1) * 0x20 ? "" : "!") : "?");
}
static void six(u64 address) {
  for (unsigned kind = 0; kind < 3; ++kind) {
    attempt(kind, L32, address);
    attempt(kind, L32U, address);
  }
  put("\n");
}
static void rights_32(const char* name) {
  for (u32 leaf = 0; leaf < 8; ++leaf)
    for (u32 upper = 0; upper < 4; ++upper) {
      pte[5] = (u32)(u64)pool(5) | leaf;
      pde[WINDOW >> 22] = (u32)(u64)pte | P | upper << 1;
      say("%s leaf %x upper %x:", name, (u64)leaf, (u64)upper);
      six(WINDOW + 0x5010);
    }
  pde[WINDOW >> 22] = (u32)(u64)pte | P | W | U;
}
static void rights_pae(const char* name) {
  for (u64 leaf = 0; leaf < 16; ++leaf)
    for (u64 upper = 0; upper < 8; ++upper) {
      window_table[5] = (u64)pool(5) | (leaf & 7) | (leaf & 8 ? NX : 0);
      window_directory[0] = (u64)window_table | P | (upper & 3) << 1 | (upper & 4 ? NX : 0);
      say("%s leaf %x upper %x:", name, leaf, upper);
      six(WINDOW + 0x5010);
    }
  window_directory[0] = (u64)window_table | P | W | U;
}
// For each mode of SMEP, SMAP and WP, a user page that may be written.
static void protections(void) {
  for (u32 bits = 0; bits < 8; ++bits) {
    cr4 = (cr4 & ~0x300000UL) | (bits & 1 ? 0x100000 : 0) | (bits & 2 ? 0x200000 : 0);
    write_cr0((read_cr0() & ~0x10000UL) | (bits & 4 ? 0x10000 : 0));
    say("smep %d smap %d wp %d user page:", (u64)(bits & 1), (u64)(bits >> 1 & 1), (u64)(bits >> 2));
    for (u32 i = 0; i < 4096; ++i) low[i] &= ~(u32)U;  // the kernel's own is not the user's
    for (u64 i = 0; i < 8; ++i) low_pd[i] &= ~(u64)U;
    pte[5] = (u32)(u64)pool(5) | P | U;
    window_table[5] = (u64)pool(5) | P | U;
    for (unsigned kind = 0; kind < 3; ++kind) attempt(kind, L32, WINDOW + 0x5010);
    put("\n");
  }
  cr4 &= ~0x300000UL;
  write_cr0(read_cr0() | 0x10000);
  make_tables();
}
static u64 leaf_now(void) { return pae ? window_table[6] : pte[6]; }
static u64 upper_now(void) { return pae ? window_directory[0] : pde[WINDOW >> 22]; }
static void set_leaf(u64 flags) {
  pte[6] = (u32)(u64)pool(6) | (u32)flags;
  window_table[6] = (u64)pool(6) | flags;
}
static void accessed_dirty(void) {
  static const char* const kinds[] = {"read", "write", "execute"};
  pool(6)[0x10] = 0xcd;
  pool(6)[0x11] = 0x80;
  for (unsigned kind = 0; kind < 3; ++kind) {
    make_tables();
    set_leaf(P | W | U);
    attempt(kind, L32U, WINDOW + 0x6010);
    say(" %s: leaf %x upper %x pdpte %x\n", kinds[kind], leaf_now() & 0xfff, upper_now() & 0xfff, pdpte[1] & 0xfff);
  }
  make_tables();
  set_leaf(P | U);
  attempt(1, L32U, WINDOW + 0x6010);
  say(" faulting write: leaf %x\n", leaf_now() & 0xfff);  // of the upper entry, the manual allows both
  set_leaf(P | W);
  attempt(0, L32U, WINDOW + 0x6010);
  say(" refused read: leaf %x\n", leaf_now() & 0xfff);
  make_tables();
}
static void crossing(void) {
  make_tables();
  pte[8] = (u32)(u64)pool(8) | P | W | U;
  window_table[8] = (u64)pool(8) | P | W | U;
  TRY(L32, "over the end, read", "mov ecx, [0x40008ffe]");
  TRY(L32, "over the end, write", "mov [0x40008ffd], ecx");
  TRY(L32U, "over the end, user", "lock add dword ptr [0x40008fff], 1");
  TRY(L32, "code over the end", "mov byte ptr [0x40008fff], 0xb9; mov edi, 0x40008fff; jmp edi");
  TRY(L32, "round 4 GiB, jump", "mov edi, 0xffffffff; jmp edi");
  TRY(L32, "absent directory", "mov ecx, [0x80000000]");
  TRY(L32U, "push", "mov esp, 0x40000004; push ecx");
  TRY(L32, "string", "mov edi, 0x40008ffc; mov ecx, 6; cld; rep stosb");
  TRY(L32, "invlpg", "mov ecx, [0x40008000]; mov dword ptr [0x811020], 0; mov dword ptr [0x823040], 0; invlpg [0x40008000]; mov ecx, [0x40008000]");
}
static void large_32(void) {
  make_tables();
  *(u32*)pool(0) = 0x11112222;
  pde[WINDOW >> 22] = POOL | P | W | U | PS;
  TRY(L32, "4 MiB bit without pse", "mov ecx, [0x40000000]");
  cr4 = 0x10;
  pde[WINDOW >> 22] = POOL | P | W | U | PS;
  TRY(L32U, "4 MiB", "mov ecx, [0x40000000]; mov edx, [0x40011000]");
  say("pde %x\n", (u64)pde[WINDOW >> 22] & 0xfff);
  TRY(L32U, "4 MiB write", "mov [0x40005030], ecx");
  say("pde %x\n", (u64)pde[WINDOW >> 22] & 0xfff);
  pde[WINDOW >> 22] = POOL | P | U | PS;
  TRY(L32U, "4 MiB read only", "mov [0x40005030], ecx");
  pde[WINDOW >> 22] = POOL | P | W | PS;
  TRY(L32U, "4 MiB supervisor", "mov ecx, [0x40005030]");
  pde[WINDOW >> 22] = POOL | P | W | U | PS | 0x200000;
  TRY(L32, "4 MiB reserved", "mov ecx, [0x40000000]");
  TRY(L32U, "4 MiB reserved write", "mov [0x40000000], ecx");
  pde[WINDOW >> 22] = POOL | W | U | PS | 0x200000;
  TRY(L32, "4 MiB absent with reserved", "mov ecx, [0x40000000]");
  pde[WINDOW >> 22] = POOL | P | W | U | PS | 0x1000;
  TRY(L32, "4 MiB pat bit", "mov ecx, [0x40000000]");
  // Global pages: they outlive a load of CR3, until their address is invalidated.
  cr4 = 0x90;
  pde[WINDOW >> 22] = (u32)(u64)pte | P | W | U;
  *(u32*)pool(1) = 0x33334444;
  pte[0] = (u32)(u64)pool(0) | P | W | U | G;
  pte[1] = (u32)(u64)pool(0) | P | W | U;
  TRY(L32, "global", "mov ecx, [0x40000000]; mov edx, [0x40001000]; mov eax, [0x811000]; add eax, 0x1000; mov [0x811000], eax; mov [0x811004], eax; "
    "mov ebx, cr3; mov cr3, ebx; mov ebx, [0x40000000]; mov esi, [0x40001000]; invlpg [0x40000000]; mov edi, [0x40000000]; xor eax, eax");
  cr4 = 0;
}
static void large_pae(void) {
  make_tables();
  *(u32*)pool(0) = 0x11112222;
  window_directory[0] = POOL | P | W | U | PS;
  TRY(L32U, "2 MiB", "mov ecx, [0x40000000]; mov [0x40005030], ecx");
  say("pde %x\n", window_directory[0] & 0xfff);
  window_directory[0] = POOL | P | W | U | PS | 0x2000;
  TRY(L32, "2 MiB reserved", "mov ecx, [0x40000000]");
  window_directory[0] = POOL | P | W | U | PS | NX;
  TRY(L32, "2 MiB nx", "mov ecx, [0x40000000]; mov edi, 0x40000000; jmp edi");
  window_directory[0] = (u64)window_table | P | W | U;
  window_table[0] = (u64)pool(0) | P | W | U | 1UL << 52;
  TRY(L32, "pte bit 52", "mov ecx, [0x40000000]");
  window_table[0] = (u64)pool(0) | P | W | U | 1UL << 62;
  TRY(L32, "pte bit 62", "mov ecx, [0x40000000]");
  window_table[0] = (u64)pool(0) | P | W | U | 1UL << 51;
  TRY(L32U, "pte bit 51", "mov [0x40000000], ecx");
  window_table[0] = (u64)pool(0) | W | U | 1UL << 51;
  TRY(L32, "absent with bit 51", "mov ecx, [0x40000000]");
  window_table[0] = (u64)pool(0) | P | W | U;
  // The four page-directory-pointer entries are read with CR3, and only then.
  pdpte[3] = (u64)window_directory | P;
  TRY(L32, "pdpte 3", "mov ecx, [0xc0000000]");
  TRY(L32, "pdpte absent", "mov ecx, [0x80000000]");
  TRY(L32, "pdpte changed alone", "mov dword ptr [0x820010], 0x822001; invlpg [0x80000000]; mov ecx, [0x80000000]");
  pdpte[2] = 0;
  TRY(L32, "pdpte after cr3", "mov dword ptr [0x820010], 0x822001; mov eax, cr3; mov cr3, eax; mov ecx, [0x80000000]; xor eax, eax");
  TRY(L32, "pdpte gone after cr3", "mov ecx, [0x80000000]; mov dword ptr [0x820010], 0; mov eax, cr3; mov cr3, eax; mov edx, [0x80000000]");
  TRY(L32, "second table", "mov edi, 0x820080; mov esi, 0x820000; mov ecx, 8; cld; rep movsd; mov dword ptr [0x820088], 0; mov eax, 0x820080; mov cr3, eax; mov ecx, [0x40000000]");
  pdpte[2] = 0;
  static const u64 reserved[] = {W, U, A, D, 0x80, G, 1UL << 52, NX};
  for (unsigned i = 0; i < sizeof reserved / sizeof *reserved; ++i) {
    pdpte[2] = 0;
    paged(L32);
    in.gpr[RAX] = (u32)((u64)window_directory | P | reserved[i]);
    in.gpr[RDX] = ((u64)window_directory | P | reserved[i]) >> 32;
    say("bit %x: ", reserved[i]);
    run_and_report("pdpte reserved", CODE(".code32", "mov [0x820010], eax; mov [0x820014], edx; mov eax, cr3; mov cr3, eax; mov ecx, [0x80000000]"));
  }
  pdpte[2] = 0;
  pdpte[3] = 0;
}
static void mode_changes(void) {
  make_tables();
  pae = false;
  cr4 = 0;
  TRY(L32, "pg off and on", "mov eax, cr0; mov edx, eax; and eax, 0x7fffffff; mov cr0, eax; mov ecx, [0x800000]; mov cr0, edx; mov ebx, [0x800000]; xor eax, eax; xor edx, edx");
  TRY(L32, "pg without pe", "mov eax, cr0; and eax, 0xfffffffe; mov cr0, eax");
  TRY(L32, "pae on", "mov eax, 0x20; mov esi, 0x820000; mov edx, cr0; and edx, 0x7fffffff; mov cr0, edx; mov cr4, eax; mov cr3, esi; or edx, 0x80000000; mov cr0, edx; mov ecx, [0x800000]; xor edx, edx");
  TRY(L32, "pse on", "mov dword ptr [0x810400], 0x8000e7; mov eax, 0x10; mov cr4, eax; mov ecx, [0x40000000]; xor eax, eax");
  make_tables();
}
static void gigabytes(void) {
  u64* const pdpt = (u64*)(pml4[0] & ~0xfffUL);
  u32 r[4];
  cpuid(0x80000001, 0, r);
  say("1 GiB pages: %d\n", (u64)(r[3] >> 26 & 1));
  *(u32*)pool(0) = 0x11112222;
  pdpt[8] = P | W | U | PS;  // the first GiB, at 8 GiB
  write_cr3(read_cr3());
  RUN(M64U, "1 GiB", "mov rdi, 0x200800000; mov ecx, [rdi]; mov [rdi+8], ecx; mov rdx, [rdi+8]");
  say("pdpte %x\n", pdpt[8] & 0xfff);
  pdpt[8] = P | U | PS;
  write_cr3(read_cr3());
  RUN(M64U, "1 GiB read only", "mov rdi, 0x200800000; mov ecx, [rdi]; mov [rdi], ecx");
  say("pdpte %x\n", pdpt[8] & 0xfff);
  pdpt[8] = P | W | PS;
  write_cr3(read_cr3());
  RUN(M64U, "1 GiB supervisor", "mov rdi, 0x200800000; mov ecx, [rdi]");
  pdpt[8] = P | W | U | PS | NX;
  write_cr3(read_cr3());
  RUN(M64, "1 GiB nx", "mov rdi, 0x200800000; mov ecx, [rdi]; jmp rdi");
  for (unsigned bit = 13; bit < 30; bit += 4) {
    pdpt[8] = P | W | U | PS | 1UL << bit;
    write_cr3(read_cr3());
    say("bit %d: ", (u64)bit);
    RUN(M64, "1 GiB reserved", "mov rdi, 0x200800000; mov ecx, [rdi]");
  }
  pdpt[8] = P | W | U | PS | 0x1000;
  write_cr3(read_cr3());
  RUN(M64, "1 GiB pat bit", "mov rdi, 0x200800000; mov ecx, [rdi]");
  pdpt[8] = 0;
  invlpg(0x200800000);
  RUN(M64, "1 GiB gone", "mov rdi, 0x200800000; mov ecx, [rdi]");
}
void test_main(void) {
  wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);  // NXE
  pool(5)[0x10] = 0xcd;                          // int 80h
  pool(5)[0x11] = 0x80;
  for (unsigned wide = 0; wide < 2; ++wide) {
    pae = wide;
    cr4 = wide ? 0x20 : 0;
    say("-- %s\n", wide ? "pae" : "32 bit");
    make_tables();
    write_cr0(read_cr0() | 0x10000);
    if (wide) rights_pae("wp");
    else rights_32("wp");
    write_cr0(read_cr0() & ~0x10000UL);
    if (wide) rights_pae("no wp");
    else rights_32("no wp");
    write_cr0(read_cr0() | 0x10000);
    protections();
    accessed_dirty();
    crossing();
    if (wide) large_pae();
    else large_32();
    cr4 = wide ? 0x20 : 0;
  }
  mode_changes();
  gigabytes();
  wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800UL);
  pae = true;
  cr4 = 0x20;
  make_tables();
  window_table[0] = (u64)pool(5) | P | W | U | NX;
  TRY(L32, "nx bit without nxe", "mov ecx, [0x40000000]");
  window_table[0] = (u64)pool(5) | P | W;
  TRY(L32U, "fetch without nxe", "mov edi, 0x40000010; jmp edi");
}
