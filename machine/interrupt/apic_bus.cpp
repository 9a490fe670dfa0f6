#include <algorithm>
#include <utility>

#include "machine/interrupt/local_apic.hpp"

namespace vm_platform {

ApicBus::ApicBus(unsigned cpus, PicPair& pic, TimerService& timers, TscClock tsc,
                 std::function<void(std::uint8_t)> end_of_interrupt)
    : end_of_interrupt_(std::move(end_of_interrupt)) {
  for (unsigned id = 0; id < cpus; ++id) apics_.push_back(std::make_unique<LocalApic>(id, *this, pic, timers, tsc));
}

bool ApicBus::deliver(const ApicMessage& message) {
  const bool lowest = message.mode == DeliveryMode::LowestPriority;
  // The common case: one CPU by its number, which is its APIC ID.
  if (!message.logical && message.destination < apics_.size() && message.destination != 0xff)
    return apics_[message.destination]->addressed_by(message) && apics_[message.destination]->accept(message);
  bool taken = false;
  LocalApic* chosen = nullptr;
  const unsigned first = lowest ? turn_.fetch_add(1, std::memory_order_relaxed) : 0;
  for (unsigned i = 0; i < apics_.size(); ++i) {
    LocalApic& apic = *apics_[(first + i) % apics_.size()];
    if (!apic.addressed_by(message)) continue;
    if (!lowest) {
      taken |= apic.accept(message);
    } else if (apic.software_enabled() &&
               (chosen == nullptr || apic.arbitration_priority() < chosen->arbitration_priority())) {
      chosen = &apic;
    }
  }
  return chosen != nullptr ? chosen->accept(message) : taken;
}

void ApicBus::broadcast(const ApicMessage& message, const LocalApic* except) {
  for (const auto& apic : apics_) {
    if (apic.get() != except) apic->accept(message);
  }
}

// Intel SDM vol. 3, 11.11. Address bits 11-5 extend the destination to 15 bits, as hypervisors without interrupt
// remapping agreed on; guests that do not know leave them zero.
void ApicBus::send_msi(std::uint64_t address, std::uint32_t data) {
  if ((address & 0xfff00000) != LocalApic::kDefaultBase) return;
  ApicMessage message;
  message.destination = static_cast<std::uint32_t>((address >> 12 & 0xff) | (address >> 5 & 0x7f) << 8);
  message.logical = (address & 4) != 0;
  message.mode = static_cast<DeliveryMode>(data >> 8 & 7);
  message.vector = static_cast<std::uint8_t>(data);
  message.level_triggered = (data & 0x8000) != 0;
  deliver(message);
}

std::uint64_t ApicBus::mmio_read(std::uint64_t offset, unsigned size, unsigned vcpu) {
  return vcpu < apics_.size() ? apics_[vcpu]->mmio_read(offset, size) : ~std::uint64_t{0};
}

void ApicBus::mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value, unsigned vcpu) {
  if (vcpu < apics_.size()) apics_[vcpu]->mmio_write(offset, size, value);
}

}  // namespace vm_platform
