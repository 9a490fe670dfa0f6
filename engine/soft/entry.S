/* Entering and leaving generated code, and its calls into C++. entry.hpp describes the register conventions. */
#include "engine/soft/context_offsets.h"

        .intel_syntax noprefix
        .text

#define GS(offset) gs:[offset]
#define SCRATCH(n) gs:[CONTEXT_SCRATCH + 8 * n]

/* Guest registers, in and out. RCX, R10 and R11 are scratch; guest R8-R11 are in memory already. */
.macro save_gprs
        mov     GS(CONTEXT_GPR + 8 * 0), rax
        mov     GS(CONTEXT_GPR + 8 * 1), r9
        mov     GS(CONTEXT_GPR + 8 * 2), rdx
        mov     GS(CONTEXT_GPR + 8 * 3), rbx
        mov     GS(CONTEXT_GPR + 8 * 4), r8
        mov     GS(CONTEXT_GPR + 8 * 5), rbp
        mov     GS(CONTEXT_GPR + 8 * 6), rsi
        mov     GS(CONTEXT_GPR + 8 * 7), rdi
        mov     GS(CONTEXT_GPR + 8 * 12), r12
        mov     GS(CONTEXT_GPR + 8 * 13), r13
        mov     GS(CONTEXT_GPR + 8 * 14), r14
        mov     GS(CONTEXT_GPR + 8 * 15), r15
.endm

.macro load_gprs
        mov     rax, GS(CONTEXT_GPR + 8 * 0)
        mov     r9, GS(CONTEXT_GPR + 8 * 1)
        mov     rdx, GS(CONTEXT_GPR + 8 * 2)
        mov     rbx, GS(CONTEXT_GPR + 8 * 3)
        mov     r8, GS(CONTEXT_GPR + 8 * 4)
        mov     rbp, GS(CONTEXT_GPR + 8 * 5)
        mov     rsi, GS(CONTEXT_GPR + 8 * 6)
        mov     rdi, GS(CONTEXT_GPR + 8 * 7)
        mov     r12, GS(CONTEXT_GPR + 8 * 12)
        mov     r13, GS(CONTEXT_GPR + 8 * 13)
        mov     r14, GS(CONTEXT_GPR + 8 * 14)
        mov     r15, GS(CONTEXT_GPR + 8 * 15)
.endm

/* Arithmetic flags; RAX (and for saving RCX) is lost. PUSHF / POPF would cost ten times as much. */
.macro save_flags
        lahf
        seto    al
        movzx   ecx, ah
        movzx   eax, al
        and     ecx, 0xd5
        shl     eax, 11
        or      eax, ecx
        mov     GS(CONTEXT_ARITHMETIC_FLAGS), rax
.endm

.macro load_flags
        mov     rax, GS(CONTEXT_ARITHMETIC_FLAGS)
        mov     ecx, eax
        shr     ecx, 11
        and     ecx, 1
        mov     ah, al
        mov     al, cl
        add     al, 0x7f
        sahf
.endm

/* The guest's x87 and vector state out of the registers, the host's control words in. Without XSAVE (no components), the
   same area is FXSAVE's. RAX, RCX and RDX are lost, and the flags. */
.macro unload_fpu
        mov     rax, GS(CONTEXT_FPU_MASK)
        xor     edx, edx
        mov     rcx, rax
        jrcxz   8f
        xsave64 GS(CONTEXT_XSAVE)
        jmp     9f
8:      fxsave64 GS(CONTEXT_XSAVE)
9:
        mov     qword ptr GS(CONTEXT_FPU_ABSENT), 1
        fninit
        mov     dword ptr SCRATCH(14), 0x1f80
        ldmxcsr dword ptr SCRATCH(14)
.endm

/* And in. RAX, RCX and RDX are lost; flags are kept. */
.macro load_fpu
        mov     rax, GS(CONTEXT_FPU_MASK)
        mov     edx, 0
        mov     rcx, rax
        jrcxz   8f
        xrstor64 GS(CONTEXT_XSAVE)
        jmp     9f
8:      fxrstor64 GS(CONTEXT_XSAVE)
9:
        mov     qword ptr GS(CONTEXT_FPU_ABSENT), 0
.endm

/* void vmp_soft_enter(const std::byte* code) */
        .globl  vmp_soft_enter
        .type   vmp_soft_enter, @function
vmp_soft_enter:
        .cfi_startproc
        push    rbx
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
        mov     GS(CONTEXT_HOST_RSP), rsp
        and     rsp, -64
        sub     rsp, 52
        mov     r10, rdi
        load_flags
        load_gprs
        jmp     r10
        .cfi_endproc
        .size   vmp_soft_enter, . - vmp_soft_enter

        .globl  vmp_soft_thunks_begin
vmp_soft_thunks_begin:

thunk_link:
        mov     GS(CONTEXT_EXIT_VALUE), rcx
        mov     qword ptr GS(CONTEXT_EXIT_REASON), EXIT_LINK
        jmp     leave

thunk_indirect:                 /* called, so that the return address tells which instruction this is */
        mov     GS(CONTEXT_EXIT_VALUE), r10
        mov     SCRATCH(8), rcx
        pop     rcx
        mov     SCRATCH(9), rcx
        mov     qword ptr GS(CONTEXT_EXIT_REASON), EXIT_INDIRECT
        jmp     leave

thunk_poll:                     /* called, likewise */
        mov     SCRATCH(8), rcx
        pop     rcx
        mov     GS(CONTEXT_EXIT_VALUE), rcx
        mov     qword ptr GS(CONTEXT_EXIT_REASON), EXIT_POLL
        jmp     leave

thunk_native_fault:             /* the signal handler has set exit_value */
        mov     qword ptr GS(CONTEXT_EXIT_REASON), EXIT_NATIVE_FAULT
        jmp     leave

thunk_execute:
        mov     GS(CONTEXT_EXIT_VALUE), rcx
        mov     qword ptr GS(CONTEXT_EXIT_REASON), EXIT_EXECUTE

leave:
        save_gprs
        save_flags
leave_saved:
        cmp     qword ptr GS(CONTEXT_FPU_ABSENT), 0
        jne     1f
        unload_fpu
1:      mov     rsp, GS(CONTEXT_HOST_RSP)
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
        ret

/* A TLB probe missed. Leaf: the C++ it calls touches no vector register. RSP mod 64 = 4 here. */
thunk_miss:
        mov     SCRATCH(0), rax
        lahf
        seto    al
        mov     SCRATCH(1), rax
        mov     SCRATCH(2), rdx
        mov     SCRATCH(3), rsi
        mov     SCRATCH(4), rdi
        mov     SCRATCH(5), r8
        mov     SCRATCH(6), r9
        mov     SCRATCH(7), r10
        mov     SCRATCH(8), rcx
        mov     rdi, GS(CONTEXT_SELF)
        mov     rsi, r10
        mov     edx, ecx
        lea     rsp, [rsp - 4]
        call    vmp_soft_tlb_miss@PLT
        lea     rsp, [rsp + 4]
        mov     r11, rax
        mov     rcx, rdx
        mov     rdx, SCRATCH(2)
        mov     rsi, SCRATCH(3)
        mov     rdi, SCRATCH(4)
        mov     r8, SCRATCH(5)
        mov     r9, SCRATCH(6)
        mov     r10, SCRATCH(7)
        test    ecx, ecx
        mov     rax, SCRATCH(1)
        jnz     1f
        add     al, 0x7f
        sahf
        mov     rax, SCRATCH(0)
        ret
1:      add     ecx, EXIT_CHECKED - 1
        mov     GS(CONTEXT_EXIT_REASON), rcx
        add     al, 0x7f
        sahf
        mov     rax, SCRATCH(0)
        pop     rcx
        mov     GS(CONTEXT_EXIT_VALUE), rcx
        jmp     leave

/* The guest's x87 and vector state is wanted. Flags and everything else are kept. */
thunk_fpu_load:
        mov     SCRATCH(0), rax
        mov     SCRATCH(1), rdx
        load_fpu
        mov     rax, SCRATCH(0)
        mov     rdx, SCRATCH(1)
        ret

/* An access in a checked block: always by way of C++. RSP mod 64 = 4 here. */
thunk_checked_access:
        mov     SCRATCH(8), rcx
        save_gprs
        save_flags
        mov     rbx, GS(CONTEXT_FPU_ABSENT)
        test    rbx, rbx
        jnz     1f
        unload_fpu
1:      mov     rdi, GS(CONTEXT_SELF)
        mov     rsi, r10
        mov     rdx, SCRATCH(8)
        lea     rsp, [rsp - 4]
        call    vmp_soft_checked_access@PLT
        lea     rsp, [rsp + 4]
        test    rax, rax
        jz      3f
        mov     r10, rax
        test    rbx, rbx
        jnz     2f
        load_fpu
2:      load_flags
        load_gprs
        mov     r11d, 0
        ret
3:      mov     qword ptr GS(CONTEXT_EXIT_REASON), EXIT_ACCESS_FAULT
        jmp     leave_saved

        .globl  vmp_soft_thunks_end
vmp_soft_thunks_end:

        .section .data.rel.ro, "aw"
        .balign 16 # as the ABI has arrays of 16 bytes and more: compilers read them by aligned vectors
        .globl  vmp_soft_thunk_table
vmp_soft_thunk_table:
        .quad   thunk_link, thunk_indirect, thunk_execute, thunk_poll
        .quad   thunk_miss, thunk_fpu_load, thunk_checked_access, thunk_native_fault

        .section .note.GNU-stack, "", @progbits
