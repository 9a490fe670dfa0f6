// The local APIC of each CPU, and the bus between them.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "guest/bus.hpp"
#include "guest/clock.hpp"
#include "guest/interrupt.hpp"
#include "guest/pci.hpp"
#include "machine/clock/timer_service.hpp"
#include "machine/interrupt/pic.hpp"

namespace vm_platform {

/// Delivery modes as ICR, LVT, I/O APIC and MSI encode them (Intel SDM vol. 3, 11.6.1).
enum class DeliveryMode : std::uint8_t { Fixed, LowestPriority, Smi, Reserved, Nmi, Init, StartUp, ExtInt };

struct ApicMessage {
  std::uint32_t destination = 0;
  bool logical = false;
  bool wide = false;  ///< The destination has 32 bits, as x2APIC mode sends it; FFh is then no broadcast.
  DeliveryMode mode = DeliveryMode::Fixed;
  std::uint8_t vector = 0;
  bool level_triggered = false;
};

class ApicBus;

/// Intel SDM vol. 3, chapter 11: xAPIC and x2APIC. What is its CPU's alone (in service, priorities) is plain data used
/// on the CPU's thread; what others reach is atomic, so that neither `has_interrupt` nor an incoming interrupt takes a
/// lock. The registers stay at FEE00000h. Its timer counts nanoseconds: CPUID's APIC bus frequency is 1 GHz.
class LocalApic final : public CpuInterruptController {
 public:
  static constexpr std::uint64_t kDefaultBase = 0xfee00000;
  static constexpr std::uint64_t kTimerHz = 1'000'000'000;

  LocalApic(std::uint32_t id, ApicBus& bus, PicPair& pic, TimerService& timers, TscClock tsc);

  // Any thread:
  void connect(CpuSignals* signals) noexcept { signals_.store(signals); }
  [[nodiscard]] std::uint32_t id() const noexcept { return id_; }
  [[nodiscard]] bool addressed_by(const ApicMessage& message) const noexcept;
  /// False where this CPU does not take it.
  bool accept(const ApicMessage& message);
  [[nodiscard]] bool software_enabled() const noexcept { return (spurious_.load() & 0x100) != 0; }
  [[nodiscard]] std::uint8_t arbitration_priority() const noexcept { return shown_priority_.load(); }
  /// LINT0 went up: the PIC asks.
  void lint0_raised();
  /// LINT1 pulsed.
  void lint1_pulsed();

  // The CPU's thread:
  bool has_interrupt() noexcept override;
  std::optional<std::uint8_t> acknowledge() noexcept override;
  std::uint8_t task_priority() noexcept override;
  void set_task_priority(std::uint8_t value) noexcept override;
  MsrAccess read_msr(std::uint32_t index, std::uint64_t& value) noexcept override;
  MsrAccess write_msr(std::uint32_t index, std::uint64_t value) noexcept override;
  std::uint64_t mmio_read(std::uint64_t offset, unsigned size);
  void mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value);

  /// Power-on state; the CPU is stopped.
  void reset();

 private:
  enum Lvt : unsigned { kTimer, kThermal, kPerformance, kLint0, kLint1, kError, kLvtCount };
  /// 256 bits that any thread may set.
  struct Vectors {
    std::array<std::atomic<std::uint64_t>, 4> words{};
    bool set(std::uint8_t vector) noexcept;
    void clear(std::uint8_t vector) noexcept;
    [[nodiscard]] bool test(std::uint8_t vector) const noexcept;
    [[nodiscard]] int highest() const noexcept;
    void clear_all() noexcept;
    [[nodiscard]] std::uint32_t word32(unsigned index) const noexcept;
  };

  [[nodiscard]] bool enabled() const noexcept { return (base_.load(std::memory_order_relaxed) & 0x800) != 0; }
  [[nodiscard]] bool x2apic() const noexcept { return (base_.load(std::memory_order_relaxed) & 0x400) != 0; }
  [[nodiscard]] std::uint32_t logical_id() const noexcept;
  [[nodiscard]] bool external_ready() const noexcept;
  void take_pending_init() noexcept;
  void init_registers() noexcept;
  void request(std::uint8_t vector, bool level_triggered);
  void update_priority() noexcept;
  void announce() noexcept;
  void notice_if_deliverable() noexcept;
  void deliver_local(Lvt which);
  void note_error(std::uint32_t bit);
  void end_of_interrupt();
  void send_ipi(std::uint32_t low, std::uint32_t destination);

  std::optional<std::uint32_t> read_register(unsigned index);
  bool write_register(unsigned index, std::uint32_t value);
  void write_spurious(std::uint32_t value);
  void write_lvt(Lvt which, std::uint32_t value);
  bool write_base(std::uint64_t value);

  // Timer.
  [[nodiscard]] std::uint64_t period_ns() const noexcept;
  [[nodiscard]] std::uint32_t current_count(std::int64_t now) const noexcept;
  void start_count(std::uint32_t initial);
  void rearm_count(std::int64_t now);
  void write_deadline(std::uint64_t value);
  void timer_fired();

  const std::uint32_t id_;
  ApicBus& bus_;
  PicPair& pic_;
  const TscClock tsc_;
  std::atomic<CpuSignals*> signals_{nullptr};

  Vectors requested_, level_;
  std::atomic<bool> any_requested_{false}, external_requested_{false}, init_pending_{false};
  std::atomic<std::uint64_t> base_{0};
  std::atomic<std::uint32_t> spurious_{0xff}, logical_destination_{0}, destination_format_{0xffffffff};
  std::array<std::atomic<std::uint32_t>, kLvtCount> lvt_{};
  std::atomic<std::uint32_t> errors_{0};
  std::atomic<std::uint8_t> shown_priority_{0};

  // The CPU's thread alone.
  std::array<std::uint64_t, 4> in_service_{};
  std::uint8_t task_priority_ = 0, priority_ = 0;
  std::uint32_t error_status_ = 0, command_low_ = 0, command_high_ = 0;

  std::mutex timer_mutex_;
  std::uint32_t divide_ = 0, initial_count_ = 0;
  std::int64_t count_start_ = 0, next_fire_ = Timer::kNever;
  std::uint64_t deadline_ = 0;  // of TSC-deadline mode
  Timer timer_;
};

/// Delivers messages between local APICs, and from I/O APICs and devices. Thread-safe; takes no lock.
class ApicBus final : public MsiTarget, public MmioDevice {
 public:
  /// `end_of_interrupt` is told the vector of each level-triggered interrupt that a CPU has finished.
  ApicBus(unsigned cpus, PicPair& pic, TimerService& timers, TscClock tsc,
          std::function<void(std::uint8_t)> end_of_interrupt);

  [[nodiscard]] unsigned size() const noexcept { return static_cast<unsigned>(apics_.size()); }
  [[nodiscard]] LocalApic& apic(unsigned cpu) noexcept { return *apics_[cpu]; }

  /// False where nobody took it.
  bool deliver(const ApicMessage& message);
  void broadcast(const ApicMessage& message, const LocalApic* except);
  void end_of_interrupt(std::uint8_t vector) { end_of_interrupt_(vector); }
  void send_msi(std::uint64_t address, std::uint32_t data) override;

  std::uint64_t mmio_read(std::uint64_t offset, unsigned size, unsigned vcpu) override;
  void mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value, unsigned vcpu) override;

 private:
  std::function<void(std::uint8_t)> end_of_interrupt_;
  std::vector<std::unique_ptr<LocalApic>> apics_;
  std::atomic<unsigned> turn_{0};  // whose turn it is among equals, for lowest priority
};

}  // namespace vm_platform
