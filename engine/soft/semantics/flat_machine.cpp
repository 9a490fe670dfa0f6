#include "engine/soft/semantics/flat_machine.hpp"

#include <gtest/gtest.h>

#include "engine/soft/semantics/descriptors.hpp"

namespace vm_platform::soft {
namespace {

FlatMachine* current = nullptr;

std::uint64_t gate_raw(std::uint16_t selector, std::uint64_t offset, unsigned type, unsigned dpl, unsigned ist,
                       bool present) {
  return (offset & 0xffff) | std::uint64_t{selector} << 16 | std::uint64_t{ist} << 32 | std::uint64_t{type} << 40 |
         std::uint64_t{dpl} << 45 | std::uint64_t{present} << 47 | (offset >> 16 & 0xffff) << 48;
}

void check_page(std::uint64_t linear, bool write, Rights rights, const Cpu& cpu) {
  const std::uint64_t page = linear >> 12;
  const bool missing = linear >= FlatMachine::kSize || current->absent.contains(page);
  if (!missing && !(write && current->read_only.contains(page))) return;
  const bool user = rights == Rights::User || (rights == Rights::Current && cpu.cpl == 3);
  const std::uint32_t code = (missing ? 0U : 1U) | (write ? 2U : 0U) | (user ? 4U : 0U);
  throw GuestFault{Vector::PageFault, code, linear};
}

void check_range(std::uint64_t linear, std::size_t size, bool write, Rights rights, const Cpu& cpu) {
  check_page(linear, write, rights, cpu);
  const std::uint64_t last = linear + size - 1;
  if (last >> 12 != linear >> 12) check_page(last & ~(kPageSize - 1), write, rights, cpu);
}

}  // namespace

// ---- mmu.hpp over flat memory ------------------------------------------------------------------------------------

void read_linear(Cpu& cpu, std::uint64_t linear, void* out, std::size_t size, Rights rights) {
  check_range(linear, size, false, rights, cpu);
  std::memcpy(out, current->ram() + linear, size);
}
void write_linear(Cpu& cpu, std::uint64_t linear, const void* in, std::size_t size, Rights rights) {
  check_range(linear, size, true, rights, cpu);
  std::memcpy(current->ram() + linear, in, size);
}
void check_read(Cpu& cpu, std::uint64_t linear, std::size_t size, Rights rights) {
  check_range(linear, size, false, rights, cpu);
}
void check_write(Cpu& cpu, std::uint64_t linear, std::size_t size, Rights rights) {
  check_range(linear, size, true, rights, cpu);
}
std::byte* host_pointer(Cpu& cpu, std::uint64_t linear, std::size_t size, Access access, Rights rights) {
  check_range(linear, size, access == Access::Write, rights, cpu);
  EXPECT_LE((linear & (kPageSize - 1)) + size, kPageSize);
  if (access == Access::Write && current->code.contains(linear >> 12)) return nullptr;
  return current->slow.contains(linear >> 12) ? nullptr : current->ram() + linear;
}
void flush_tlb(Cpu&) { ++current->full_flushes; }
void flush_tlb_non_global(Cpu&) { ++current->full_flushes; }
void flush_tlb_page(Cpu&, std::uint64_t linear) { current->flushed_pages.push_back(linear); }
void flush_tlb_pcid(Cpu&, std::uint16_t) { ++current->full_flushes; }
void flush_tlb_pcid_page(Cpu&, std::uint16_t, std::uint64_t linear) { current->flushed_pages.push_back(linear); }
void flush_tlb_all_but_global(Cpu&) { ++current->full_flushes; }
void address_space_changed(Cpu&, bool) { ++current->address_spaces; }

// ---- the machine -------------------------------------------------------------------------------------------------

Cpu& FlatMachine::make_cpu() {
  current = this;
  environment = {&memory, &ports, &mmio, {2'445'123'456, 0 - __builtin_ia32_rdtsc()}};
  static char nothing[1];  // nobody translates here
  owned.emplace(environment, options, controller, reinterpret_cast<CodeCache&>(nothing),
                reinterpret_cast<CodePages&>(nothing), 0U);
  return *owned;
}

FlatMachine::~FlatMachine() { current = nullptr; }

FlatMachine::FlatMachine(Mode mode, unsigned cpl, unsigned cpus)
    : memory(*GuestMemory::create(kSize)), options{cpus}, cpu(make_cpu()) {
  EXPECT_TRUE(ports.attach(0x500, 16, device, "echo").has_value());
  cpu.reset();
  set_descriptor(kCode64, 0x00af9b000000ffff);
  set_descriptor(kData0, 0x00cf93000000ffff);
  set_descriptor(kCode32, 0x00cf9b000000ffff);
  set_descriptor(kUserCode32, 0x00cffb000000ffff);
  set_descriptor(kUserData, 0x00cff3000000ffff);
  set_descriptor(kUserCode64, 0x00affb000000ffff);
  set_descriptor(kTaskState, 0x0000890000000067 | kTss << 16, 0);
  set_descriptor(kCode16, 0x00009b000000ffff);
  set_descriptor(kAbsentCode, 0x00af1b000000ffff);
  set_descriptor(kAbsentData, 0x00cf13000000ffff);
  set_descriptor(kConforming64, 0x00af9f000000ffff);
  set_descriptor(kData16, 0x000093000000ffff);
  set_descriptor(kReadOnly, 0x00cf91000000ffff);
  set_descriptor(kSecondTask, 0x0000890000000067 | kTss2 << 16);
  set_descriptor(kLdtEntry, 0x00008200000000ff | kLdt << 16, 0);
  set_descriptor(kExpandDown, 0x00c097000000ffff & ~std::uint64_t{0xfff0});
  cpu.gdtr = {kGdt, 0xaf};
  cpu.idtr = {kIdt, 0xfff};
  cpu.rip = kCodeAt;
  cpu.gpr[kRsp] = kStackTop;
  if (mode == Mode::Real) {
    for (Segment& segment : cpu.segments) segment.base = segment.selector = 0;
    cpu.idtr = {0, 0x3ff};
    cpu.gpr[kRsp] = 0xf000;
    cpu.rip = 0x8000;
    return;
  }
  cpu.cr0 = cr0::kProtection | cr0::kPaging | cr0::kExtensionType | cr0::kWriteProtect | cr0::kNumericError;
  cpu.cr4 = cr4::kPae | cr4::kOsfxsr | cr4::kOsxmmexcpt | cr4::kOsxsave | cr4::kPge;
  cpu.xcr0 = 7;
  const bool is_long = mode != Mode::Protected32;
  if (is_long) cpu.efer = efer::kLongModeActive | efer::kLongModeEnable | efer::kSyscall | efer::kNoExecute;
  const bool user = cpl == 3;
  load_code(mode == Mode::Long64 ? user ? kUserCode64 | 3 : kCode64 : user ? kUserCode32 | 3 : kCode32);
  const auto data = static_cast<std::uint16_t>(user ? kUserData | 3 : kData0);
  for (const SegmentRegister which : {kEs, kSs, kDs, kFs, kGs}) {
    cpu.segments[which] = make_segment(data, {get<std::uint64_t>(kGdt + (data & ~7U))});
  }
  cpu.tr = {kTss, 0x67, kTaskState, Segment::kPresent | 11};
  cpu.ldtr = null_segment(0);
  if (is_long) {
    put<std::uint64_t>(kTss + 4, kStack0);
    put<std::uint64_t>(kTss + 36, kIst1);
  } else {
    put<std::uint32_t>(kTss + 4, kStack0);
    put<std::uint32_t>(kTss + 8, kData0);
  }
  put<std::uint16_t>(kTss + 102, 0x68);  // no permission bitmap
}

void FlatMachine::load_code(std::uint16_t selector) {
  cpu.segments[kCs] = make_segment(selector, {get<std::uint64_t>(kGdt + (selector & ~7U))});
  cpu.cpl = static_cast<std::uint8_t>(selector & 3);
}

void FlatMachine::set_descriptor(std::uint16_t selector, std::uint64_t raw, std::uint64_t upper) {
  put(kGdt + (selector & ~7U), raw);
  if ((raw >> 44 & 1) == 0 && upper != 0) put(kGdt + (selector & ~7U) + 8, upper);
}

void FlatMachine::set_gate(unsigned vector, std::uint16_t selector, std::uint64_t offset, unsigned type, unsigned dpl,
                           unsigned ist, bool present) {
  const std::uint64_t raw = gate_raw(selector, offset, type, dpl, ist, present);
  if (cpu.long_mode()) {
    put(kIdt + vector * 16, raw);
    put(kIdt + vector * 16 + 8, offset >> 32);
  } else {
    put(kIdt + vector * 8, raw);
  }
}

Outcome FlatMachine::run(std::initializer_list<std::uint8_t> bytes) {
  const CodeSize size = cpu.in_64bit()                                                               ? CodeSize::Bits64
                        : !cpu.virtual_8086() && (cpu.segments[kCs].attributes & Segment::kBig) != 0 ? CodeSize::Bits32
                                                                                                     : CodeSize::Bits16;
  const auto instruction = decode(std::data(bytes), bytes.size(), cpu.rip, size);
  if (!instruction) {
    ADD_FAILURE() << "the test's bytes are no instruction";
    return {GuestFault{Vector::InvalidOpcode}};
  }
  try {
    execute(cpu, *instruction);
  } catch (const GuestFault& fault) {
    return {fault};
  }
  return {};
}

Outcome FlatMachine::run_checked(std::initializer_list<std::uint8_t> bytes) {
  std::vector<std::byte> memory_before(ram(), ram() + kMiB);
  const CpuContext before = cpu;
  const Outcome outcome = run(bytes);
  if (outcome.fault) {
    EXPECT_TRUE(std::equal(memory_before.begin(), memory_before.end(), ram())) << "memory changed";
    EXPECT_TRUE(std::equal(std::begin(before.gpr), std::end(before.gpr), cpu.gpr)) << "a register changed";
    EXPECT_EQ(before.rip, cpu.rip);
    EXPECT_EQ(before.arithmetic_flags, cpu.arithmetic_flags);
    EXPECT_EQ(before.system_flags, cpu.system_flags);
    EXPECT_TRUE(std::equal(std::begin(before.segments), std::end(before.segments), cpu.segments))
        << "a segment changed";
    EXPECT_EQ(before.cpl, cpu.cpl);
    EXPECT_EQ(before.cr0, cpu.cr0);
    EXPECT_EQ(before.cr3, cpu.cr3);
    EXPECT_EQ(before.cr4, cpu.cr4);
    EXPECT_EQ(before.efer, cpu.efer);
    EXPECT_EQ(before.ldtr, cpu.ldtr);
    EXPECT_EQ(before.tr, cpu.tr);
    EXPECT_EQ(0, std::memcmp(before.xsave, cpu.xsave, sizeof before.xsave)) << "x87 or vector state changed";
  }
  return outcome;
}

}  // namespace vm_platform::soft
