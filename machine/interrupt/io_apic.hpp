// The I/O APIC: from the wires of devices to messages for CPUs.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "guest/bus.hpp"
#include "machine/interrupt/local_apic.hpp"

namespace vm_platform {

/// Intel 82093AA with 24 inputs and the EOI register of later chip sets (version 20h), at FEC00000h. Thread-safe.
class IoApic final : public MmioDevice {
 public:
  static constexpr unsigned kPins = 24;
  static constexpr std::uint64_t kBase = 0xfec00000;

  explicit IoApic(ApicBus& bus) : bus_(bus) { reset(); }

  void set_level(unsigned pin, bool high);
  /// A CPU has finished a level-triggered interrupt with this vector.
  void end_of_interrupt(std::uint8_t vector);
  void reset();

  std::uint64_t mmio_read(std::uint64_t offset, unsigned size, unsigned vcpu) override;
  void mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value, unsigned vcpu) override;

 private:
  std::uint32_t read_register() const noexcept;
  void write_register(std::uint32_t value);
  void serve(unsigned pin);

  ApicBus& bus_;
  std::mutex mutex_;
  std::array<std::uint64_t, kPins> redirection_{};
  std::uint32_t wires_ = 0;
  std::uint8_t select_ = 0, id_ = 0;
};

}  // namespace vm_platform
