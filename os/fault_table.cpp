#include "os/fault_table.hpp"

#include <algorithm>
#include <thread>

namespace vm_platform {

FaultTable& fault_table() {
  static FaultTable table;
  return table;
}

int FaultTable::add(const FaultScope& scope, FaultFunction function, void* user) {
  for (int i = 0; i < kSlots; ++i) {
    Slot& slot = slots_[static_cast<std::size_t>(i)];
    if (slot.serial.load(std::memory_order_relaxed) != 0) continue;
    slot.kinds.store(static_cast<std::uint8_t>(scope.kinds), std::memory_order_relaxed);
    slot.address_begin.store(scope.address_begin, std::memory_order_relaxed);
    slot.address_end.store(scope.address_end, std::memory_order_relaxed);
    slot.pc_begin.store(scope.pc_begin, std::memory_order_relaxed);
    slot.pc_end.store(scope.pc_end, std::memory_order_relaxed);
    slot.function.store(function, std::memory_order_relaxed);
    slot.user.store(user, std::memory_order_relaxed);
    slot.serial.store(next_serial_++, std::memory_order_seq_cst);
    used_.store(std::max(used_.load(), i + 1));
    return i;
  }
  return -1;
}

void FaultTable::remove(int index) {
  Slot& slot = slots_[static_cast<std::size_t>(index)];
  slot.serial.store(0, std::memory_order_seq_cst);
  // A thread that counted itself in before it could see the zero may still be in the handler.
  while (slot.inside.load(std::memory_order_seq_cst) != 0) std::this_thread::yield();
}

int FaultTable::count(FaultKind kind) const {
  int found = 0;
  for (const Slot& slot : slots_) {
    const auto kinds = static_cast<FaultKind>(slot.kinds.load(std::memory_order_relaxed));
    if (slot.serial.load(std::memory_order_relaxed) != 0 && contains(kinds, kind)) ++found;
  }
  return found;
}

FaultKind FaultTable::kinds(int slot) const {
  return static_cast<FaultKind>(slots_[static_cast<std::size_t>(slot)].kinds.load(std::memory_order_relaxed));
}

bool FaultTable::matches(const Slot& slot, FaultKind kind, std::uintptr_t address, bool known, std::uintptr_t pc) {
  if (!contains(static_cast<FaultKind>(slot.kinds.load(std::memory_order_relaxed)), kind)) return false;
  const auto begin = slot.address_begin.load(std::memory_order_relaxed);
  const auto end = slot.address_end.load(std::memory_order_relaxed);
  if (known ? address < begin || (address >= end && end != UINTPTR_MAX) : begin != 0 || end != UINTPTR_MAX)
    return false;
  const auto pc_end = slot.pc_end.load(std::memory_order_relaxed);
  return pc >= slot.pc_begin.load(std::memory_order_relaxed) && (pc < pc_end || pc_end == UINTPTR_MAX);
}

FaultAction FaultTable::dispatch(Fault& fault) {
  const std::uintptr_t address = fault.address();
  const bool known = fault.address_known();
  std::uintptr_t pc = fault.pc();
  if (fault.kind() == FaultKind::Trap && known && pc == address + 1) pc = address;  // INT3: it is behind it already
  const int used = used_.load(std::memory_order_acquire);
  for (std::uint64_t below = UINT64_MAX;;) {
    Slot* latest = nullptr;
    std::uint64_t latest_serial = 0;
    for (int i = 0; i < used; ++i) {
      Slot& slot = slots_[static_cast<std::size_t>(i)];
      const std::uint64_t serial = slot.serial.load(std::memory_order_acquire);
      if (serial <= latest_serial || serial >= below) continue;
      if (!matches(slot, fault.kind(), address, known, pc)) continue;
      latest = &slot;
      latest_serial = serial;
    }
    if (latest == nullptr) return FaultAction::Pass;
    below = latest_serial;
    latest->inside.fetch_add(1, std::memory_order_seq_cst);
    FaultAction action = FaultAction::Pass;
    // Still the same registration? From here on it cannot go.
    if (latest->serial.load(std::memory_order_seq_cst) == latest_serial)
      action = latest->function.load(std::memory_order_relaxed)(fault, latest->user.load(std::memory_order_relaxed));
    latest->inside.fetch_sub(1, std::memory_order_release);
    if (action == FaultAction::Resume) return action;
  }
}

void FaultTable::forget_other_threads() {
  for (Slot& slot : slots_) slot.inside.store(0, std::memory_order_relaxed);
}

FaultScope FaultScope::touching(std::span<const std::byte> range, FaultKind kinds) noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(range.data());
  return {.kinds = kinds, .address_begin = begin, .address_end = begin + range.size()};
}

FaultScope FaultScope::caused_by(std::span<const std::byte> code, FaultKind kinds) noexcept {
  const auto begin = reinterpret_cast<std::uintptr_t>(code.data());
  return {.kinds = kinds, .pc_begin = begin, .pc_end = begin + code.size()};
}

Result<SignalHandler> register_sigsegv_handler(std::span<const std::byte> range, FaultFunction function, void* user) {
  if (auto stack = ensure_alternate_stack(); !stack) return fail(stack.error());
  return SignalHandler::install(FaultScope::touching(range), function, user);
}

}  // namespace vm_platform
