// The registered fault handlers: written under a lock, read by signal handlers without one.
#pragma once

#include <array>
#include <atomic>
#include <vm_platform/signals.hpp>

namespace vm_platform {

class FaultTable {
 public:
  static constexpr int kSlots = 128;

  /// The place taken, or -1 where all are. Callers serialise `add` and `remove`.
  int add(const FaultScope& scope, FaultFunction function, void* user);
  /// Waits until no thread is inside the handler.
  void remove(int slot);
  /// How many registered handlers take `kind`.
  [[nodiscard]] int count(FaultKind kind) const;
  [[nodiscard]] FaultKind kinds(int slot) const;

  /// Asks the handlers whose scope matches, latest first, until one resumes. Async-signal-safe.
  FaultAction dispatch(Fault& fault);

  /// In a forked child: no other thread exists any more, so none is inside a handler.
  void forget_other_threads();

 private:
  struct Slot {
    std::atomic<std::uint64_t> serial = 0;  // 0: free; else the order of registration
    std::atomic<int> inside = 0;            // threads that hold on to the slot
    std::atomic<std::uint8_t> kinds = 0;
    std::atomic<std::uintptr_t> address_begin = 0, address_end = 0, pc_begin = 0, pc_end = 0;
    std::atomic<FaultFunction> function = nullptr;
    std::atomic<void*> user = nullptr;
  };
  [[nodiscard]] static bool matches(const Slot& slot, FaultKind kind, std::uintptr_t address, bool known,
                                    std::uintptr_t pc);

  std::array<Slot, kSlots> slots_;
  std::atomic<int> used_ = 0;  // slots ever used: where a search may stop
  std::uint64_t next_serial_ = 1;
};

/// The process's table.
FaultTable& fault_table();

}  // namespace vm_platform
