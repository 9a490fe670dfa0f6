// The local APIC's registers, as memory and as MSRs.
#include <algorithm>

#include "machine/interrupt/apic_registers.hpp"
#include "machine/interrupt/local_apic.hpp"

namespace vm_platform {
using namespace apic;
namespace {

constexpr std::uint32_t kMsrBase = 0x1b, kMsrDeadline = 0x6e0, kMsrFirst = 0x800, kMsrLast = 0x8ff;
// The writable bits of each LVT entry, in the order of their registers.
constexpr std::array<std::uint32_t, 6> kLvtWritable{0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff};
constexpr std::uint32_t kSpuriousWritable = 0x3ff;
constexpr std::uint32_t kIcrWritable = 0xccfff;

/// What reserved bits x2APIC mode refuses (11.12.1.3); read-only registers are refused whole.
bool x2apic_allows(unsigned index, std::uint64_t value) {
  if (index == kCommand) return (value & 0xffffffff & ~std::uint64_t{kIcrWritable | kIcrStatus}) == 0;
  if (index >= kLvtFirst && index <= kLvtLast)
    return (value & ~std::uint64_t{kLvtWritable[index - kLvtFirst] | kLvtStatus | 0x4000}) == 0;
  switch (index) {
    case kTaskPriority:
    case kSelfIpi: return value <= 0xff;
    case kEoi:
    case kErrorStatus: return value == 0;
    case kSpurious: return (value & ~std::uint64_t{kSpuriousWritable}) == 0;
    case kInitialCount: return value <= 0xffffffff;
    case kDivide: return (value & ~std::uint64_t{0xb}) == 0;
    default: return false;
  }
}

}  // namespace

std::optional<std::uint32_t> LocalApic::read_register(unsigned index) {
  if (index >= kInService && index < kInService + 8) {
    const unsigned word = index - kInService;
    return static_cast<std::uint32_t>(in_service_[word / 2] >> (word % 2 * 32));
  }
  if (index >= kTriggerMode && index < kTriggerMode + 8) return level_.word32(index - kTriggerMode);
  if (index >= kInterruptRequest && index < kInterruptRequest + 8) return requested_.word32(index - kInterruptRequest);
  if (index >= kLvtFirst && index <= kLvtLast) return lvt_[index - kLvtFirst].load();
  switch (index) {
    case kId: return x2apic() ? id_ : id_ << 24;
    case kVersion: return kVersionValue;
    case kTaskPriority: return task_priority_;
    case kArbitrationPriority:
    case kProcessorPriority: return priority_;
    case kRemoteRead: return 0;
    case kLogicalDestination: return logical_id();
    case kDestinationFormat: return destination_format_.load();
    case kSpurious: return spurious_.load();
    case kErrorStatus: return error_status_;
    case kCommand: return command_low_;
    case kCommandHigh: return command_high_;
    case kInitialCount: {
      const std::scoped_lock lock(timer_mutex_);
      return initial_count_;
    }
    case kCurrentCount: {
      const std::scoped_lock lock(timer_mutex_);
      return current_count(monotonic_ns());
    }
    case kDivide: return divide_;
    default: return std::nullopt;
  }
}

bool LocalApic::write_register(unsigned index, std::uint32_t value) {
  if (index >= kLvtFirst && index <= kLvtLast) {
    write_lvt(static_cast<Lvt>(index - kLvtFirst), value);
    return true;
  }
  switch (index) {
    case kTaskPriority:
      task_priority_ = static_cast<std::uint8_t>(value);
      update_priority();
      notice_if_deliverable();
      return true;
    case kEoi: end_of_interrupt(); return true;
    case kLogicalDestination: logical_destination_ = value & 0xff000000; return true;
    case kDestinationFormat: destination_format_ = value | 0x0fffffff; return true;
    case kSpurious: write_spurious(value); return true;
    case kErrorStatus: error_status_ = errors_.exchange(0); return true;
    case kCommand:
      command_low_ = value & kIcrWritable;
      send_ipi(command_low_, x2apic() ? command_high_ : command_high_ >> 24);
      return true;
    case kCommandHigh: command_high_ = value & 0xff000000; return true;
    case kInitialCount: start_count(value); return true;
    case kDivide: {
      const std::scoped_lock lock(timer_mutex_);
      const std::int64_t now = monotonic_ns();
      // The count goes on from where it is, at the new pace.
      const std::uint32_t left = current_count(now);
      divide_ = value & 0xb;
      if (initial_count_ != 0) {
        const std::uint64_t passed = initial_count_ - left;
        count_start_ = now - static_cast<std::int64_t>(passed * (period_ns() / initial_count_));
        rearm_count(now);
      }
      return true;
    }
    default: return false;
  }
}

void LocalApic::write_spurious(std::uint32_t value) {
  spurious_ = value & kSpuriousWritable;
  if ((value & kSpuriousEnable) != 0) return;
  const std::scoped_lock lock(timer_mutex_);
  for (auto& entry : lvt_) entry |= kLvtMasked;  // 11.4.7.2
}

void LocalApic::write_lvt(Lvt which, std::uint32_t value) {
  const std::uint32_t kept = value & kLvtWritable[which];
  const std::uint32_t entry = software_enabled() ? kept : kept | kLvtMasked;
  if (which == kTimer) {
    const std::scoped_lock lock(timer_mutex_);
    const std::uint32_t before = lvt_[kTimer].exchange(entry) >> 17 & 3, after = entry >> 17 & 3;
    if (before == after) {
      if (after != kTimerDeadline) rearm_count(monotonic_ns());
      return;
    }
    if (before == kTimerDeadline || after == kTimerDeadline) {  // 11.5.4.1: going in or out disarms
      deadline_ = 0;
      initial_count_ = 0;
    }
    rearm_count(monotonic_ns());
    return;
  }
  lvt_[which] = entry;
  // A line that is already up when its input opens.
  if (which == kLint0 && external_ready()) announce();
}

bool LocalApic::write_base(std::uint64_t value) {
  // The page does not move: no system moves it, and one address for every CPU keeps the bus simple.
  if ((value & ~std::uint64_t{0xfff}) != kDefaultBase || (value & 0x2ff) != 0) return false;
  const std::uint64_t before = base_.load();
  const auto mode = [](std::uint64_t base) { return base & (kBaseEnable | kBaseX2); };
  if (mode(value) == kBaseX2) return false;
  if (mode(before) == (kBaseEnable | kBaseX2) && mode(value) == kBaseEnable)
    return false;  // 11.12.5: not back to xAPIC
  if (mode(before) == 0 && mode(value) == (kBaseEnable | kBaseX2)) return false;
  if (mode(before) != mode(value)) {
    if (mode(value) == 0) init_registers();
    command_high_ = 0;
  }
  base_ = value;
  if (external_ready()) announce();  // with the APIC off, the PIC is the CPU's
  return true;
}

CpuInterruptController::MsrAccess LocalApic::read_msr(std::uint32_t index, std::uint64_t& value) noexcept {
  if (index == kMsrBase) {
    value = base_.load();
    return MsrAccess::Done;
  }
  if (index == kMsrDeadline) {
    take_pending_init();
    const std::scoped_lock lock(timer_mutex_);
    value = deadline_;
    return MsrAccess::Done;
  }
  if (index < kMsrFirst || index > kMsrLast) return MsrAccess::NotMine;
  take_pending_init();
  const unsigned number = index - kMsrFirst;
  if (!x2apic() || number == kDestinationFormat || number == kCommandHigh || number == kArbitrationPriority ||
      number == kRemoteRead || number == kEoi || number == kSelfIpi)
    return MsrAccess::Fault;
  const auto low = read_register(number);
  if (!low) return MsrAccess::Fault;
  value = *low | (number == kCommand ? std::uint64_t{command_high_} << 32 : 0);
  return MsrAccess::Done;
}

CpuInterruptController::MsrAccess LocalApic::write_msr(std::uint32_t index, std::uint64_t value) noexcept {
  if (index == kMsrBase) {
    take_pending_init();
    return write_base(value) ? MsrAccess::Done : MsrAccess::Fault;
  }
  if (index == kMsrDeadline) {
    take_pending_init();
    write_deadline(value);
    return MsrAccess::Done;
  }
  if (index < kMsrFirst || index > kMsrLast) return MsrAccess::NotMine;
  take_pending_init();
  const unsigned number = index - kMsrFirst;
  if (!x2apic() || !x2apic_allows(number, value)) return MsrAccess::Fault;
  if (number == kSelfIpi) {
    send_ipi(0x40000 | static_cast<std::uint32_t>(value), 0);
    return MsrAccess::Done;
  }
  if (number == kCommand) command_high_ = static_cast<std::uint32_t>(value >> 32);
  return write_register(number, static_cast<std::uint32_t>(value)) ? MsrAccess::Done : MsrAccess::Fault;
}

std::uint64_t LocalApic::mmio_read(std::uint64_t offset, unsigned size) {
  take_pending_init();
  if (!enabled() || x2apic()) return ~std::uint64_t{0};
  // Only aligned 32-bit accesses are defined (11.4.1); a part of one gives that part, the gaps read as zero.
  if ((offset & 0xf) + size > 4 && (offset & 0xf) != 0) return 0;
  const auto value = read_register(static_cast<unsigned>(offset >> 4));
  if (!value) {
    note_error(kErrorIllegalRegister);
    return 0;
  }
  return *value >> ((offset & 3) * 8);
}

void LocalApic::mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  take_pending_init();
  if (!enabled() || x2apic() || (offset & 0xf) != 0 || size < 4) return;
  const auto index = static_cast<unsigned>(offset >> 4);
  if (!write_register(index, static_cast<std::uint32_t>(value)) && !read_register(index))
    note_error(kErrorIllegalRegister);
}

}  // namespace vm_platform
