#include "machine/pci/host_bridge.hpp"

#include <utility>

#include "machine/memory_map.hpp"

namespace vm_platform {
namespace {

std::uint32_t ones(unsigned size) { return size >= 4 ? 0xffffffffu : (1u << (size * 8)) - 1; }

/// The bridge's own function: its identity, and where ECAM is (PCIEXBAR, Intel q35 datasheet 5.1.17), for firmware.
class Bridge final : public PciFunction {
 public:
  std::uint32_t config_read(std::uint16_t offset, unsigned size) override {
    std::uint32_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= std::uint32_t{byte(offset + i)} << (i * 8);
    return value;
  }
  void config_write(std::uint16_t, unsigned, std::uint32_t) override {}
  std::size_t ranges(std::span<PciRange, 6>) override { return 0; }
  std::uint64_t bar_read(unsigned, std::uint64_t, unsigned) override { return ~std::uint64_t{0}; }
  void bar_write(unsigned, std::uint64_t, unsigned, std::uint64_t) override {}
  void reset() override {}

 private:
  static std::uint8_t byte(unsigned offset) {
    const auto part = [offset](unsigned at, std::uint64_t value) {
      return static_cast<std::uint8_t>(value >> ((offset - at) * 8));
    };
    if (offset < 0x04) return part(0, 0x29c08086);
    if (offset < 0x08) return part(0x04, 0x00000006);  // memory and bus master, no capabilities
    if (offset < 0x0c) return part(0x08, 0x06000000);  // class: host bridge
    if (offset >= 0x2c && offset < 0x30) return part(0x2c, 0x11001af4);
    if (offset >= 0x60 && offset < 0x68) return part(0x60, map::kEcam | 1);
    return 0;
  }
};

}  // namespace

/// PCI Express 5.0, 7.2.2: address bits 27-20 are the bus, 19-12 device and function, 11-0 the register.
class PciHost::Ecam final : public MmioDevice {
 public:
  explicit Ecam(PciHost& host) : host_(host) {}
  std::uint64_t mmio_read(std::uint64_t offset, unsigned size, unsigned) override {
    if (!legal(offset, size)) return ~std::uint64_t{0};
    return host_.config_read(offset >> 20 & 0xff, offset >> 12 & 0xff, offset & 0xfff, size);
  }
  void mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value, unsigned) override {
    if (!legal(offset, size)) return;
    host_.config_write(offset >> 20 & 0xff, offset >> 12 & 0xff, offset & 0xfff, size,
                       static_cast<std::uint32_t>(value));
  }

 private:
  static bool legal(std::uint64_t offset, unsigned size) { return size <= 4 && offset % size == 0; }
  PciHost& host_;
};

class PciHost::Window final : public MmioDevice, public PortDevice {
 public:
  Window(PciHost& host, std::uint64_t base) : host_(host), base_(base) {}
  std::uint64_t mmio_read(std::uint64_t offset, unsigned size, unsigned) override {
    return read(PciRange::Space::Memory, base_ + offset, size);
  }
  void mmio_write(std::uint64_t offset, unsigned size, std::uint64_t value, unsigned) override {
    write(PciRange::Space::Memory, base_ + offset, size, value);
  }
  std::uint32_t port_read(std::uint16_t port, unsigned size) override {
    return static_cast<std::uint32_t>(read(PciRange::Space::Io, port, size));
  }
  void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override {
    write(PciRange::Space::Io, port, size, value);
  }

 private:
  std::uint64_t read(PciRange::Space space, std::uint64_t address, unsigned size) {
    Decoded found{};
    if (!host_.find(space, address, size, found)) return ~std::uint64_t{0};
    return found.function->bar_read(found.range.bar, address - found.range.base, size);
  }
  void write(PciRange::Space space, std::uint64_t address, unsigned size, std::uint64_t value) {
    Decoded found{};
    if (host_.find(space, address, size, found))
      found.function->bar_write(found.range.bar, address - found.range.base, size, value);
  }
  PciHost& host_;
  const std::uint64_t base_;
};

class PciHost::Line final : public InterruptLine {
 public:
  Line(PciHost& host, unsigned wire) : host_(host), wire_(wire) {}
  void set_level(bool high) override {
    if (level_.exchange(high) != high) host_.set_line(wire_, high);
  }

 private:
  PciHost& host_;
  const unsigned wire_;
  std::atomic<bool> level_{false};
};

PciHost::PciHost(MsiTarget& msi, SetWire set_wire)
    : msi_(msi), set_wire_(std::move(set_wire)), bridge_(std::make_unique<Bridge>()) {
  functions_[0] = bridge_.get();
}

PciHost::~PciHost() = default;

Result<void> PciHost::connect(PortBus& ports, MmioBus& mmio, std::uint64_t window64) {
  // CF9h in their midst is the reset register.
  for (const auto& [first, count] : {std::pair<std::uint16_t, std::uint32_t>{0xcf8, 1}, {0xcfa, 2}, {0xcfc, 4}}) {
    if (auto attached = ports.attach(first, count, *this, "PCI configuration"); !attached) return attached;
  }
  ecam_ = std::make_unique<Ecam>(*this);
  if (auto attached = mmio.attach(Gpa(map::kEcam), map::kEcamSize, *ecam_, "PCI ECAM"); !attached) return attached;
  windows_.push_back(std::make_unique<Window>(*this, 0));
  if (auto attached = ports.attach(map::kPciIo, 0x10000u - map::kPciIo, *windows_.back(), "PCI I/O"); !attached)
    return attached;
  const std::pair<std::uint64_t, std::uint64_t> ranges[] = {{map::kPciWindow, map::kPciWindowEnd},
                                                            {map::kPciWindow2, map::kPciWindow2End},
                                                            {window64, window64 + map::kPciWindow64Size}};
  for (const auto& [begin, end] : ranges) {
    windows_.push_back(std::make_unique<Window>(*this, begin));
    if (auto attached = mmio.attach(Gpa(begin), end - begin, *windows_.back(), "PCI memory"); !attached)
      return attached;
  }
  return {};
}

void PciHost::reset() {
  const std::scoped_lock lock(config_mutex_);
  address_ = 0;
  for (PciFunction* function : functions_) {
    if (function != nullptr) function->reset();
  }
  update_ranges();
}

Result<void> PciHost::attach(unsigned device, unsigned function, PciFunction& what) {
  const std::string subject = "00:" + std::to_string(device) + "." + std::to_string(function);
  if (device >= 32 || function >= 8)
    return fail(ErrorCode::InvalidArgument, "attach PCI function", subject, "there is no such place on the bus");
  if (functions_[device * 8 + function] != nullptr)
    return fail(VmError(ErrorCode::Busy, "attach PCI function", subject, "the place is taken")
                    .with_hint("choose another device number from 1 to 31"));
  functions_[device * 8 + function] = &what;
  const std::scoped_lock lock(config_mutex_);
  update_ranges();
  return {};
}

InterruptLine& PciHost::interrupt(unsigned device, unsigned pin) {
  const std::scoped_lock lock(lines_mutex_);
  lines_.push_back(std::make_unique<Line>(*this, map::pci_wire(device, pin)));
  return *lines_.back();
}

void PciHost::set_line(unsigned wire, bool high) {
  const std::scoped_lock lock(lines_mutex_);
  unsigned& count = asserted_[wire];
  count = high ? count + 1 : count - 1;
  if (count == (high ? 1u : 0u)) set_wire_(wire, high);
}

std::uint32_t PciHost::config_read(unsigned bus, unsigned place, std::uint16_t offset, unsigned size) {
  PciFunction* function = bus == 0 ? functions_[place] : nullptr;
  if (function == nullptr) return ones(size);
  const std::scoped_lock lock(config_mutex_);
  return function->config_read(offset, size) & ones(size);
}

void PciHost::config_write(unsigned bus, unsigned place, std::uint16_t offset, unsigned size, std::uint32_t value) {
  PciFunction* function = bus == 0 ? functions_[place] : nullptr;
  if (function == nullptr) return;
  const std::scoped_lock lock(config_mutex_);
  function->config_write(offset, size, value & ones(size));
  update_ranges();
}

void PciHost::update_ranges() {
  std::vector<Decoded> now;
  for (PciFunction* function : functions_) {
    if (function == nullptr) continue;
    std::array<PciRange, 6> ranges{};
    const std::size_t count = function->ranges(ranges);
    for (std::size_t i = 0; i < count && i < ranges.size(); ++i) now.push_back({ranges[i], function});
  }
  const std::unique_lock lock(ranges_mutex_);
  ranges_ = std::move(now);
}

bool PciHost::find(PciRange::Space space, std::uint64_t address, unsigned size, Decoded& found) {
  const std::shared_lock lock(ranges_mutex_);
  for (const Decoded& decoded : ranges_) {
    const std::uint64_t offset = address - decoded.range.base;
    if (decoded.range.space != space || address < decoded.range.base || offset >= decoded.range.size ||
        size > decoded.range.size - offset)
      continue;
    found = decoded;
    return true;
  }
  return false;
}

std::uint32_t PciHost::port_read(std::uint16_t port, unsigned size) {
  if (port == 0xcf8) return size == 4 ? address_.load() : ones(size);
  if (port < 0xcfc) return ones(size);
  const std::uint32_t address = address_.load();
  const unsigned register_offset = (address & 0xfc) + (port & 3u);
  if ((address & 0x80000000) == 0 || (port & 3u) + size > 4) return ones(size);
  return config_read(address >> 16 & 0xff, address >> 8 & 0xff, static_cast<std::uint16_t>(register_offset), size);
}

void PciHost::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
  if (port == 0xcf8) {
    if (size == 4) address_ = value & 0x80fffffc;
    return;
  }
  const std::uint32_t address = address_.load();
  if (port < 0xcfc || (address & 0x80000000) == 0 || (port & 3u) + size > 4) return;
  const unsigned register_offset = (address & 0xfc) + (port & 3u);
  config_write(address >> 16 & 0xff, address >> 8 & 0xff, static_cast<std::uint16_t>(register_offset), size, value);
}

}  // namespace vm_platform
