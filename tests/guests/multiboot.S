/* A Multiboot 1 kernel of a few instructions: it says on the first serial port what its loader told it (command line,
   loader, memory, memory map, modules with their command lines and first lines), and leaves by the debug-exit port with
   the number of modules. */
        .code32
        .text
        .balign 4
        .long   0x1badb002, 3, -(0x1badb002 + 3)        /* modules on pages of their own; memory information */

        .globl _start
_start: cmp     $0x2badb002, %eax
        jne     wrong
        mov     $stack_end, %esp
        mov     %ebx, %ebp
        mov     $command_line, %esi
        mov     16(%ebp), %edi
        call    line
        mov     $loader, %esi
        mov     64(%ebp), %edi
        call    line
        mov     $lower, %esi
        call    print
        mov     4(%ebp), %eax
        call    number
        mov     $upper, %esi
        call    print
        mov     8(%ebp), %eax
        call    number
        mov     $newline, %esi
        call    print

        mov     48(%ebp), %ebx                          /* the memory map */
        mov     %ebx, %edi
        add     44(%ebp), %edi
1:      cmp     %edi, %ebx
        jae     2f
        mov     $range, %esi
        call    print
        mov     8(%ebx), %eax
        call    number
        mov     4(%ebx), %eax
        call    number
        mov     $size, %esi
        call    print
        mov     16(%ebx), %eax
        call    number
        mov     12(%ebx), %eax
        call    number
        mov     $type, %esi
        call    print
        mov     20(%ebx), %eax
        call    number
        mov     $newline, %esi
        call    print
        add     (%ebx), %ebx
        add     $4, %ebx
        jmp     1b

2:      xor     %ecx, %ecx                              /* the modules */
        testl   $8, (%ebp)
        jz      quit
        mov     24(%ebp), %ebx
3:      cmp     20(%ebp), %ecx
        jae     quit
        mov     $module, %esi
        mov     8(%ebx), %edi
        call    line
        mov     (%ebx), %esi
        test    $0xfff, %esi
        jnz     wrong
        mov     4(%ebx), %edi
4:      cmp     %edi, %esi                              /* to the end of its first line */
        jae     5f
        lodsb
        cmp     $'\n', %al
        je      5f
        call    character
        jmp     4b
5:      mov     $newline, %esi
        call    print
        add     $16, %ebx
        inc     %ecx
        jmp     3b

quit:   mov     %ecx, %eax
        out     %al, $0xf4
wrong:  mov     $127, %al
        out     %al, $0xf4
        cli
        hlt

line:   call    print                                   /* ESI, then EDI in brackets */
        mov     $'[', %al
        call    character
        mov     %edi, %esi
        call    print
        mov     $']', %al
        call    character
        mov     $newline, %esi
print:  lodsb
        test    %al, %al
        jz      6f
        call    character
        jmp     print
6:      ret
character:
        mov     $0x3f8, %dx
        out     %al, %dx
        ret
number: push    %ecx                                    /* EAX, eight digits */
        mov     $8, %ecx
7:      rol     $4, %eax
        push    %eax
        and     $15, %eax
        mov     digits(%eax), %al
        call    character
        pop     %eax
        loop    7b
        pop     %ecx
        ret

digits:       .ascii "0123456789abcdef"
command_line: .asciz "command line "
loader:       .asciz "loader "
lower:        .asciz "lower "
upper:        .asciz " upper "
range:        .asciz "from "
size:         .asciz " size "
type:         .asciz " type "
module:       .asciz "module "
newline:      .asciz "\n"
        .bss
        .space 4096
stack_end:
        .section .note.GNU-stack, "", @progbits
