/* A guest of a few instructions, dressed as a bzImage (64-bit entry): it echoes its first serial port, and prints there what
   comes in at its second one.
   Some characters do more:  Q debug exit with 21   T triple fault   R reset by port CF9h   B 256 KiB of output
                             P panics by the pvpanic port, again and again   H halts for good with interrupts off
                             W sends 100,000 newlines to the second port before it reads on */
        .code64
        .text
        .globl _start
_start:
        .org 0x1f1
        .byte 1                         /* setup_sects */
        .org 0x1f4
        .long (image_end - kernel + 15) / 16
        .org 0x1fe
        .word 0xaa55
        .org 0x200
        .byte 0xeb, 0x66
        .ascii "HdrS"
        .word 0x20f                     /* boot protocol 2.15 */
        .org 0x20e
        .word version - 0x200
        .org 0x211
        .byte 1                         /* loaded high */
        .org 0x22c
        .long 0x7fffffff                /* initrd_addr_max */
        .org 0x236
        .word 1                         /* XLF_KERNEL_64 */
        .long 2047                      /* cmdline_size */
        .org 0x258
        .quad 0x1000000                 /* pref_address */
        .long 0x100000                  /* init_size */
        .org 0x300
version: .asciz "bare guest"

        .org 0x400
kernel:
        .org 0x600
        lea     stack_end(%rip), %rsp
        lea     greeting(%rip), %rsi
        call    print
next:   mov     $0x3fd, %dx             /* line status: bit 0, a byte is there */
        in      %dx, %al
        test    $1, %al
        jnz     2f
        mov     $0x2fd, %dx             /* the same of the second port */
        in      %dx, %al
        test    $1, %al
        jnz     1f
        pause
        jmp     next
1:      mov     $0x2f8, %dx
        in      %dx, %al
        mov     $0x3f8, %dx
        out     %al, %dx
        jmp     next
2:      mov     $0x3f8, %dx
        in      %dx, %al
        out     %al, %dx
        cmp     $'Q', %al
        je      quit
        cmp     $'T', %al
        je      triple_fault
        cmp     $'R', %al
        je      reset
        cmp     $'B', %al
        je      bulk
        cmp     $'W', %al
        je      ask
        cmp     $'P', %al
        je      panic
        cmp     $'H', %al
        jne     next
        cli
halted: hlt
        jmp     halted

quit:   mov     $21, %al
        out     %al, $0xf4
        jmp     halted

triple_fault:
        lea     no_idt(%rip), %rax
        lidt    (%rax)
        ud2

reset:  mov     $0xcf9, %dx
        mov     $6, %al
        out     %al, %dx
        jmp     halted

ask:    mov     $100000, %ebx
        mov     $0x2f8, %dx
        mov     $'\n', %al
1:      out     %al, %dx
        dec     %ebx
        jnz     1b
        jmp     next

panic:  mov     $0x505, %dx
        mov     $1, %al
1:      out     %al, %dx
        jmp     1b

bulk:   mov     $4096, %ebx             /* lines of 64 bytes */
1:      lea     line(%rip), %rsi
        call    print
        dec     %ebx
        jnz     1b
        jmp     next

print:  mov     $0x3f8, %dx
1:      lodsb
        test    %al, %al
        jz      2f
        out     %al, %dx
        jmp     1b
2:      ret

greeting: .asciz "bare guest ready\r\n"
line:   .asciz "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.\n"
        .balign 16
no_idt: .word   0
        .quad   0
        .fill   1024, 1, 0
stack_end:
        .balign 16
image_end:
