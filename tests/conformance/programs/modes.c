// Every mode is entered and left, and says which it is.
#include "../runtime/runtime.h"
void test_main(void) {
  RUN(M64, "64", "mov rax, cs; push rax; pop rcx");
  RUN(M64U, "64 user", "mov eax, cs; push rax");
  RUN(M32, "compat", "mov eax, cs; push eax; dec ecx");
  RUN(M32U, "compat user", "mov eax, cs; push eax");
  RUN(M16, "compat 16", "mov ax, cs; push ax");
  RUN(M16U, "compat 16 user", "mov ax, cs; push ax");
  RUN(L32, "legacy", "mov eax, cs; push eax; dec ecx; smsw ebx");
  RUN(L32U, "legacy user", "mov eax, cs; push eax; dec ecx");
  RUN(L16, "legacy 16", "mov ax, cs; push ax");
  RUN(REAL, "real", "mov ax, cs; push eax; smsw bx");
  RUN(REAL, "real ud", "mov ax, cs; push eax; ud2");
  RUN(L32, "legacy ud", "nop; ud2");
  RUN(L32U, "legacy user gp", "nop; cli");
  RUN(M64U, "user gp", "nop; cli");
}
