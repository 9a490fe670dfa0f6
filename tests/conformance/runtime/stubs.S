# Entering snippets and coming back, in long mode, legacy protected mode and real mode.
# Offsets into struct cpu (runtime.h).
  .set oRip, 128; .set oFlags, 136; .set oCs, 144; .set oSs, 152; .set oDs, 160; .set oEs, 168; .set oFs, 176; .set oGs, 184
  .set oVector, 192; .set oError, 200; .set oCr2, 208; .set oCr0, 216; .set oCr3, 224; .set oCr4, 232; .set oMode, 240
  .set cpu_size, 248
  .set kReal, 9; .set kL32U, 7; .set kV86, 10

  .macro push_callee
  push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
  .endm
  .macro pop_callee
  pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
  .endm
  .macro load_gprs base
  mov 0+\base, %rax; mov 8+\base, %rcx; mov 16+\base, %rdx; mov 24+\base, %rbx; mov 40+\base, %rbp; mov 48+\base, %rsi
  mov 56+\base, %rdi; mov 64+\base, %r8; mov 72+\base, %r9; mov 80+\base, %r10; mov 88+\base, %r11; mov 96+\base, %r12
  mov 104+\base, %r13; mov 112+\base, %r14; mov 120+\base, %r15
  .endm

  .text
  .code64
  .globl load_tables
load_tables:
  lgdt gdtr
  lidt idtr
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov %eax, %ss
  push $0x08
  push $1f
  lretq
1: btrq $41, gdt + 0x48                # the descriptor was marked busy
  mov $0x48, %eax
  ltr %ax
  ret

  .globl run_long
run_long:
  push_callee
  mov %rsp, resume_rsp
  mov in + oDs, %eax
  mov %eax, %ds
  mov in + oEs, %eax
  mov %eax, %es
  push in + oSs
  push in + 32
  push in + oFlags
  push in + oCs
  push in + oRip
  load_gprs in
  .globl enter_snippet
enter_snippet:
  iretq

resume:
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov resume_rsp, %rsp
  cld
  pop_callee
  ret

# One stub a vector: an error code, given or 0, then the vector.
  .macro stub v
  .balign 16
long_stub_\v:
  .if (\v == 8) || ((\v >= 10) && (\v <= 14)) || (\v == 17) || (\v == 21)
  .else
  push $0
  .endif
  push $\v
  jmp long_common
  .endm
  .altmacro
  .set i, 0
  .rept 256
  stub %i
  .set i, i + 1
  .endr
  .macro stub_address v
  .quad long_stub_\v
  .endm
  .section .rodata
  .globl long_stubs
  .balign 8
long_stubs:
  .set i, 0
  .rept 256
  stub_address %i
  .set i, i + 1
  .endr

  .text
long_common:                           # vector error rip cs rflags rsp ss
  sub $cpu_size, %rsp
  mov %rax, (%rsp); mov %rcx, 8(%rsp); mov %rdx, 16(%rsp); mov %rbx, 24(%rsp); mov %rbp, 40(%rsp); mov %rsi, 48(%rsp)
  mov %rdi, 56(%rsp); mov %r8, 64(%rsp); mov %r9, 72(%rsp); mov %r10, 80(%rsp); mov %r11, 88(%rsp); mov %r12, 96(%rsp)
  mov %r13, 104(%rsp); mov %r14, 112(%rsp); mov %r15, 120(%rsp)
  cld
  lea cpu_size(%rsp), %rbx
  mov (%rbx), %rax; mov %rax, oVector(%rsp)
  mov 8(%rbx), %rax; mov %rax, oError(%rsp)
  mov 16(%rbx), %rax; mov %rax, oRip(%rsp)
  mov 24(%rbx), %rax; mov %rax, oCs(%rsp)
  mov 32(%rbx), %rax; mov %rax, oFlags(%rsp)
  mov 40(%rbx), %rax; mov %rax, 32(%rsp)
  mov 48(%rbx), %rax; mov %rax, oSs(%rsp)
  mov %ds, %eax; mov %rax, oDs(%rsp)
  mov %es, %eax; mov %rax, oEs(%rsp)
  mov %fs, %eax; mov %rax, oFs(%rsp)
  mov %gs, %eax; mov %rax, oGs(%rsp)
  mov %cr2, %rax; mov %rax, oCr2(%rsp)
  mov %rsp, %rdi
  mov %rsp, %rbp
  and $-16, %rsp
  call on_exception
  mov %rbp, %rsp
  test %al, %al
  jz resume
  mov oRip(%rsp), %rax; mov %rax, 16(%rbx)
  mov oCs(%rsp), %rax; mov %rax, 24(%rbx)
  mov oFlags(%rsp), %rax; mov %rax, 32(%rbx)
  mov 32(%rsp), %rax; mov %rax, 40(%rbx)
  mov oSs(%rsp), %rax; mov %rax, 48(%rbx)
  pop %rax; pop %rcx; pop %rdx; pop %rbx; add $8, %rsp; pop %rbp; pop %rsi; pop %rdi
  pop %r8; pop %r9; pop %r10; pop %r11; pop %r12; pop %r13; pop %r14; pop %r15
  add $cpu_size + 16 - 128, %rsp
  iretq

  .data
  .balign 8
  .word 0, 0, 0
gdtr: .word 511
  .quad gdt
  .word 0, 0, 0
  .globl idtr
idtr: .word 4095
  .quad idt
resume_rsp: .quad 0

# ---- legacy modes -----------------------------------------------------------------------------------------------------
  .text
  .globl run_legacy
run_legacy:
  push_callee
  mov %rsp, resume_rsp
  mov %cr3, %rax
  mov %eax, long_cr3
  mov %cr4, %rax
  mov %eax, long_cr4
  mov %cr0, %rax
  mov %eax, long_cr0
  mov $0x9000, %esp
  push $0x18
  push $to_legacy
  lretq

  .section .low, "awx"
  .balign 16
  .globl low_ctx
low_ctx: .space cpu_size
  .globl long_cr3, long_cr4
long_cr0: .long 0
long_cr3: .long 0
long_cr4: .long 0
legacy_idtr: .word 2047
  .long legacy_idt
real_idtr: .word 1023
  .long 0
stack_now: .long 0
  .balign 8
  .globl legacy_idt
legacy_idt: .space 2048

  .code32
to_legacy:
  mov %cr0, %eax
  and $0x7fffffff, %eax
  mov %eax, %cr0
  mov $0xc0000080, %ecx
  rdmsr
  and $~0x100, %eax
  wrmsr
  mov low_ctx + oCr4, %eax
  mov %eax, %cr4
  mov low_ctx + oCr3, %eax
  mov %eax, %cr3
  cmpb $kReal, low_ctx + oMode
  je to_real
  lidt legacy_idtr
  mov low_ctx + oCr0, %eax
  mov %eax, %cr0
  mov $0x68, %eax
  ltr %ax
  cmpb $kV86, low_ctx + oMode
  je 3f
  cmpb $kL32U, low_ctx + oMode
  je 1f
  mov low_ctx + oSs, %eax
  mov %eax, %ss
  mov low_ctx + 32, %esp
  jmp 2f
1: pushl low_ctx + oSs
  pushl low_ctx + 32
2: pushl low_ctx + oFlags
  pushl low_ctx + oCs
  pushl low_ctx + oRip
  mov low_ctx + oEs, %eax
  mov %eax, %es
  mov low_ctx + oFs, %eax
  mov %eax, %fs
  mov low_ctx + oGs, %eax
  mov %eax, %gs
  mov low_ctx + oDs, %eax
  mov %eax, %ds
  mov %cs:low_ctx + 8, %ecx; mov %cs:low_ctx + 16, %edx; mov %cs:low_ctx + 24, %ebx; mov %cs:low_ctx + 40, %ebp
  mov %cs:low_ctx + 48, %esi; mov %cs:low_ctx + 56, %edi; mov %cs:low_ctx + 0, %eax
  iretl
3: pushl low_ctx + oGs                 # virtual-8086 mode: IRET loads all segments
  pushl low_ctx + oFs
  pushl low_ctx + oDs
  pushl low_ctx + oEs
  pushl low_ctx + oSs
  pushl low_ctx + 32
  pushl low_ctx + oFlags
  pushl low_ctx + oCs
  pushl low_ctx + oRip
  mov low_ctx + 8, %ecx; mov low_ctx + 16, %edx; mov low_ctx + 24, %ebx; mov low_ctx + 40, %ebp
  mov low_ctx + 48, %esi; mov low_ctx + 56, %edi; mov low_ctx + 0, %eax
  iretl

  .macro legacy_stub v
  .balign 8
legacy_stub_\v:
  .if (\v == 8) || ((\v >= 10) && (\v <= 14)) || (\v == 17) || (\v == 21)
  .else
  push $0
  .endif
  push $\v
  jmp legacy_common
  .endm
  .set i, 0
  .rept 256
  legacy_stub %i
  .set i, i + 1
  .endr
legacy_common:                         # vector error eip cs eflags [esp ss [es ds fs gs]]
  push %ds
  push $0x10
  pop %ds
  mov %eax, low_ctx + 0; mov %ecx, low_ctx + 8; mov %edx, low_ctx + 16; mov %ebx, low_ctx + 24; mov %ebp, low_ctx + 40
  mov %esi, low_ctx + 48; mov %edi, low_ctx + 56
  xor %eax, %eax
  popl low_ctx + oDs
  mov %es, %eax; mov %eax, low_ctx + oEs
  mov %fs, %eax; mov %eax, low_ctx + oFs
  mov %gs, %eax; mov %eax, low_ctx + oGs
  mov %ss, %eax; mov %eax, low_ctx + oSs
  popl low_ctx + oVector
  popl low_ctx + oError
  popl low_ctx + oRip
  popl low_ctx + oCs
  popl low_ctx + oFlags
  testb $2, low_ctx + oFlags + 2       # VM
  jnz 3f
  testb $3, low_ctx + oCs
  jz 1f
  mov (%esp), %eax
  mov %eax, low_ctx + 32
  mov 4(%esp), %eax
  mov %eax, low_ctx + oSs
  jmp 2f
3: popl low_ctx + 32
  popl low_ctx + oSs
  popl low_ctx + oEs
  popl low_ctx + oDs
  popl low_ctx + oFs
  popl low_ctx + oGs
  jmp 2f
1: mov %esp, low_ctx + 32
2: mov %cr2, %eax
  mov %eax, low_ctx + oCr2
back_to_long:                          # flat 32-bit code, DS loaded, identity mapped
  movb $0x89, gdt + 0x1f0 + 5          # long mode is not entered with a 16-bit TSS
  mov $0x1f0, %eax
  ltr %ax
  mov %cr0, %eax
  and $0x7fffffff, %eax
  mov %eax, %cr0
  mov long_cr4, %eax
  mov %eax, %cr4
  mov long_cr3, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx
  rdmsr
  or $0x100, %eax
  wrmsr
  mov long_cr0, %eax
  mov %eax, %cr0
  ljmp $8, $back64
  .code64
back64:
  cld
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov resume_rsp, %rsp
  mov $load_tables, %eax               # an IDT of the right kind before anything else
  call *%rax
  pop_callee
  ret

  .code32
to_real:
  ljmp $0x70, $1f
  .code16
1: mov $0x78, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %fs
  mov %ax, %gs
  mov %ax, %ss
  lidtl real_idtr
  mov low_ctx + oCr0, %eax
  mov %eax, %cr0
  ljmp $0, $1f
1: mov low_ctx + oSs, %ax
  mov %ax, %ss
  mov %cs:low_ctx + 32, %esp
  pushw %cs:low_ctx + oFlags
  pushw %cs:low_ctx + oCs
  pushw %cs:low_ctx + oRip
  mov %cs:low_ctx + oEs, %ax
  mov %ax, %es
  mov %cs:low_ctx + oFs, %ax
  mov %ax, %fs
  mov %cs:low_ctx + oGs, %ax
  mov %ax, %gs
  mov %cs:low_ctx + oDs, %ax
  mov %ax, %ds
  mov %cs:low_ctx + 8, %ecx; mov %cs:low_ctx + 16, %edx; mov %cs:low_ctx + 24, %ebx; mov %cs:low_ctx + 40, %ebp
  mov %cs:low_ctx + 48, %esi; mov %cs:low_ctx + 56, %edi; mov %cs:low_ctx + 0, %eax
  iretw

  .macro real_stub v
  .balign 8
real_stub_\v:
  pushw $\v
  jmp real_common
  .endm
  .set i, 0
  .rept 256
  real_stub %i
  .set i, i + 1
  .endr
real_common:                           # vector ip cs flags
  mov %eax, %cs:low_ctx + 0; mov %ecx, %cs:low_ctx + 8; mov %edx, %cs:low_ctx + 16; mov %ebx, %cs:low_ctx + 24
  mov %ebp, %cs:low_ctx + 40; mov %esi, %cs:low_ctx + 48; mov %edi, %cs:low_ctx + 56
  xor %eax, %eax
  mov %ds, %ax; mov %eax, %cs:low_ctx + oDs
  mov %es, %ax; mov %eax, %cs:low_ctx + oEs
  mov %fs, %ax; mov %eax, %cs:low_ctx + oFs
  mov %gs, %ax; mov %eax, %cs:low_ctx + oGs
  mov %ss, %ax; mov %eax, %cs:low_ctx + oSs
  xor %eax, %eax
  pop %ax; movzbl %al, %eax; mov %eax, %cs:low_ctx + oVector
  pop %ax; mov %eax, %cs:low_ctx + oRip
  pop %ax; mov %eax, %cs:low_ctx + oCs
  pop %ax; mov %eax, %cs:low_ctx + oFlags
  mov %esp, %cs:low_ctx + 32
  movl $0, %cs:low_ctx + oError
  xor %ax, %ax
  mov %ax, %ds
  lgdtl low_gdtr
  mov %cr0, %eax
  or $1, %eax
  mov %eax, %cr0
  ljmpl $0x18, $1f
  .code32
1: mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $0x9000, %esp
  jmp back_to_long
low_gdtr: .word 511
  .long gdt

  .macro low_address v
  .long legacy_stub_\v
  .endm
  .macro real_address v
  .word real_stub_\v
  .endm
  .section .rodata
  .globl legacy_stubs, real_stubs
  .balign 8
legacy_stubs:
  .set i, 0
  .rept 256
  low_address %i
  .set i, i + 1
  .endr
real_stubs:
  .set i, 0
  .rept 256
  real_address %i
  .set i, i + 1
  .endr
  
  .section .note.GNU-stack, "", @progbits
