// Reading and changing the registers of a fault, from the exception record and the context.
#include <windows.h>

#include <array>
#include <vm_platform/signals.hpp>

namespace vm_platform {
namespace {

EXCEPTION_RECORD& record(void* information) { return *static_cast<EXCEPTION_RECORD*>(information); }
CONTEXT& registers(void* context) { return *static_cast<CONTEXT*>(context); }

constexpr std::array<DWORD64 CONTEXT::*, 16> kGeneral = {&CONTEXT::Rax, &CONTEXT::Rcx, &CONTEXT::Rdx, &CONTEXT::Rbx,
                                                         &CONTEXT::Rsp, &CONTEXT::Rbp, &CONTEXT::Rsi, &CONTEXT::Rdi,
                                                         &CONTEXT::R8,  &CONTEXT::R9,  &CONTEXT::R10, &CONTEXT::R11,
                                                         &CONTEXT::R12, &CONTEXT::R13, &CONTEXT::R14, &CONTEXT::R15};

bool has_address(FaultKind kind, const EXCEPTION_RECORD& exception) {
  return (kind == FaultKind::Memory || kind == FaultKind::Bus) && exception.NumberParameters >= 2;
}

}  // namespace

std::uintptr_t Fault::address() const noexcept {
  const EXCEPTION_RECORD& exception = record(information_);
  if (has_address(kind_, exception)) return exception.ExceptionInformation[1];
  return reinterpret_cast<std::uintptr_t>(exception.ExceptionAddress);
}

bool Fault::address_known() const noexcept {
  const EXCEPTION_RECORD& exception = record(information_);
  // Of a non-canonical address Windows says all ones.
  return !has_address(kind_, exception) || exception.ExceptionInformation[1] != UINTPTR_MAX;
}

FaultAccess Fault::access() const noexcept {
  const EXCEPTION_RECORD& exception = record(information_);
  if (!has_address(kind_, exception)) return FaultAccess::Unknown;
  switch (exception.ExceptionInformation[0]) {  // EXCEPTION_RECORD: 0 read, 1 write, 8 data execution prevention
    case 0: return address_known() ? FaultAccess::Read : FaultAccess::Unknown;
    case 1: return FaultAccess::Write;
    case 8: return FaultAccess::Execute;
    default: return FaultAccess::Unknown;
  }
}

bool Fault::synchronous() const noexcept { return true; }
int Fault::code() const noexcept { return static_cast<int>(record(information_).ExceptionCode); }
std::uintptr_t Fault::pc() const noexcept { return registers(context_).Rip; }
void Fault::set_pc(std::uintptr_t pc) noexcept { registers(context_).Rip = pc; }
std::uintptr_t Fault::sp() const noexcept { return registers(context_).Rsp; }
void Fault::set_sp(std::uintptr_t sp) noexcept { registers(context_).Rsp = sp; }
std::uint64_t Fault::general(unsigned number) const noexcept {
  return number < kGeneral.size() ? registers(context_).*kGeneral[number] : 0;
}
void Fault::set_general(unsigned number, std::uint64_t value) noexcept {
  if (number < kGeneral.size()) registers(context_).*kGeneral[number] = value;
}
std::uint64_t Fault::flags() const noexcept { return registers(context_).EFlags; }
void Fault::set_flags(std::uint64_t flags) noexcept { registers(context_).EFlags = static_cast<DWORD>(flags); }

}  // namespace vm_platform
