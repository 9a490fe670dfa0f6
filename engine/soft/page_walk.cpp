#include "engine/soft/page_walk.hpp"

#include "engine/soft/code_pages.hpp"
#include "engine/soft/cpu.hpp"
#include "engine/soft/entry.hpp"

namespace vm_platform::soft {
namespace {

constexpr std::uint64_t kPtePresent = 1, kPteWrite = 2, kPteUser = 4, kPteAccessed = 0x20, kPteDirty = 0x40,
                        kPteLarge = 0x80, kPteGlobal = 0x100, kPteNoExecute = 1ULL << 63;
/// Where a frame stands in an entry, and the address bits above it that are reserved: CPUID gives 46 physical bits.
constexpr std::uint64_t kFrame = 0x00003ffffffff000, kReservedAddress = 0x000fc00000000000;

/// Sets bits in a page-table entry of `size` 4 or 8 if it still holds `old`; false: somebody changed it, walk again.
template <typename Entry>
bool set_bits(Entry* entry, Entry old, Entry bits) noexcept {
  if ((old & bits) == bits) return true;
  return __atomic_compare_exchange_n(entry, &old, static_cast<Entry>(old | bits), false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_RELAXED);
}

std::byte* ram(const MmuState& mmu, std::uint64_t physical, std::uint64_t size) noexcept {
  for (const auto& region : mmu.ram) {
    const std::uint64_t offset = physical - region.base;
    if (physical >= region.base && offset < region.size && size <= region.size - offset) return region.host + offset;
  }
  return nullptr;
}

/// What a walk gathers from all levels.
struct Gathered {
  std::uint64_t physical = 0, reserved = 0;
  unsigned shift = 12;  // of the page's size
  bool writable = true, user = true, no_execute = false, global = false, dirty = false;
};

struct Request {
  bool write, execute;
  Walker walker;
};

/// The rules of SDM 4.6.1, the same on a TLB hit and after a walk. Returns 0 or an error code.
std::uint32_t check_rights(const Cpu& cpu, std::uint8_t flags, const Request& request) noexcept {
  const bool user_page = (flags & TlbEntry::kUser) != 0, as_user = request.walker == Walker::User;
  bool denied = false;
  if (as_user) {
    denied = !user_page || (request.write && (flags & TlbEntry::kWritable) == 0);
  } else if (request.execute) {
    denied = user_page && (cpu.cr4 & cr4::kSmep) != 0;
  } else {
    denied = (user_page && request.walker == Walker::Supervisor) ||
             (request.write && (flags & TlbEntry::kWritable) == 0 && (cpu.cr0 & cr0::kWriteProtect) != 0);
  }
  if (request.execute && (flags & TlbEntry::kNoExecute) != 0) denied = true;
  if (!denied) return 0;
  return page_fault::kPresent;
}

std::uint32_t error_bits(const Cpu& cpu, const Request& request) noexcept {
  const bool no_execute = (cpu.cr4 & cr4::kPae) != 0 && (cpu.efer & efer::kNoExecute) != 0;
  const bool fetch_bit = request.execute && (no_execute || (cpu.cr4 & cr4::kSmep) != 0);
  return (request.write ? page_fault::kWrite : 0) | (request.walker == Walker::User ? page_fault::kUser : 0) |
         (fetch_bit ? page_fault::kFetch : 0);
}

enum class Step : std::uint8_t { Found, Fault, Again };

/// 64-bit entries: PAE (levels = 3, or 2 below the PDPTEs) and 4- and 5-level paging.
Step walk_64(Cpu& cpu, std::uint64_t linear, const Request& request, Gathered& out, std::uint32_t& error) noexcept {
  const bool long_mode = (cpu.efer & efer::kLongModeActive) != 0;
  int level = !long_mode ? 3 : (cpu.cr4 & cr4::kLa57) != 0 ? 5 : 4;
  std::uint64_t table = cpu.cr3 & kFrame;
  const bool nx_on = (cpu.efer & efer::kNoExecute) != 0;
  for (;; --level) {
    const unsigned shift = 12 + 9 * static_cast<unsigned>(level - 1);
    const std::uint64_t slot = (linear >> shift) & (long_mode || level < 3 ? 511 : 3);
    const bool legacy_pdpte = !long_mode && level == 3;
    auto* entry = legacy_pdpte ? &cpu.pdpte[slot] : reinterpret_cast<std::uint64_t*>(ram(cpu.mmu, table + slot * 8, 8));
    const std::uint64_t value = entry == nullptr ? 0 : __atomic_load_n(entry, __ATOMIC_ACQUIRE);
    if ((value & kPtePresent) == 0) {
      error = 0;
      return Step::Fault;
    }
    const bool leaf = level == 1 || ((value & kPteLarge) != 0 && (level == 2 || (level == 3 && long_mode)));
    std::uint64_t reserved = kReservedAddress;
    if (!nx_on) reserved |= kPteNoExecute;
    if (!long_mode) reserved |= 0x7ff0000000000000;
    if (legacy_pdpte) reserved = 0;  // looked at when it was loaded
    if (level >= 4) reserved |= kPteLarge;
    if (leaf && level > 1) reserved |= (1ULL << shift) - 1 - 0x1fff;
    if ((value & reserved) != 0) {
      error = page_fault::kPresent | page_fault::kReserved;
      return Step::Fault;
    }
    if (!legacy_pdpte) {
      out.writable = out.writable && (value & kPteWrite) != 0;
      out.user = out.user && (value & kPteUser) != 0;
      out.no_execute = out.no_execute || (value & kPteNoExecute) != 0;
    }
    if (leaf) {
      const std::uint64_t offset_mask = (1ULL << shift) - 1;
      out.shift = shift;
      out.physical = ((value & kFrame & ~offset_mask) | (linear & offset_mask)) & ~std::uint64_t{0xfff};
      out.global = (value & kPteGlobal) != 0 && (cpu.cr4 & cr4::kPge) != 0;
      std::uint8_t flags =
          static_cast<std::uint8_t>((out.writable ? TlbEntry::kWritable : 0) | (out.user ? TlbEntry::kUser : 0) |
                                    (out.no_execute ? TlbEntry::kNoExecute : 0));
      error = check_rights(cpu, flags, request);
      if (error != 0) return Step::Fault;
      if (!set_bits<std::uint64_t>(entry, value, kPteAccessed | (request.write ? kPteDirty : 0))) return Step::Again;
      out.dirty = request.write || (value & kPteDirty) != 0;
      return Step::Found;
    }
    if (!legacy_pdpte && !set_bits<std::uint64_t>(entry, value, kPteAccessed)) return Step::Again;
    table = value & kFrame;
  }
}

/// 32-bit entries, two levels, 4 MiB pages with PSE.
Step walk_32(Cpu& cpu, std::uint64_t linear, const Request& request, Gathered& out, std::uint32_t& error) noexcept {
  std::uint64_t table = cpu.cr3 & 0xfffff000;
  for (int level = 2;; --level) {
    const unsigned shift = level == 2 ? 22 : 12;
    auto* entry = reinterpret_cast<std::uint32_t*>(ram(cpu.mmu, table + ((linear >> shift) & 1023) * 4, 4));
    const std::uint32_t value = entry == nullptr ? 0 : __atomic_load_n(entry, __ATOMIC_ACQUIRE);
    if ((value & kPtePresent) == 0) {
      error = 0;
      return Step::Fault;
    }
    const bool leaf = level == 1 || ((value & kPteLarge) != 0 && (cpu.cr4 & cr4::kPse) != 0);
    out.writable = out.writable && (value & kPteWrite) != 0;
    out.user = out.user && (value & kPteUser) != 0;
    if (leaf) {
      const std::uint64_t offset_mask = (1ULL << shift) - 1;
      out.shift = shift;
      std::uint64_t frame = value & 0xfffff000 & ~offset_mask;
      if (level == 2) {
        if ((value & 0x200000) != 0) {
          error = page_fault::kPresent | page_fault::kReserved;
          return Step::Fault;
        }
        frame |= static_cast<std::uint64_t>((value >> 13) & 0xff) << 32;  // PSE-36
      }
      out.physical = (frame | (linear & offset_mask)) & ~std::uint64_t{0xfff};
      out.global = (value & kPteGlobal) != 0 && (cpu.cr4 & cr4::kPge) != 0;
      const auto flags =
          static_cast<std::uint8_t>((out.writable ? TlbEntry::kWritable : 0) | (out.user ? TlbEntry::kUser : 0));
      error = check_rights(cpu, flags, request);
      if (error != 0) return Step::Fault;
      if (!set_bits<std::uint32_t>(entry, value,
                                   static_cast<std::uint32_t>(kPteAccessed | (request.write ? kPteDirty : 0))))
        return Step::Again;
      out.dirty = request.write || (value & kPteDirty) != 0;
      return Step::Found;
    }
    if (!set_bits<std::uint32_t>(entry, value, static_cast<std::uint32_t>(kPteAccessed))) return Step::Again;
    table = value & 0xfffff000;
  }
}

bool canonical(const Cpu& cpu, std::uint64_t linear) noexcept {
  const unsigned unused = (cpu.cr4 & cr4::kLa57) != 0 ? 7 : 16;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(linear << unused) >> unused) == linear;
}

}  // namespace

bool page_has_code(const Cpu& cpu, std::uint64_t physical) noexcept { return cpu.code_pages.has_code(physical); }

WalkResult walk(Cpu& cpu, std::uint64_t linear, bool write, bool execute, Walker walker) noexcept {
  const Request request{write, execute, walker};
  MmuState& mmu = cpu.mmu;
  const std::uint64_t page = linear >> 12;
  TlbEntry& cached = mmu.entries[page % MmuState::kEntries];
  if (cached.page == page && (cached.generation == mmu.generation || cached.generation == mmu.global_generation) &&
      check_rights(cpu, cached.flags, request) == 0 && (!write || (cached.flags & TlbEntry::kDirty) != 0)) {
    return {WalkStatus::Done, 0, &cached};
  }
  if ((cpu.efer & efer::kLongModeActive) != 0 && !canonical(cpu, linear)) return {WalkStatus::NotCanonical, 0, nullptr};

  Gathered found;
  if ((cpu.cr0 & cr0::kPaging) == 0) {
    found.physical = linear & 0xfffff000;
    found.dirty = true;
  } else {
    std::uint32_t error = 0;
    Step step = Step::Again;
    while (step == Step::Again) {
      found = Gathered{};
      step = (cpu.cr4 & cr4::kPae) != 0 ? walk_64(cpu, linear, request, found, error)
                                        : walk_32(cpu, linear, request, found, error);
    }
    if (step == Step::Fault) return {WalkStatus::Fault, error | error_bits(cpu, request), nullptr};
  }
  if (found.shift > 12) (found.global ? mmu.global_large : mmu.large).note(linear, found.shift);
  cached.page = page;
  cached.generation = found.global ? mmu.global_generation : mmu.generation;
  cached.physical = found.physical;
  cached.host = ram(mmu, found.physical, 4096);
  cached.flags =
      static_cast<std::uint8_t>((found.writable ? TlbEntry::kWritable : 0) | (found.user ? TlbEntry::kUser : 0) |
                                (found.no_execute ? TlbEntry::kNoExecute : 0) | (found.global ? TlbEntry::kGlobal : 0) |
                                (found.dirty ? TlbEntry::kDirty : 0) | (cached.host != nullptr ? TlbEntry::kRam : 0));
  return {WalkStatus::Done, 0, &cached};
}

void clear_first_level(Cpu& cpu) noexcept {
  for (TlbSet& set : cpu.tlb) {
    if (!set.used) continue;
    set.used = 0;
    for (unsigned slot = 0; slot < kTlbEntries; ++slot)
      set.read_tag[slot] = set.write_tag[slot] = TlbSet::empty_tag(slot);
  }
}

void clear_first_level_page(Cpu& cpu, std::uint64_t linear) noexcept {
  const auto slot = static_cast<unsigned>(linear >> 12) % kTlbEntries;
  for (TlbSet& set : cpu.tlb) set.read_tag[slot] = set.write_tag[slot] = TlbSet::empty_tag(slot);
}

/// Generated code's TLB probe missed. Returns the addend in place of the TLB's, or says that the access needs the
/// checked path or is a page fault. Registers other than those of the C ABI are untouched, vector state included.
MissResult vmp_soft_tlb_miss(CpuContext* context, std::uint64_t linear, std::uint32_t info) noexcept {
  Cpu& cpu = *static_cast<Cpu*>(context);
  const unsigned size = info & 0x7f;
  const bool write = (info & kInfoWrite) != 0;
  const auto set_index = (info >> kInfoTlbShift) & 3;
  if ((linear & 0xfff) + size > 4096) return {0, MissStatus::Checked};
  const WalkResult result = walk(cpu, linear, write, false, static_cast<Walker>(set_index));
  if (result.status == WalkStatus::NotCanonical) return {0, MissStatus::Checked};
  if (result.status == WalkStatus::Fault) {
    // An instruction that wants its operand aligned says so before it says that the page is absent: the checked path
    // finds out which kind it is.
    if (size >= 16 && (linear & 15) != 0) return {0, MissStatus::Checked};
    cpu.fault_error = result.error_code;
    cpu.fault_address = linear;
    return {0, MissStatus::PageFault};
  }
  const TlbEntry& entry = *result.entry;
  if ((entry.flags & TlbEntry::kRam) == 0) return {0, MissStatus::Checked};
  const std::uint64_t page_address = linear & ~std::uint64_t{0xfff};
  const auto slot = static_cast<unsigned>(linear >> 12) % kTlbEntries;
  TlbSet& set = cpu.tlb[set_index];
  const std::uint64_t addend = reinterpret_cast<std::uint64_t>(entry.host) - page_address;
  const std::uint64_t tag = 0 - page_address;
  if (write && page_has_code(cpu, entry.physical)) {
    // Beside the code, and alone: this once, the next write to the page asks again. Another CPU might translate just
    // that memory before the write is made.
    if (!cpu.alone || cpu.code_pages.range_has_code(entry.physical + (linear & 0xfff), size))
      return {0, MissStatus::Checked};
    return {addend, MissStatus::Done};
  }
  set.used = 1;
  if (set.addend[slot] != addend || (set.read_tag[slot] != tag && set.write_tag[slot] != tag)) {
    set.read_tag[slot] = set.write_tag[slot] = TlbSet::empty_tag(slot);
    set.addend[slot] = addend;
  }
  if (write) {
    set.write_tag[slot] = tag;
    // A page that may be written may be read, whatever the walker (there is no write-only page).
  }
  set.read_tag[slot] = tag;
  return {addend, MissStatus::Done};
}

}  // namespace vm_platform::soft
