#include "machine/interrupt/local_apic.hpp"

#include <algorithm>
#include <bit>

#include "machine/interrupt/apic_registers.hpp"

namespace vm_platform {
using namespace apic;

bool LocalApic::Vectors::set(std::uint8_t vector) noexcept {
  const std::uint64_t mask = std::uint64_t{1} << (vector & 63);
  return (words[vector >> 6].fetch_or(mask) & mask) == 0;
}
void LocalApic::Vectors::clear(std::uint8_t vector) noexcept {
  words[vector >> 6].fetch_and(~(std::uint64_t{1} << (vector & 63)));
}
bool LocalApic::Vectors::test(std::uint8_t vector) const noexcept {
  return (words[vector >> 6].load() >> (vector & 63) & 1) != 0;
}
int LocalApic::Vectors::highest() const noexcept {
  for (int i = 3; i >= 0; --i) {
    if (const std::uint64_t word = words[static_cast<unsigned>(i)].load(); word != 0)
      return i * 64 + 63 - std::countl_zero(word);
  }
  return -1;
}
void LocalApic::Vectors::clear_all() noexcept {
  for (auto& word : words) word.store(0);
}
std::uint32_t LocalApic::Vectors::word32(unsigned index) const noexcept {
  return static_cast<std::uint32_t>(words[index / 2].load() >> (index % 2 * 32));
}

LocalApic::LocalApic(std::uint32_t id, ApicBus& bus, PicPair& pic, TimerService& timers, TscClock tsc)
    : id_(id), bus_(bus), pic_(pic), tsc_(tsc), timer_(timers, [this] { timer_fired(); }) {
  reset();
}

void LocalApic::reset() {
  base_ = kDefaultBase | kBaseEnable | (id_ == 0 ? kBaseBootstrap : 0);
  init_pending_ = false;
  init_registers();
}

// Intel SDM vol. 3, 11.4.7: what INIT resets; IA32_APIC_BASE and the ID stay.
void LocalApic::init_registers() noexcept {
  {
    const std::scoped_lock lock(timer_mutex_);
    divide_ = initial_count_ = 0;
    deadline_ = 0;
    next_fire_ = Timer::kNever;
    timer_.cancel();
    for (auto& entry : lvt_) entry = kLvtMasked;
  }
  // As firmware leaves the bootstrap CPU: virtual wire mode, the PIC at LINT0 and NMI at LINT1.
  if (id_ == 0) {
    lvt_[kLint0] = static_cast<std::uint32_t>(DeliveryMode::ExtInt) << 8;
    lvt_[kLint1] = static_cast<std::uint32_t>(DeliveryMode::Nmi) << 8;
  }
  spurious_ = 0xff;
  logical_destination_ = 0;
  destination_format_ = 0xffffffff;
  errors_ = 0;
  requested_.clear_all();
  level_.clear_all();
  any_requested_ = false;
  external_requested_ = false;
  in_service_ = {};
  task_priority_ = 0;
  error_status_ = command_low_ = command_high_ = 0;
  update_priority();
}

void LocalApic::take_pending_init() noexcept {
  if (!init_pending_.load(std::memory_order_acquire)) [[likely]]
    return;
  init_pending_ = false;
  init_registers();
}

std::uint32_t LocalApic::logical_id() const noexcept {
  return x2apic() ? (id_ >> 4) << 16 | 1u << (id_ & 15) : logical_destination_.load();
}

// Intel SDM vol. 3, 11.6.2 and 11.12.9.
bool LocalApic::addressed_by(const ApicMessage& message) const noexcept {
  if (!enabled()) return false;
  const std::uint32_t to = message.destination;
  if (to == (message.wide ? 0xffffffffu : 0xffu)) return true;
  if (!message.logical) return x2apic() || message.wide ? to == id_ : to == (id_ & 0xff);
  const std::uint32_t me = logical_id();
  if (x2apic()) return me >> 16 == to >> 16 && (me & to & 0xffff) != 0;
  if (to > 0xff) return false;
  const std::uint32_t mine = me >> 24;
  if (destination_format_.load() >> 28 == 0xf) return (mine & to) != 0;
  return mine >> 4 == to >> 4 && (mine & to & 0xf) != 0;  // cluster model
}

bool LocalApic::accept(const ApicMessage& message) {
  if (!enabled()) return false;
  CpuSignals* signals = signals_.load();
  switch (message.mode) {
    case DeliveryMode::Fixed:
    case DeliveryMode::LowestPriority:
      if (!software_enabled()) return false;
      request(message.vector, message.level_triggered);
      return true;
    case DeliveryMode::Nmi:
      if (signals != nullptr) signals->raise_nmi();
      return true;
    case DeliveryMode::Init:
      // Registers that belong to the CPU's thread are reset there, before it next looks at any of them.
      spurious_ = 0xff;
      init_pending_.store(true, std::memory_order_release);
      if (signals != nullptr) signals->raise_init();
      return true;
    case DeliveryMode::StartUp:
      if (signals != nullptr) signals->raise_startup(message.vector);
      return true;
    case DeliveryMode::ExtInt:
      external_requested_ = true;
      announce();
      return true;
    case DeliveryMode::Smi:  // there is no SMM
    case DeliveryMode::Reserved: break;
  }
  return false;
}

void LocalApic::request(std::uint8_t vector, bool level_triggered) {
  if (vector < 16) {
    note_error(kErrorReceivedIllegalVector);
    return;
  }
  if (level_triggered) {
    level_.set(vector);
  } else if (level_.test(vector)) {
    level_.clear(vector);
  }
  // A bit that was set already has been announced and not been taken since.
  if (!requested_.set(vector)) return;
  any_requested_.store(true);
  announce();
}

void LocalApic::note_error(std::uint32_t bit) {
  if ((errors_.fetch_or(bit) & bit) != 0) return;
  const std::uint32_t entry = lvt_[kError].load();
  if ((entry & kLvtMasked) == 0 && (entry & 0xff) >= 16) request(static_cast<std::uint8_t>(entry), false);
}

void LocalApic::deliver_local(Lvt which) {
  const std::uint32_t entry = lvt_[which].load();
  if ((entry & kLvtMasked) != 0) return;
  auto mode = static_cast<DeliveryMode>(entry >> 8 & 7);
  if (which == kTimer || which == kError) mode = DeliveryMode::Fixed;
  switch (mode) {
    case DeliveryMode::Fixed: request(static_cast<std::uint8_t>(entry), false); break;
    case DeliveryMode::Nmi:
      if (CpuSignals* signals = signals_.load()) signals->raise_nmi();
      break;
    case DeliveryMode::ExtInt: announce(); break;
    default: break;
  }
}

void LocalApic::lint0_raised() {
  if (enabled() && !external_requested_.load()) {
    deliver_local(kLint0);
  } else {
    announce();
  }
}

void LocalApic::lint1_pulsed() {
  if (enabled()) {
    deliver_local(kLint1);
  } else if (CpuSignals* signals = signals_.load()) {
    signals->raise_nmi();  // with the APIC off, the pin is the CPU's NMI
  }
}

bool LocalApic::external_ready() const noexcept {
  if (!pic_.output()) return false;
  if (!enabled() || external_requested_.load(std::memory_order_relaxed)) return true;
  constexpr std::uint32_t kExternal = static_cast<std::uint32_t>(DeliveryMode::ExtInt) << 8;
  return (lvt_[kLint0].load(std::memory_order_relaxed) & (kLvtMasked | 0x700)) == kExternal;
}

bool LocalApic::has_interrupt() noexcept {
  take_pending_init();
  if (any_requested_.load() && enabled()) {
    const int vector = requested_.highest();
    if (vector >= 0 && (vector & 0xf0) > (priority_ & 0xf0)) return true;
  }
  return external_ready();
}

std::optional<std::uint8_t> LocalApic::acknowledge() noexcept {
  take_pending_init();
  if (external_ready()) {
    external_requested_ = false;
    if (const auto vector = pic_.acknowledge()) {
      // Nothing rose, but more may be waiting: with the PIC's automatic EOI, or at the APIC.
      if (has_interrupt()) announce();
      return vector;
    }
  }
  if (!enabled()) return std::nullopt;
  const int highest = requested_.highest();
  if (highest < 0 || (highest & 0xf0) <= (priority_ & 0xf0)) return std::nullopt;
  const auto vector = static_cast<std::uint8_t>(highest);
  requested_.clear(vector);
  if (requested_.highest() < 0) {
    any_requested_.store(false);
    if (requested_.highest() >= 0) any_requested_.store(true);  // one came in between
  }
  in_service_[vector >> 6] |= std::uint64_t{1} << (vector & 63);
  update_priority();
  return vector;
}

void LocalApic::update_priority() noexcept {
  int highest = 0;
  for (int i = 3; i >= 0 && highest == 0; --i) {
    if (const std::uint64_t word = in_service_[static_cast<unsigned>(i)]; word != 0)
      highest = i * 64 + 63 - std::countl_zero(word);
  }
  const auto service = static_cast<std::uint8_t>(highest & 0xf0);
  priority_ = (task_priority_ & 0xf0) >= service ? task_priority_ : service;
  shown_priority_.store(priority_, std::memory_order_relaxed);
}

/// The CPU looks again.
void LocalApic::announce() noexcept {
  if (CpuSignals* signals = signals_.load()) signals->interrupt_pending();
}

/// After a priority fell: the CPU looks again although nothing new came.
void LocalApic::notice_if_deliverable() noexcept {
  if (!any_requested_.load()) return;
  if (const int vector = requested_.highest(); vector >= 0 && (vector & 0xf0) > (priority_ & 0xf0)) {
    announce();
  }
}

void LocalApic::end_of_interrupt() {
  for (int i = 3; i >= 0; --i) {
    std::uint64_t& word = in_service_[static_cast<unsigned>(i)];
    if (word == 0) continue;
    const int bit = 63 - std::countl_zero(word);
    word &= ~(std::uint64_t{1} << bit);
    update_priority();
    const auto vector = static_cast<std::uint8_t>(i * 64 + bit);
    if (level_.test(vector)) bus_.end_of_interrupt(vector);
    notice_if_deliverable();
    return;
  }
}

std::uint8_t LocalApic::task_priority() noexcept {
  take_pending_init();
  return task_priority_ >> 4;
}

void LocalApic::set_task_priority(std::uint8_t value) noexcept {
  take_pending_init();
  task_priority_ = static_cast<std::uint8_t>(value << 4);
  update_priority();
  notice_if_deliverable();
}

// Intel SDM vol. 3, 11.6.1. A level-triggered or de-asserted IPI does not exist any more on these CPUs.
void LocalApic::send_ipi(std::uint32_t low, std::uint32_t destination) {
  ApicMessage message;
  message.mode = static_cast<DeliveryMode>(low >> 8 & 7);
  message.vector = static_cast<std::uint8_t>(low);
  message.logical = (low & kIcrLogical) != 0;
  message.wide = x2apic();
  message.destination = destination;
  if (message.mode == DeliveryMode::Init && (low & kIcrAssert) == 0 && (low & kIcrLevel) != 0) return;
  const bool fixed = message.mode == DeliveryMode::Fixed || message.mode == DeliveryMode::LowestPriority;
  if (fixed && message.vector < 16) {
    note_error(kErrorSentIllegalVector);
    return;
  }
  switch (low >> 18 & 3) {
    case 0: bus_.deliver(message); break;
    case 1:
      if (fixed) accept(message);
      break;
    case 2:
      if (fixed || message.mode == DeliveryMode::Nmi) bus_.broadcast(message, nullptr);
      break;
    default: bus_.broadcast(message, this);
  }
}

}  // namespace vm_platform
