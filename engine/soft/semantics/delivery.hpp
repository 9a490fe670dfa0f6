// Entering a handler through the IDT, shared by exceptions, interrupts and INT n; pushes on stacks that are not
// current.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "engine/soft/mmu.hpp"
#include "engine/soft/semantics/descriptors.hpp"

namespace vm_platform::soft {

struct Event {
  std::uint8_t vector;
  /// INT n, INT3, INTO: the gate's DPL counts and error codes have EXT clear.
  bool software = false;
  std::optional<std::uint32_t> error_code = {};
  std::uint64_t return_rip = 0;
  bool set_resume_flag = false;  ///< In the pushed image: faults restart with RF set.
};

/// Throws GuestFault with the state as before.
void deliver_event(Cpu& cpu, const Event& event);

/// Pushes on a stack that becomes current only when all of it is known to succeed.
class PendingStack {
 public:
  PendingStack(Cpu& cpu, const Segment& segment, std::uint64_t pointer, unsigned bits, Rights rights,
               std::uint32_t fault_code)
      : cpu_(cpu), segment_(segment), pointer_(pointer), bits_(bits), rights_(rights), fault_code_(fault_code) {}
  void push(std::uint64_t value, std::size_t size);
  /// Writes what was pushed; cannot fault.
  void write();
  [[nodiscard]] std::uint64_t pointer() const { return pointer_; }
  [[nodiscard]] unsigned bits() const { return bits_; }

 private:
  struct Word {
    std::uint64_t linear, value;
    std::size_t size;
  };
  Cpu& cpu_;
  const Segment& segment_;
  std::uint64_t pointer_;
  unsigned bits_;
  Rights rights_;
  std::uint32_t fault_code_;
  std::array<Word, 48> words_;  // a call gate copies up to 31 parameters
  std::size_t count_ = 0;
};

/// The stack pointer that the TSS holds for a privilege level; legacy modes.
struct InnerStack {
  std::uint16_t selector;
  std::uint64_t pointer;
};
InnerStack read_inner_stack(Cpu& cpu, unsigned cpl, std::uint32_t ext);
/// Long mode: RSP0 to RSP2 (slot 0 to 2) or IST1 to IST7 (slot 3 + n, as they lie in the TSS).
std::uint64_t read_long_stack(Cpu& cpu, unsigned slot, std::uint32_t ext);

}  // namespace vm_platform::soft
