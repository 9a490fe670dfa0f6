// The buses between CPUs and devices: I/O ports and memory-mapped registers. Engines call them, devices answer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>
#include <vm_platform/core.hpp>

namespace vm_platform {

/// A device's I/O ports. Calls may come from any vCPU thread, several at once; a device brings its own lock.
class PortDevice {
 public:
  virtual ~PortDevice() = default;
  /// `size` is 1, 2 or 4; `port` is absolute. The value's upper bits are ignored.
  virtual std::uint32_t port_read(std::uint16_t port, unsigned size) = 0;
  virtual void port_write(std::uint16_t port, unsigned size, std::uint32_t value) = 0;
};

/// A device's memory-mapped registers. Threads as for PortDevice.
class MmioDevice {
 public:
  virtual ~MmioDevice() = default;
  /// `offset` from where the device was attached; `size` is 1, 2, 4 or 8 and the access never leaves the window.
  /// `vcpu` is the index of the CPU that asks (a local APIC has the same address on every CPU).
  virtual std::uint64_t mmio_read(std::uint64_t offset, unsigned size, unsigned vcpu) = 0;
  virtual void mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value, unsigned vcpu) = 0;
};

/// Routes port accesses. Attach everything before the vCPUs run; routing itself takes no lock.
class PortBus {
 public:
  /// Fails with `Busy` when the ports overlap those of another device.
  Result<void> attach(std::uint16_t first, std::uint32_t count, PortDevice& device, std::string name);
  /// A port nobody answers reads as all ones, as on a PC.
  std::uint32_t read(std::uint16_t port, unsigned size);
  void write(std::uint16_t port, unsigned size, std::uint32_t value);

 private:
  struct Window {
    std::uint16_t first;
    std::uint32_t count;
    PortDevice* device;
    std::string name;
  };
  PortDevice* find(std::uint16_t port) const noexcept;
  std::vector<Window> windows_;  // sorted by first
};

/// Routes accesses to guest-physical addresses that are not RAM. Attach everything before the vCPUs run.
class MmioBus {
 public:
  Result<void> attach(Gpa base, std::uint64_t size, MmioDevice& device, std::string name);
  /// An address nobody answers reads as all ones.
  std::uint64_t read(Gpa address, unsigned size, unsigned vcpu);
  void write(Gpa address, unsigned size, std::uint64_t value, unsigned vcpu);

 private:
  struct Window {
    Gpa base;
    std::uint64_t size;
    MmioDevice* device;
    std::string name;
  };
  const Window* find(Gpa address, unsigned size) const noexcept;
  std::vector<Window> windows_;  // sorted by base
};

}  // namespace vm_platform
