// The pair of 8259A interrupt controllers of a PC.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>

#include "guest/bus.hpp"

namespace vm_platform {

/// Intel 8259A, master at 20h and slave at A0h behind its input 2, with the edge / level registers of a PC chip set at
/// 4D0h. Its output is every CPU's LINT0. Thread-safe.
class PicPair final : public PortDevice {
 public:
  /// `output_raised` is called when the output goes from low to high, with the lock held: it must not call back.
  explicit PicPair(std::function<void()> output_raised);

  /// Input 0 to 15; 2 is the cascade and is ignored.
  void set_level(unsigned irq, bool high);
  /// The INTR wire. Cheap.
  [[nodiscard]] bool output() const noexcept { return output_.load(std::memory_order_acquire); }
  /// The interrupt acknowledge cycle: the vector; nothing where INTR fell in the meantime.
  std::optional<std::uint8_t> acknowledge();
  void reset();

  std::uint32_t port_read(std::uint16_t port, unsigned size) override;
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;

 private:
  struct Chip {
    std::uint8_t requested = 0, mask = 0, in_service = 0, wires = 0, level_triggered = 0, vector_base = 0;
    std::uint8_t lowest_first = 0;  // the input with the highest priority now
    std::uint8_t initializing = 0;  // the ICW that is expected, 0 for none
    bool expects_icw4 = false, single = false, read_in_service = false, poll = false, special_mask = false;
    bool auto_eoi = false, rotate_on_auto_eoi = false, fully_nested = false;

    [[nodiscard]] unsigned priority(std::uint8_t inputs) const noexcept;
    [[nodiscard]] int pending(bool master) const noexcept;
    void set_wire(unsigned input, bool high) noexcept;
    void take(unsigned input) noexcept;
    void command(std::uint8_t value) noexcept;
    void data(std::uint8_t value) noexcept;
    void end_of_interrupt(std::uint8_t command) noexcept;
  };
  std::uint8_t read_byte(std::uint16_t port);
  void write_byte(std::uint16_t port, std::uint8_t value);
  void update();

  std::function<void()> output_raised_;
  std::mutex mutex_;
  std::array<Chip, 2> chips_{};
  std::atomic<bool> output_{false};
};

}  // namespace vm_platform
