# The boot sector, the Linux setup header, and the way from real mode to the 64-bit entry.
# Linux boot protocol: Documentation/arch/x86/boot.rst.
  .section .setup, "awx"
  .code16
  .set kReal, 0x10000                  # where loaders put this section, and where the boot sector puts it
disk_start:                            # a BIOS loaded the first sector to 7c00h: read the whole file to 10000h
  ljmp $0x07c0, $(1f - disk_start)
1: cli
  mov %cs, %ax
  mov %ax, %ds
  xor %ax, %ax
  mov %ax, %ss
  mov $0x7c00, %sp
  sti
  mov %dl, drive
  movw $file_sectors, left
2: mov $packet, %si
  mov $0x42, %ah
  mov drive, %dl
  int $0x13
  jc 9f
  incl packet + 8
  addw $0x20, packet + 6
  decw left
  jnz 2b
  ljmp $0x1000, $from_disk
9: hlt
  jmp 9b
drive: .byte 0
left: .word 0
  .balign 4
packet: .byte 16, 0
  .word 1, 0, 0x1000
  .quad 0

  .org 0x1f1
  .byte setup_sectors
  .word 0                              # root_flags
  .long payload_paragraphs             # syssize
  .word 0, 0, 0
  .word 0xaa55
  .org 0x200
  .byte 0xeb, from_loader - 1f         # jump
1: .ascii "HdrS"
  .word 0x020c                         # protocol 2.12
  .long 0
  .word 0, 0                           # start_sys_seg, kernel_version
  .byte 0                              # type_of_loader
  .byte 1                              # LOADED_HIGH
  .word 0
  .long 0x100000                       # code32_start
  .long 0, 0                           # ramdisk
  .long 0
  .word 0
  .byte 0, 0
  .long 0
  .long 0x7fffffff                     # initrd_addr_max
  .long 0x200000                       # kernel_alignment
  .byte 0                              # relocatable_kernel
  .byte 21                             # min_alignment
  .word 1                              # xloadflags: a 64-bit entry at 200h
  .long 255                            # cmdline_size
  .long 0
  .quad 0
  .long 0, 0                           # payload_offset, payload_length
  .quad 0
  .quad 0x100000                       # pref_address
  .long init_size
  .long 0

from_disk:
  movb $1, %cs:booted_from_disk
from_loader:
  cli
  cld
  mov $0x1000, %ax
  mov %ax, %ds
  in $0x92, %al                        # A20
  or $2, %al
  and $0xfe, %al
  out %al, $0x92
  lgdtl boot_gdtr
  mov %cr0, %eax
  or $1, %eax
  mov %eax, %cr0
  ljmpl $8, $(kReal + boot32)
booted_from_disk: .byte 0
  .balign 8
boot_gdt:
  .quad 0
  .quad 0x00cf9b000000ffff             # 32-bit code
  .quad 0x00cf93000000ffff             # data
  .quad 0x00af9b000000ffff             # 64-bit code
boot_gdtr: .word . - boot_gdt - 1
  .long kReal + boot_gdt

  .code32
boot32:
  mov $0x10, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  cmpb $0, kReal + booted_from_disk
  je 1f
  mov $(kReal + setup_size), %esi
  mov $0x100000, %edi
  mov $payload_dwords, %ecx
  rep movsl
1: mov $0x2000, %edi                   # page tables: 1 GiB of 2 MiB pages
  xor %eax, %eax
  mov $0xc00, %ecx
  rep stosl
  movl $0x3003, 0x2000
  movl $0x4003, 0x3000
  mov $0x83, %eax
  mov $0x4000, %edi
2: mov %eax, (%edi)
  add $0x200000, %eax
  add $8, %edi
  cmp $0x5000, %edi
  jne 2b
  mov $0x2000, %eax
  mov %eax, %cr3
  mov $0x20, %eax
  mov %eax, %cr4
  mov $0xc0000080, %ecx
  rdmsr
  or $0x100, %eax
  wrmsr
  mov %cr0, %eax
  or $0x80000000, %eax
  mov %eax, %cr0
  ljmp $0x18, $entry64

  .section .head, "ax"
  .org 0x200
  .code64
  .globl entry64
entry64:                               # the Linux 64-bit entry: paging on, memory below 1 GiB mapped one to one
  cli
  cld
  lea stack_top(%rip), %rsp
  lea bss_start(%rip), %rdi
  lea bss_end(%rip), %rcx
  sub %rdi, %rcx
  xor %eax, %eax
  rep stosb
  mov $low_load, %esi
  mov $low_start, %edi
  mov $low_end, %ecx
  sub %edi, %ecx
  rep movsb
  mov %cr0, %rax
  and $~0x6000000e, %eax               # no CD, NW, TS, EM, MP
  or $0x10022, %eax                    # WP NE MP
  mov %rax, %cr0
  mov $0x620, %eax                     # PAE OSFXSR OSXMMEXCPT
  mov %rax, %cr4
  fninit
  call runtime_start
1: hlt
  jmp 1b

  .bss
  .balign 16
  .space 32768
  .globl stack_top
stack_top:
  .section .note.GNU-stack, "", @progbits
