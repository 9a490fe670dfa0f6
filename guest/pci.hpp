// PCI as devices see it: configuration space, base address registers, interrupts.
#pragma once

#include <cstdint>
#include <span>
#include <vm_platform/core.hpp>

#include "guest/interrupt.hpp"

namespace vm_platform {

/// Where message-signalled interrupts go. Thread-safe.
class MsiTarget {
 public:
  virtual ~MsiTarget() = default;
  /// `address` and `data` as the guest wrote them into an MSI or MSI-X entry (Intel SDM vol. 3, 11.11).
  virtual void send_msi(std::uint64_t address, std::uint32_t data) = 0;
};

/// A range that a function decodes at this moment.
struct PciRange {
  enum class Space : std::uint8_t { Memory, Io };
  Space space = Space::Memory;
  std::uint64_t base = 0, size = 0;
  unsigned bar = 0;  ///< Which base address register; given back in `bar_read` and `bar_write`.
};

/// One function of a device on the PCI bus. Calls may come from any vCPU thread, several at once.
class PciFunction {
 public:
  virtual ~PciFunction() = default;
  /// `offset` is below 4096 and `size` is 1, 2 or 4; the access is aligned.
  virtual std::uint32_t config_read(std::uint16_t offset, unsigned size) = 0;
  virtual void config_write(std::uint16_t offset, unsigned size, std::uint32_t value) = 0;
  /// The ranges that the command register and the BARs now enable, at most six; asked for after each `config_write`.
  virtual std::size_t ranges(std::span<PciRange, 6> out) = 0;
  /// `size` is 1, 2, 4 or 8 and the access stays in the range.
  virtual std::uint64_t bar_read(unsigned bar, std::uint64_t offset, unsigned size) = 0;
  virtual void bar_write(unsigned bar, std::uint64_t offset, unsigned size, std::uint64_t value) = 0;
  virtual void reset() = 0;
};

/// The root bus. Attach everything before the vCPUs run.
class PciBus {
 public:
  virtual ~PciBus() = default;
  /// Fails with `Busy` where the place is taken; device 0 is the host bridge.
  virtual Result<void> attach(unsigned device, unsigned function, PciFunction& what) = 0;
  /// The wire that INTA# (pin 0) to INTD# (pin 3) of `device` leads to; level-triggered, shared: one line for each
  /// caller.
  virtual InterruptLine& interrupt(unsigned device, unsigned pin) = 0;
  virtual MsiTarget& msi() = 0;
};

}  // namespace vm_platform
