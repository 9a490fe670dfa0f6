// A machine's serial port as the public interface shows it, with its bytes counted.
#pragma once

#include <atomic>
#include <utility>
#include <vm_platform/runtime.hpp>

#include "machine/devices/serial.hpp"

namespace vm_platform::runtime {

class SerialLink final : public RuntimeSerial {
 public:
  explicit SerialLink(SerialPort& port) : port_(port) {}

  using RuntimeSerial::set_output;
  void set_output(std::function<void(std::span<const std::byte>)> output, std::function<bool()> has_room) override {
    port_.set_output(
        [this, output = std::move(output)](std::span<const std::byte> bytes) {
          out_ += bytes.size();
          if (output) output(bytes);
        },
        std::move(has_room));
  }
  std::size_t send(std::span<const std::byte> bytes) override {
    const std::size_t taken = port_.receive(bytes);
    in_ += taken;
    return taken;
  }
  void set_input_ready(std::function<void()> ready) override { port_.set_input_ready(std::move(ready)); }

  void flush() { port_.flush(); }
  [[nodiscard]] std::uint64_t out_bytes() const noexcept { return out_; }
  [[nodiscard]] std::uint64_t in_bytes() const noexcept { return in_; }

 private:
  SerialPort& port_;
  std::atomic<std::uint64_t> out_ = 0, in_ = 0;
};

}  // namespace vm_platform::runtime
