// The PCI root: configuration access, the host bridge itself, and the way to the functions' registers.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "guest/bus.hpp"
#include "guest/pci.hpp"

namespace vm_platform {

/// Bus 0 behind an Intel q35 host bridge (8086:29C0): configuration mechanism 1 at CF8h and CFCh, ECAM, and the windows
/// in which the functions' BARs are decoded. Thread-safe once everything is attached.
class PciHost final : public PciBus, public PortDevice {
 public:
  /// Drives one of the four wires that the functions' INTx pins share.
  using SetWire = std::function<void(unsigned wire, bool high)>;

  PciHost(MsiTarget& msi, SetWire set_wire);
  ~PciHost() override;

  /// Attaches the bridge's ports and windows.
  Result<void> connect(PortBus& ports, MmioBus& mmio, std::uint64_t window64);
  void reset();

  Result<void> attach(unsigned device, unsigned function, PciFunction& what) override;
  InterruptLine& interrupt(unsigned device, unsigned pin) override;
  MsiTarget& msi() override { return msi_; }

  std::uint32_t port_read(std::uint16_t port, unsigned size) override;
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;

 private:
  struct Decoded {
    PciRange range;
    PciFunction* function;
  };
  class Ecam;
  class Window;
  class Line;

  std::uint32_t config_read(unsigned bus, unsigned place, std::uint16_t offset, unsigned size);
  void config_write(unsigned bus, unsigned place, std::uint16_t offset, unsigned size, std::uint32_t value);
  void update_ranges();
  bool find(PciRange::Space space, std::uint64_t address, unsigned size, Decoded& found);
  void set_line(unsigned wire, bool high);

  MsiTarget& msi_;
  SetWire set_wire_;
  std::unique_ptr<PciFunction> bridge_;
  std::array<PciFunction*, 256> functions_{};  // by device * 8 + function
  std::atomic<std::uint32_t> address_{0};      // CF8h

  std::mutex config_mutex_;  // one configuration access at a time, as on the wire
  std::shared_mutex ranges_mutex_;
  std::vector<Decoded> ranges_;

  std::mutex lines_mutex_;
  std::array<unsigned, 4> asserted_{};  // how many functions pull each wire
  std::vector<std::unique_ptr<Line>> lines_;
  std::unique_ptr<Ecam> ecam_;
  std::vector<std::unique_ptr<Window>> windows_;
};

}  // namespace vm_platform
