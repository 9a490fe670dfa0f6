// Random port, memory, MSR and PCI configuration accesses, as a hostile guest makes them, against the whole PC.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <span>

#include "machine/memory_map.hpp"
#include "machine/pc.hpp"

namespace vm_platform {
namespace {

struct Events : PcEvents {
  void power_off() override {}
  void reset_requested() override {}
  void debug_exit(std::uint8_t) override {}
  void guest_panicked(std::uint8_t) override {}
};

struct Signals : CpuSignals {
  void interrupt_pending() noexcept override {}
  void raise_nmi() noexcept override {}
  void raise_init() noexcept override {}
  void raise_startup(std::uint8_t) noexcept override {}
};

constexpr unsigned kCpus = 3;

class Machine {
 public:
  Machine() {
    auto made = Pc::create({.memory_bytes = 2 * kMiB, .cpus = kCpus, .tsc = {host_tsc_frequency(), 0}}, events_);
    if (!made) std::abort();
    pc_ = std::move(*made);
    for (unsigned i = 0; i < kCpus; ++i) pc_->connect_cpu(i, signals_[i]);
    pc_->serial(0).set_output([this](std::span<const std::byte> bytes) { sum_ += bytes.size(); });
  }

  void run(std::span<const std::uint8_t> input) {
    pc_->reset();
    while (input.size() >= 12) {
      step(input.first<12>());
      input = input.subspan(12);
    }
    // Whatever the guest did, a CPU can only have so many interrupts: each vector once, and one again for each level.
    for (unsigned cpu = 0; cpu < kCpus; ++cpu) {
      CpuInterruptController& apic = pc_->local_apic(cpu);
      apic.set_task_priority(0);
      for (int taken = 0; apic.has_interrupt() && apic.acknowledge(); ++taken) {
        if (taken > 2000) break;
      }
    }
  }

 private:
  // Twelve bytes: what, which CPU, size, -, address (4), value (4).
  void step(std::span<const std::uint8_t, 12> bytes) {
    std::uint32_t where = 0, value = 0;
    std::memcpy(&where, &bytes[4], 4);
    std::memcpy(&value, &bytes[8], 4);
    const unsigned cpu = bytes[1] % (kCpus + 1);  // one more than there are
    const unsigned size = 1u << bytes[2] % 3, wide = 1u << bytes[2] % 4;
    CpuInterruptController& apic = pc_->local_apic(cpu % kCpus);
    std::uint64_t read = 0;
    switch (bytes[0] % 14) {
      case 0: sum_ += pc_->ports().read(static_cast<std::uint16_t>(where), size); break;
      case 1: pc_->ports().write(static_cast<std::uint16_t>(where), size, value); break;
      case 2: sum_ += pc_->mmio().read(Gpa(kLocalApicPage + (where & 0xfff)), wide, cpu); break;
      case 3: pc_->mmio().write(Gpa(kLocalApicPage + (where & 0xff0)), wide, value, cpu); break;
      case 4: sum_ += pc_->mmio().read(Gpa(0xfec00000 + (where & 0x5f)), wide, cpu); break;
      case 5:  // an I/O APIC register by its number
        pc_->mmio().write(Gpa(0xfec00000), 4, where, cpu);
        pc_->mmio().write(Gpa(0xfec00010), 4, value, cpu);
        break;
      case 6: sum_ += pc_->mmio().read(Gpa(map::kEcam + where % map::kEcamSize), wide, cpu); break;
      case 7: pc_->mmio().write(Gpa(map::kEcam + where % map::kEcamSize), wide, value, cpu); break;
      case 8: sum_ += pc_->mmio().read(Gpa((std::uint64_t{value} << 32 | where) >> bytes[3] % 33), wide, cpu); break;
      case 9: static_cast<void>(apic.read_msr(msr(where), read)); break;
      case 10: static_cast<void>(apic.write_msr(msr(where), std::uint64_t{bytes[3]} << 32 | value)); break;
      case 11:
        if (apic.has_interrupt()) static_cast<void>(apic.acknowledge());
        apic.set_task_priority(value & 15);
        break;
      case 12: {
        sum_ += pc_->serial(cpu & 1).receive(std::as_bytes(bytes.subspan(4)));
        if ((value & 0xff) == 0) pc_->press_power_button();
        if ((value & 0xff) == 1) pc_->inject_nmi();
        break;
      }
      default: pc_->pci().msi().send_msi(0xfee00000 | (where & 0xfffff), value);
    }
  }
  static std::uint32_t msr(std::uint32_t where) {
    switch (where % 8) {
      case 0: return 0x1b;
      case 1: return 0x6e0;
      default: return 0x800 + (where >> 3 & 0xff);
    }
  }
  static constexpr std::uint64_t kLocalApicPage = 0xfee00000;

  Events events_;
  Signals signals_[kCpus];
  std::uint64_t sum_ = 0;
  std::unique_ptr<Pc> pc_;
};

}  // namespace
}  // namespace vm_platform

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static vm_platform::Machine machine;
  machine.run({data, size});
  return 0;
}
