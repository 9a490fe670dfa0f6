#include "boot/cpu_setup.hpp"

namespace vm_platform::boot {
namespace {

// Intel SDM vol. 3: 2.5 (control registers), 2.2.1 (EFER).
constexpr std::uint64_t kCr0Pe = 1, kCr0Et = 1 << 4, kCr0Pg = 1U << 31;
constexpr std::uint64_t kCr4Pae = 1 << 5;
constexpr std::uint64_t kEferLme = 1 << 8, kEferLma = 1 << 10;

// Descriptor types (Intel SDM vol. 3, 3.4.5.1 and 3.5), all accessed or busy, as the CPU leaves them once loaded.
constexpr std::uint16_t kCode = 0xb, kData = 0x3, kBusyTss = 0xb, kLdt = 0x2;
constexpr std::uint16_t kFlat = Segment::kCodeOrData | Segment::kPresent | Segment::kGranular;
constexpr std::uint16_t kCodeSelector = 0x10, kDataSelector = 0x18;

void set_segments(CpuState& cpu, std::uint16_t code_attributes) {
  const Segment data{0, 0xffffffff, kDataSelector, kFlat | Segment::kBig | kData};
  cpu.segments.fill(data);
  cpu.segments[kCs] = {0, 0xffffffff, kCodeSelector, code_attributes};
  cpu.tr = {0, 0x67, 0, Segment::kPresent | kBusyTss};
  cpu.ldtr = {0, 0xffff, 0, Segment::kPresent | kLdt};
  cpu.idtr = {0, 0};
  cpu.gdtr = {0, 0};
}

void clear_registers(CpuState& cpu, Gpa entry) {
  cpu.gpr.fill(0);
  cpu.rip = entry.value;
  cpu.rflags = 2;
  cpu.cr2 = cpu.cr3 = cpu.cr8 = 0;
  cpu.run_state = RunState::Running;
}

}  // namespace

void set_protected_mode(CpuState& cpu, Gpa entry) {
  clear_registers(cpu, entry);
  set_segments(cpu, kFlat | Segment::kBig | kCode);
  cpu.cr0 = kCr0Pe | kCr0Et;
  cpu.cr4 = 0;
  cpu.efer = 0;
}

void set_long_mode(CpuState& cpu, Gpa entry, Gpa page_tables, Gpa gdt) {
  clear_registers(cpu, entry);
  set_segments(cpu, kFlat | Segment::kLong | kCode);
  cpu.gdtr = {gdt.value, static_cast<std::uint16_t>(flat_gdt().size() - 1)};
  cpu.cr0 = kCr0Pe | kCr0Et | kCr0Pg;
  cpu.cr3 = page_tables.value;
  cpu.cr4 = kCr4Pae;
  cpu.efer = kEferLme | kEferLma;
}

std::vector<std::byte> identity_page_tables(Gpa address) {
  constexpr std::uint64_t kPresentWritable = 0x3, kLargePage = 0x80;
  constexpr std::size_t kDirectories = 4;  // 1 GiB each
  std::vector<std::byte> bytes((2 + kDirectories) * kPageSize);
  const auto entry = [&](std::size_t page, std::size_t index, std::uint64_t value) {
    put<std::uint64_t>(bytes, page * kPageSize + index * 8, value);
  };
  entry(0, 0, (address.value + kPageSize) | kPresentWritable);
  for (std::size_t directory = 0; directory < kDirectories; ++directory) {
    entry(1, directory, (address.value + (2 + directory) * kPageSize) | kPresentWritable);
    for (std::size_t i = 0; i < 512; ++i)
      entry(2 + directory, i, (directory * kGiB + i * 2 * kMiB) | kLargePage | kPresentWritable);
  }
  return bytes;
}

std::vector<std::byte> flat_gdt() {
  std::vector<std::byte> bytes(4 * 8);
  put<std::uint64_t>(bytes, kCodeSelector, 0x00af9b000000ffff);
  put<std::uint64_t>(bytes, kDataSelector, 0x00cf93000000ffff);
  return bytes;
}

}  // namespace vm_platform::boot
