// Segment descriptors and the checks that go with loading them (Intel SDM vol. 3, chapter 3 and 5).
#pragma once

#include <cstdint>
#include <optional>

#include "engine/soft/semantics.hpp"

namespace vm_platform::soft {

/// Types of system descriptors (Intel SDM vol. 3, table 3-2).
namespace system_type {
inline constexpr unsigned kTss16 = 1, kLdt = 2, kTss16Busy = 3, kCallGate16 = 4, kTaskGate = 5, kInterruptGate16 = 6,
                          kTrapGate16 = 7, kTss = 9, kTssBusy = 11, kCallGate = 12, kInterruptGate = 14, kTrapGate = 15;
}

/// Eight bytes of a descriptor table. System descriptors of long mode have eight more, `upper`.
struct Descriptor {
  std::uint64_t raw = 0, upper = 0;

  [[nodiscard]] std::uint32_t base() const {
    return static_cast<std::uint32_t>(((raw >> 16) & 0xffffff) | ((raw >> 32) & 0xff000000));
  }
  [[nodiscard]] std::uint64_t long_base() const { return base() | (upper << 32); }
  [[nodiscard]] std::uint32_t limit() const {
    const auto value = static_cast<std::uint32_t>((raw & 0xffff) | ((raw >> 32) & 0xf0000));
    return (raw >> 55 & 1) != 0 ? (value << 12) | 0xfff : value;
  }
  [[nodiscard]] std::uint16_t attributes() const { return static_cast<std::uint16_t>((raw >> 40) & 0xf0ff); }
  [[nodiscard]] unsigned type() const { return static_cast<unsigned>(raw >> 40) & 15; }
  [[nodiscard]] unsigned dpl() const { return static_cast<unsigned>(raw >> 45) & 3; }
  [[nodiscard]] bool present() const { return (raw >> 47 & 1) != 0; }
  [[nodiscard]] bool is_system() const { return (raw >> 44 & 1) == 0; }
  [[nodiscard]] bool is_code() const { return (raw >> 43 & 3) == 3; }
  [[nodiscard]] bool is_conforming() const { return is_code() && (raw >> 42 & 1) != 0; }
  [[nodiscard]] bool is_writable_data() const { return (raw >> 43 & 3) == 2 && (raw >> 41 & 1) != 0; }
  [[nodiscard]] bool is_readable() const { return !is_system() && (!is_code() || (raw >> 41 & 1) != 0); }
  [[nodiscard]] bool accessed() const { return (raw >> 40 & 1) != 0; }
  [[nodiscard]] bool is_long() const { return (raw >> 53 & 1) != 0; }
  [[nodiscard]] bool is_big() const { return (raw >> 54 & 1) != 0; }

  // The same bytes seen as a gate.
  [[nodiscard]] std::uint16_t gate_selector() const { return static_cast<std::uint16_t>(raw >> 16); }
  [[nodiscard]] std::uint64_t gate_offset() const {
    return (raw & 0xffff) | ((raw >> 32) & 0xffff0000) | (upper << 32);
  }
};

constexpr bool is_null(std::uint16_t selector) { return (selector & 0xfffc) == 0; }
constexpr unsigned rpl_of(std::uint16_t selector) { return selector & 3; }
/// The error code of a fault about a selector; `ext` is bit 0.
constexpr std::uint32_t selector_error(std::uint16_t selector, std::uint32_t ext = 0) {
  return (selector & 0xfffcU) | ext;
}

/// The linear address of a selector's descriptor, or nothing where `size` bytes do not fit the table.
std::optional<std::uint64_t> descriptor_address(const Cpu& cpu, std::uint16_t selector, std::size_t size = 8);
/// Reads it; outside of the table raises `vector`(selector | ext).
Descriptor fetch_descriptor(Cpu& cpu, std::uint16_t selector, Vector vector, std::uint32_t ext = 0);
/// With the upper half that system descriptors have in long mode.
Descriptor fetch_system_descriptor(Cpu& cpu, std::uint16_t selector, Vector vector, std::uint32_t ext = 0);
void mark_accessed(Cpu& cpu, std::uint16_t selector, Descriptor& descriptor);
Segment make_segment(std::uint16_t selector, const Descriptor& descriptor);
/// A null selector as it stands in a register.
Segment null_segment(std::uint16_t selector);
/// Real mode and virtual 8086: base is the selector times 16.
Segment virtual8086_segment(std::uint16_t selector);

/// MOV, POP and LDS to ES, SS, DS, FS, GS in any mode.
void load_segment(Cpu& cpu, SegmentRegister which, std::uint16_t selector);
/// Checks SS for a stack at privilege `cpl` (IRET, far RET, stack switches) and reads it.
Segment checked_stack_segment(Cpu& cpu, std::uint16_t selector, unsigned cpl, Vector bad, std::uint32_t ext);
/// Data segments that the new, less privileged CPL may not keep become null.
void drop_inaccessible_segments(Cpu& cpu, unsigned new_cpl);

/// Checks that `offset` can be executed in `code`: canonical in 64-bit code, within the limit otherwise.
void check_code_offset(const Cpu& cpu, const Segment& code, std::uint64_t offset, std::uint32_t ext = 0);

/// linear_address for a segment that is not in a register yet; faults raise `vector`(code).
std::uint64_t linear_in_segment(const Cpu& cpu, const Segment& segment, std::uint64_t offset, std::size_t size,
                                bool is_64bit, Vector vector, std::uint32_t code);

}  // namespace vm_platform::soft
