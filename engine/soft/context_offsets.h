/* Where entry.S finds what it needs of CpuContext; entry.cpp proves each number. Assembler includes this file. */
#ifndef VM_PLATFORM_ENGINE_SOFT_CONTEXT_OFFSETS_H
#define VM_PLATFORM_ENGINE_SOFT_CONTEXT_OFFSETS_H

#define CONTEXT_GPR 0
#define CONTEXT_RIP 128
#define CONTEXT_ARITHMETIC_FLAGS 136
#define CONTEXT_FPU_ABSENT 160
#define CONTEXT_HOST_RSP 168
#define CONTEXT_EXIT_REASON 176
#define CONTEXT_EXIT_VALUE 184
#define CONTEXT_THUNKS 200
#define CONTEXT_SCRATCH 328
#define CONTEXT_FPU_MASK 496
#define CONTEXT_XSAVE 640

/* thunks[15] holds the context's own address. */
#define CONTEXT_SELF (CONTEXT_THUNKS + 15 * 8)

#define EXIT_LINK 0
#define EXIT_INDIRECT 1
#define EXIT_EXECUTE 2
#define EXIT_POLL 3
#define EXIT_CHECKED 4
#define EXIT_PAGE_FAULT 5
#define EXIT_NATIVE_FAULT 6
#define EXIT_ACCESS_FAULT 7

#endif
