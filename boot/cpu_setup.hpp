// The CPU state in which boot protocols hand over.
#pragma once

#include "boot/load_plan.hpp"
#include "engine/cpu_state.hpp"

namespace vm_platform::boot {

/// 32-bit protected mode without paging, flat segments, interrupts off, at `entry` (PVH and Multiboot 1 agree on it).
void set_protected_mode(CpuState& cpu, Gpa entry);

/// 64-bit long mode on identity-mapped page tables for the first 4 GiB, with a GDT that has the selectors Linux wants
/// (CS 0x10, data 0x18), interrupts off.
void set_long_mode(CpuState& cpu, Gpa entry, Gpa page_tables, Gpa gdt);

/// The six pages of those page tables as they must lie at `address`.
[[nodiscard]] std::vector<std::byte> identity_page_tables(Gpa address);
[[nodiscard]] std::vector<std::byte> flat_gdt();

}  // namespace vm_platform::boot
