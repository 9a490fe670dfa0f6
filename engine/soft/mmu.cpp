#include "engine/soft/mmu.hpp"

#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/soft/page_walk.hpp"
#include "engine/soft/semantics/breakpoints.hpp"
#include "engine/soft/soft_cpu.hpp"

namespace vm_platform::soft {
namespace {

SoftCpu& soft(Cpu& cpu) { return static_cast<SoftCpu&>(cpu); }

Walker walker_for(const Cpu& cpu, Rights rights) {
  if (rights == Rights::User || (rights == Rights::Current && cpu.cpl == 3)) return Walker::User;
  const bool smap = (cpu.cr4 & cr4::kSmap) != 0;
  // SMAP spares explicit supervisor accesses with EFLAGS.AC set, but no implicit ones (SDM vol. 3, 4.6.1).
  const bool open = !smap || (rights == Rights::Current && (cpu.system_flags & rflags::kAlignmentCheck) != 0);
  return open ? Walker::SupervisorOpen : Walker::Supervisor;
}

const TlbEntry& translate(Cpu& cpu, std::uint64_t linear, bool write, bool execute, Rights rights) {
  const WalkResult result = walk(cpu, linear, write, execute, walker_for(cpu, rights));
  if (result.status == WalkStatus::Fault) throw GuestFault{Vector::PageFault, result.error_code, linear};
  if (result.status == WalkStatus::NotCanonical) raise(Vector::GeneralProtection, 0);
  return *result.entry;
}

/// memcpy, but an aligned 2, 4 or 8 bytes are one access, as the guest's other CPUs and the architecture expect.
void copy_bytes(void* to, const void* from, std::size_t size) {
  const auto aligned =
      ((reinterpret_cast<std::uintptr_t>(to) | reinterpret_cast<std::uintptr_t>(from)) & (size - 1)) == 0;
  if (size == 8 && aligned) {
    __atomic_store_n(static_cast<std::uint64_t*>(to),
                     __atomic_load_n(static_cast<const std::uint64_t*>(from), __ATOMIC_RELAXED), __ATOMIC_RELAXED);
  } else if (size == 4 && aligned) {
    __atomic_store_n(static_cast<std::uint32_t*>(to),
                     __atomic_load_n(static_cast<const std::uint32_t*>(from), __ATOMIC_RELAXED), __ATOMIC_RELAXED);
  } else if (size == 2 && aligned) {
    __atomic_store_n(static_cast<std::uint16_t*>(to),
                     __atomic_load_n(static_cast<const std::uint16_t*>(from), __ATOMIC_RELAXED), __ATOMIC_RELAXED);
  } else {
    std::memcpy(to, from, size);
  }
}

/// Calls `access(physical, bytes, offset)` for each naturally aligned piece of at most 8 bytes.
template <typename Access>
void in_pieces(std::uint64_t physical, std::size_t size, Access&& access) {
  for (std::size_t done = 0; done < size;) {
    std::size_t piece = 8;
    while (piece > size - done || ((physical + done) & (piece - 1)) != 0) piece /= 2;
    access(physical + done, piece, done);
    done += piece;
  }
}

void write_ram(Cpu& cpu, const TlbEntry& page, std::uint64_t linear, const void* in, std::size_t size) {
  const std::uint64_t physical = page.physical | (linear & 4095);
  std::byte* host = page.host + (linear & 4095);
  if (!cpu.code_pages.has_code(page.physical)) {
    copy_bytes(host, in, size);
    return;
  }
  // Code may be here, or may be translated from here this very moment: under the lock it is one or the other.
  SoftCpu& self = soft(cpu);
  {
    std::optional<World::Lock> lock;
    if (!cpu.alone) lock.emplace(self.world);
    const auto holds_code = [&] {
      for (std::size_t at = 0; at < size; at += 64) {
        const auto piece = static_cast<unsigned>(std::min<std::size_t>(64, size - at));
        if (cpu.code_pages.range_has_code(physical + at, piece)) return true;
      }
      return false;
    };
    if (!holds_code()) {
      copy_bytes(host, in, size);
      return;
    }
  }
  if (std::memcmp(host, in, size) == 0) return;  // nothing changes, so no code does
  // As one step for all CPUs: they look at the bytes of a block again when one of its instructions faults.
  const World::Lock lock(self.world);
  const World::Stop stop(self.world);
  copy_bytes(host, in, size);
  invalidate_code(self.world, self.code, physical, size);
}

}  // namespace

void read_linear(Cpu& cpu, std::uint64_t linear, void* out, std::size_t size, Rights rights) {
  if (rights == Rights::Current) note_access(cpu, linear, size, false);
  auto* target = static_cast<std::byte*>(out);
  const std::size_t in_first = std::min<std::size_t>(size, 4096 - (linear & 4095));
  if (in_first < size) {  // no register of a device may be read before both pages are known to be readable
    translate(cpu, linear, false, false, rights);
    translate(cpu, linear + in_first, false, false, rights);
  }
  while (size != 0) {
    const std::size_t piece = std::min<std::size_t>(size, 4096 - (linear & 4095));
    const TlbEntry& page = translate(cpu, linear, false, false, rights);
    if (page.host != nullptr) {
      copy_bytes(target, page.host + (linear & 4095), piece);
    } else {
      in_pieces(page.physical | (linear & 4095), piece, [&](std::uint64_t at, std::size_t bytes, std::size_t offset) {
        ++cpu.counters.mmio_accesses;
        const std::uint64_t value = cpu.environment.mmio->read(Gpa(at), static_cast<unsigned>(bytes), cpu.index);
        std::memcpy(target + offset, &value, bytes);
      });
    }
    linear += piece, target += piece, size -= piece;
  }
}

void check_read(Cpu& cpu, std::uint64_t linear, std::size_t size, Rights rights) {
  if (rights == Rights::Current) note_access(cpu, linear, size, false);
  for (std::uint64_t at = linear; at - linear < size; at = (at & ~std::uint64_t{4095}) + 4096)
    translate(cpu, at, false, false, rights);
}

void check_write(Cpu& cpu, std::uint64_t linear, std::size_t size, Rights rights) {
  for (std::uint64_t at = linear; at - linear < size; at = (at & ~std::uint64_t{4095}) + 4096)
    translate(cpu, at, true, false, rights);
}

void write_linear(Cpu& cpu, std::uint64_t linear, const void* in, std::size_t size, Rights rights) {
  if (rights == Rights::Current) note_access(cpu, linear, size, true);
  if ((linear & 4095) + size > 4096) check_write(cpu, linear, size, rights);
  const auto* source = static_cast<const std::byte*>(in);
  while (size != 0) {
    const std::size_t piece = std::min<std::size_t>(size, 4096 - (linear & 4095));
    const TlbEntry page = translate(cpu, linear, true, false, rights);
    if (page.host != nullptr) {
      write_ram(cpu, page, linear, source, piece);
    } else {
      in_pieces(page.physical | (linear & 4095), piece, [&](std::uint64_t at, std::size_t bytes, std::size_t offset) {
        ++cpu.counters.mmio_accesses;
        std::uint64_t value = 0;
        std::memcpy(&value, source + offset, bytes);
        cpu.environment.mmio->write(Gpa(at), static_cast<unsigned>(bytes), value, cpu.index);
      });
    }
    linear += piece, source += piece, size -= piece;
  }
}

std::byte* host_pointer(Cpu& cpu, std::uint64_t linear, std::size_t size, Access access, Rights rights) {
  if ((linear & 4095) + size > 4096) return nullptr;
  if (has_breakpoints(cpu)) return nullptr;  // bulk operations go by elements, each of which is looked at
  const TlbEntry& page = translate(cpu, linear, access == Access::Write, access == Access::Execute, rights);
  if (page.host == nullptr) return nullptr;
  if (access == Access::Write && cpu.code_pages.has_code(page.physical)) return nullptr;
  return page.host + (linear & 4095);
}

void flush_tlb(Cpu& cpu) {
  MmuState& mmu = cpu.mmu;
  for (std::size_t pcid = 0; pcid < MmuState::kPcids; ++pcid) mmu.pcid_generation[pcid] = 0;
  mmu.pcid = (cpu.cr4 & cr4::kPcide) != 0 ? cpu.cr3 & 0xfff : 0;  // also where both were set from outside
  mmu.large = mmu.global_large = {};
  mmu.generation = ++mmu.newest_generation;
  mmu.global_generation = ++mmu.newest_generation;
  clear_first_level(cpu);
  soft(cpu).links.drop_all();
}

void flush_tlb_non_global(Cpu& cpu) {
  cpu.mmu.generation = ++cpu.mmu.newest_generation;
  clear_first_level(cpu);
  soft(cpu).links.drop_non_global();
}

void flush_tlb_page(Cpu& cpu, std::uint64_t linear) {
  if (cpu.mmu.global_large.may_hold(linear)) return flush_tlb(cpu);
  if (cpu.mmu.large.may_hold(linear)) flush_tlb_non_global(cpu);
  TlbEntry& entry = cpu.mmu.entries[(linear >> 12) % MmuState::kEntries];
  if (entry.page == linear >> 12) entry.generation = 0;
  clear_first_level_page(cpu, linear);
  soft(cpu).links.drop_page(linear);
}

void flush_tlb_pcid(Cpu& cpu, std::uint16_t pcid) {
  if ((cpu.cr4 & cr4::kPcide) != 0 && pcid != (cpu.cr3 & 0xfff)) {
    cpu.mmu.pcid_generation[pcid] = 0;
    return;
  }
  flush_tlb_non_global(cpu);
}

void flush_tlb_pcid_page(Cpu& cpu, std::uint16_t pcid, std::uint64_t linear) {
  if ((cpu.cr4 & cr4::kPcide) != 0 && pcid != (cpu.cr3 & 0xfff)) {
    cpu.mmu.pcid_generation[pcid] = 0;  // more than asked for, which is allowed
    return;
  }
  flush_tlb_page(cpu, linear);
}

void flush_tlb_all_but_global(Cpu& cpu) {
  for (std::size_t pcid = 0; pcid < MmuState::kPcids; ++pcid) cpu.mmu.pcid_generation[pcid] = 0;
  flush_tlb_non_global(cpu);
}

void address_space_changed(Cpu& cpu, bool keep) {
  MmuState& mmu = cpu.mmu;
  const std::size_t pcid = (cpu.cr4 & cr4::kPcide) != 0 ? cpu.cr3 & 0xfff : 0;
  // What the address space we leave has cached stays valid under its own number.
  if ((cpu.cr4 & cr4::kPcide) != 0) mmu.pcid_generation[mmu.pcid] = mmu.generation;
  mmu.pcid = pcid;
  const std::uint64_t known = mmu.pcid_generation[pcid];
  mmu.generation = keep && known != 0 ? known : ++mmu.newest_generation;
  clear_first_level(cpu);
  soft(cpu).links.drop_non_global();
}

}  // namespace vm_platform::soft
